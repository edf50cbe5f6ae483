"""Everything that makes arq drop a job or fail on it, applied to the rings of real deliveries."""

import pickle
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import pytest
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.rings import DEFAULT_QUEUE
from tests.faults.site import TENANT, Site

ANOTHER = "01900000-0000-7000-8000-00000000000a"
Poison = Callable[[Redis, Ring], Awaitable[object]]


def job(ring: Ring, **changes: object) -> bytes:
    """Return the job of a ring, with these parts changed."""
    arguments = [ring.tenant_id, ring.endpoint_id, ring.delivery_id]
    return msgspec.msgpack.encode({"t": None, "f": "deliver", "a": arguments, "k": {}, "et": 1} | changes)


def changed_job(**changes: object) -> Poison:
    """Return a poison that replaces parts of the job."""
    return lambda client, ring: client.set(f"arq:job:{ring.delivery_id}", job(ring, **changes))


def changed_arguments(*arguments: str) -> Poison:
    """Return a poison that replaces the arguments of the job; `{}` keeps the correct one."""

    def poison(client: Redis, ring: Ring) -> Awaitable[object]:
        right = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
        given = [correct if each == "{}" else each for correct, each in zip(right, arguments, strict=False)]
        return client.set(f"arq:job:{ring.delivery_id}", job(ring, a=given))

    return poison


def with_key(key: str, value: str) -> Poison:
    """Return a poison that leaves the job correct and adds this key."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.set(f"{key}:{ring.delivery_id}", value)

    return poison


def due_at(score: float) -> Poison:
    """Return a poison that leaves the job correct and sets this time."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.zadd(DEFAULT_QUEUE, {ring.delivery_id: score})

    return poison


async def expired(_client: Redis, _ring: Ring) -> None:
    """Leave the ring without a job."""


async def pickled(client: Redis, ring: Ring) -> None:
    """Replace the job by a pickle, the default of arq."""
    await client.set(f"arq:job:{ring.delivery_id}", pickle.dumps({"f": "deliver"}))


async def of_another_kind(client: Redis, ring: Ring) -> None:
    """Replace the job by a list."""
    await cast("Awaitable[int]", client.rpush(f"arq:job:{ring.delivery_id}", "x"))


async def aborted(client: Redis, ring: Ring) -> None:
    """Make arq abort the job."""
    await client.set(f"arq:job:{ring.delivery_id}", job(ring))
    await client.zadd("arq:abort", {ring.delivery_id: 1})


POISONS: dict[str, Poison] = {
    "unknown function": changed_job(f="drop_everything"),
    "function that is no text": changed_job(f=["deliver"]),
    "too few arguments": changed_arguments("{}", "{}"),
    "no arguments": changed_job(a=[]),
    "arguments that are none": changed_job(a=7),
    "named arguments": changed_job(k={"tenant_id": TENANT}),
    "another tenant": changed_arguments("globex", "{}", "{}"),
    "our own tenant": changed_arguments("_system", "{}", "{}"),
    "another endpoint": changed_arguments("{}", ANOTHER, "{}"),
    "another delivery": changed_arguments("{}", "{}", ANOTHER),
    "no time": changed_job(et=None),
    "a try that is no number": changed_job(t="twice"),
    "a try beyond the last": changed_job(t=10_000_000),
    "too many tries": with_key("arq:retry", "10000000"),
    "tries that are no number": with_key("arq:retry", "many"),
    "held for ever": with_key("arq:in-progress", "1"),
    "due before all time": due_at(float("-inf")),
    "due at no time": due_at(0),
    "due after all time": due_at(float("inf")),
    "expired": expired,
    "pickled": pickled,
    "of another kind": of_another_kind,
    "aborted": aborted,
}


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-06")
async def test_every_altered_ring_is_delivered_once(calm_site: Site) -> None:
    """However its ring is altered, every delivery arrives once; the loop does not restart, and Redis is empty."""
    await calm_site.publish(len(POISONS))
    rows = await calm_site.pool.fetch(
        # Marked as rung: until the sweep rings them again, only Redis has them.
        "UPDATE hookseal.deliveries SET rung_at = now() RETURNING endpoint_id::text, id::text AS delivery_id"
    )
    rings = [
        Ring(
            tenant_id=TENANT,
            endpoint_id=EndpointId(row["endpoint_id"]),
            delivery_id=DeliveryId(row["delivery_id"]),
        )
        for row in rows
    ]
    async with Redis.from_url(calm_site.redis_url) as client:
        for ring, poison in zip(rings, [*POISONS.values(), *POISONS.values()], strict=True):
            await client.zadd(DEFAULT_QUEUE, {ring.delivery_id: 1})
            await poison(client, ring)
        await client.zadd(DEFAULT_QUEUE, {b"\xff\xfe": 1, "no id": 2, ANOTHER: 3})

    worker = await calm_site.fleet.start()
    await calm_site.wait_until_settled()
    assert [0] == await calm_site.fleet.stop_all()

    found = await calm_site.report()
    found.require(lost=0, duplicates=0, unknown=0, requests=2 * len(POISONS))
    assert [] == worker.logged("engine.restarted")
    assert [] != worker.logged("ring.dropped")
