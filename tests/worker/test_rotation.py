"""Rotation while two whole workers deliver: no request fails for it, and none is signed with what was revoked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.rotation import Rotated, Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

TENANT = TenantId("acme")


def verifies(secret: str, got: Received) -> bool:
    """Return whether the public library takes the request with that secret alone."""
    try:
        Webhook(secret).verify(got.body, got.headers)
    except WebhookVerificationError:
        return False
    return True


@asynccontextmanager
async def traffic(world: World) -> AsyncIterator[None]:
    """Publish events, one after the other, for the length of the block."""

    async def publish() -> None:
        while True:
            await world.publish()

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        publishing.cancel()
        await asyncio.wait({publishing})


async def rotated(world: World, endpoint: EndpointId, *, overlap_seconds: int) -> Rotated:
    """Rotate; without an overlap return only once it is complete, as the command does."""
    async with world.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=world.installation.unlocked, who="ada@desk")
        wanted = Wanted(
            tenant_id=TENANT,
            endpoint_id=endpoint,
            overlap_seconds=overlap_seconds,
            secret=generate_signing_secret(),
        )
        answer = await rotation.rotate(operator, wanted)
        if overlap_seconds == 0:
            await rotation.completed(
                operator,
                tenant=TENANT,
                endpoint_id=endpoint,
                generation=answer.generation,
                clock=SystemClock(),
                tell=lambda _: None,
            )
    return answer


def text(answer: Rotated) -> str:
    """Return the new secret as its owner spells it."""
    assert answer.secret is not None
    return answer.secret.reveal().decode()


async def more(receiver: Receiver, number: int) -> None:
    """Return once so many more requests have come."""
    await receiver.wait_for(len(receiver.received) + number)


@pytest.mark.req("SEC-10", "SEC-09")
async def test_in_mid_traffic(world: World, receiver: Receiver) -> None:
    """In the overlap each request verifies with either secret; after a revocation with the newest one only."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    endpoint, first = added.pointer.endpoint_id, added.secret.reveal().decode()
    async with world.worker(), world.worker(), traffic(world):
        await more(receiver, 20)
        second = text(await rotated(world, endpoint, overlap_seconds=3600))
        await more(receiver, 60)
        overlapping = len(receiver.received)
        third = text(await rotated(world, endpoint, overlap_seconds=0))
        revoked = len(receiver.received)
        await more(receiver, 40)

        async def settled() -> bool:
            waiting = "SELECT NOT EXISTS (SELECT FROM hookseal.deliveries WHERE state IN ('dead_letter', 'failed'))"
            return bool(await world.pool.fetchval(waiting))

        await eventually(settled)

    before, after = receiver.received[:overlapping], receiver.received[revoked:]
    assert all(verifies(first, got) for got in before)
    both = [got for got in before if verifies(second, got)]
    assert len(both) >= 30
    assert all(2 == len(got.headers["webhook-signature"].split()) for got in both)
    assert all(verifies(third, got) for got in after)
    assert not any(verifies(first, got) or verifies(second, got) for got in after)
