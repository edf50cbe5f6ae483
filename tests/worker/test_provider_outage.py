"""A whole worker whose secrets are at a provider outside PostgreSQL, while that is away."""

import pytest

from hookseal.operations.move_secrets import move_endpoint
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.ref import Provider
from tests.doubles.faulty_proxy import Refusal, faulty_proxy
from tests.doubles.openbao import ROOT_TOKEN, openbao
from tests.doubles.providers import openbao_access, outside
from tests.doubles.stored import keyring
from tests.worker.test_held_end_to_end import waiting
from tests.worker.world import Receiver, World

SEALED = Refusal(status=503, body=b'{"errors":["Vault is sealed"]}')


@pytest.mark.req("SEC-18")
@pytest.mark.req("SEC-07", part="whole")
async def test_a_provider_outage_holds_its_deliveries_only(world: World, receiver: Receiver) -> None:
    """While the provider is sealed its deliveries wait unspent and others arrive; then they go out by themselves."""
    moved = (await world.endpoint(f"{receiver.base_url}/hook")).pointer
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    async with openbao() as server, faulty_proxy(server.url) as proxy:
        async with outside(world.pool, openbao_access(server.url, "hookseal")) as found, world.pool.acquire() as one:
            unlocked = await unlock(world.pool, Provider.OPENBAO, keyring(), outside=found)
            operator = Operator(connection=one, unlocked=unlocked, who="ada@desk")
            await move_endpoint(operator, moved.tenant_id, moved.endpoint_id, Provider.OPENBAO)
        settings = {
            "SECRETS_PROVIDER": "openbao",
            "SECRETS_CACHE_TTL_SECONDS": "0",
            "BAO_ADDR": proxy.url,
            "BAO_TOKEN": ROOT_TOKEN,
        }
        async with world.worker(**settings) as worker:
            await world.state((await world.publish())[0], "delivered")
            proxy.fault = SEALED
            held = [(await world.publish())[0] for _ in range(3)]
            await waiting(world, 3, "secret")
            await world.state((await world.publish("globex"))[0], "delivered")
            rows = [await world.installation.delivery(ring) for ring in held]
            assert [(0, 0)] * 3 == [(row["attempts"], row["budget_spent"]) for row in rows]
            assert 200 == (await worker.get("/livez"))[0]
            proxy.fault = None
            await world.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
            for ring in held:
                await world.state(ring, "delivered")
    [attempt] = await world.installation.attempts(held[0])
    assert ["openbao"] == [ref.partition(":")[0] for ref in attempt["signed_by"]]
