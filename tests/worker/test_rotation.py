"""Rotation while two workers deliver: no request fails, and after a revocation the old secret signs nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

TENANT = TenantId("acme")
EVENTS_PER_SECOND = 40  # enough to be in the middle of every change, and little work


def verifies(secret: str, got: Received) -> bool:
    """Return whether the public library verifies the request with that secret alone."""
    try:
        Webhook(secret).verify(got.body, got.headers)
    except WebhookVerificationError:
        return False
    return True


@asynccontextmanager
async def traffic(world: World) -> AsyncIterator[None]:
    """Publish events at a steady rate during the block."""
    stopping = asyncio.Event()

    async def publish() -> None:
        while not stopping.is_set():  # a cancellation could be lost: see `worker.run.cancelled`
            await world.publish()
            await asyncio.sleep(1 / EVENTS_PER_SECOND)  # the rate

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        stopping.set()
        await publishing


async def rotated(world: World, endpoint: EndpointId, *, overlap_seconds: int) -> RotationResult:
    """Rotate; without an overlap return when the revocation is complete, as the command does."""
    async with world.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=world.installation.unlocked, who="ada@desk")
        wanted = RotationRequest(
            tenant_id=TENANT,
            endpoint_id=endpoint,
            overlap_seconds=overlap_seconds,
            secret=generate_signing_secret(),
        )
        answer = await rotation.rotate_secret(operator, wanted)
        if overlap_seconds == 0:
            await rotation.wait_until_complete(
                operator.connection,
                tenant=TENANT,
                endpoint_id=endpoint,
                generation=answer.generation,
                clock=SystemClock(),
                report=lambda _: None,
            )
    return answer


def text(answer: RotationResult) -> str:
    """Return the text of the new secret."""
    assert answer.secret is not None
    return answer.secret.reveal().decode()


async def wait_for_more(receiver: Receiver, number: int) -> None:
    """Return when that many more requests have arrived."""
    await receiver.wait_for(len(receiver.received) + number)


async def nothing_left(world: World) -> bool:
    """Return whether every delivery is delivered."""
    every = "SELECT bool_and(state = 'delivered') FROM hookseal.deliveries"
    return bool(await world.pool.fetchval(every))


async def arrived_once_at_the_first_attempt(world: World, receiver: Receiver) -> None:
    """Fail unless every event arrived once at the receiver, and every first attempt succeeded."""
    rows = await world.pool.fetch(
        "SELECT e.id::text, d.state, d.attempts, a.number, a.outcome"
        "  FROM hookseal.events AS e"
        "  LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id"
        "  LEFT JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id"
    )
    assert {("delivered", 1, 1, "delivered")} == {tuple(row)[1:] for row in rows}
    ids = await world.pool.fetch("SELECT id::text FROM hookseal.deliveries")
    assert len(rows) == len(ids)
    assert sorted(row["id"] for row in ids) == sorted(
        {name.lower(): value for name, value in got.headers.items()}["webhook-id"] for got in receiver.received
    )


@pytest.mark.req("SEC-10", "SEC-09")
async def test_no_request_fails_during_a_rotation(world: World, receiver: Receiver) -> None:
    """During the overlap each request verifies with both secrets; after a revocation only with the newest."""
    added = await world.endpoint(f"{receiver.base_url}/hook", timeout_ms=15_000)
    endpoint, first = added.pointer.endpoint_id, added.secret.reveal().decode()
    async with world.worker(), world.worker():
        async with traffic(world):
            await wait_for_more(receiver, 20)
            second = text(await rotated(world, endpoint, overlap_seconds=3600))
            await wait_for_more(receiver, 60)
            overlapping = len(receiver.received)
            third = text(await rotated(world, endpoint, overlap_seconds=0))
            revoked = len(receiver.received)
            await wait_for_more(receiver, 40)
        await eventually(lambda: nothing_left(world))

    await arrived_once_at_the_first_attempt(world, receiver)
    before, after = receiver.received[:overlapping], receiver.received[revoked:]
    assert all(verifies(first, got) for got in before)
    both = [got for got in before if verifies(second, got)]
    assert len(both) >= 30
    assert all(2 == len(got.headers["webhook-signature"].split()) for got in both)
    assert all(verifies(third, got) for got in after)
    assert not any(verifies(first, got) or verifies(second, got) for got in after)
