"""An operator gets a verified webhook about a delivery that has spent all its attempts."""

import json

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import OPERATOR_TENANT
from hookseal.receiver import verify
from tests.worker.world import Receiver, World, status


@pytest.mark.req("DEL-08", part="operator-events")
async def test_an_operator_gets_a_webhook_about_a_dead_letter(world: World, receiver: Receiver) -> None:
    """The worker records the dead letter, and delivers the event about it like any other."""
    new = NewEndpoint(
        tenant_id=OPERATOR_TENANT, url=f"{receiver.base_url}/operator", event_types=("message.*",), timeout_ms=1000
    )
    own = await world.installation.add(new)
    await world.endpoint(f"{receiver.base_url}/broken")
    await world.pool.execute(
        "UPDATE hookseal.endpoints SET retry_schedule = NULL, max_attempts = 1 WHERE tenant_id = 'acme'"
    )
    receiver.answers["/broken"] = status(500)
    async with world.worker():
        [ring] = await world.publish()
        await receiver.wait_for(2)

    [got] = [each for each in receiver.received if each.path == "/operator"]
    verify(got.body, got.headers, [own.secret.reveal().decode()], now=SystemClock().now())
    event = json.loads(got.body)
    assert "message.attempt.exhausted" == event["type"]
    assert ("acme", ring.delivery_id) == (event["data"]["tenant_id"], event["data"]["delivery_id"])
