"""Everything by which arq would drop a job, or choke on it, done to the rings of real deliveries."""

import pickle
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import pytest
from redis.asyncio import Redis

from hookseal.dispatcher.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.bell import DEFAULT_QUEUE
from tests.faults.site import TENANT, Site

ANOTHER = "01900000-0000-7000-8000-00000000000a"
Poison = Callable[[Redis, Ring], Awaitable[object]]


def job(ring: Ring, **changes: object) -> bytes:
    """Return the job of a ring, with these parts changed."""
    arguments = [ring.tenant_id, ring.endpoint_id, ring.delivery_id]
    return msgspec.msgpack.encode({"t": None, "f": "deliver", "a": arguments, "k": {}, "et": 1} | changes)


def spoilt(**changes: object) -> Poison:
    """Return what rings with a job that is not as it should be."""
    return lambda client, ring: client.set(f"arq:job:{ring.delivery_id}", job(ring, **changes))


def saying(*arguments: str) -> Poison:
    """Return what rings with these arguments; `{}` stands for the right one."""

    def poison(client: Redis, ring: Ring) -> Awaitable[object]:
        right = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
        said = [own if given == "{}" else given for own, given in zip(right, arguments, strict=False)]
        return client.set(f"arq:job:{ring.delivery_id}", job(ring, a=said))

    return poison


def beside(key: str, value: str) -> Poison:
    """Return what rings rightly, but has this beside the job."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.set(f"{key}:{ring.delivery_id}", value)

    return poison


def due(score: float) -> Poison:
    """Return what rings rightly, for that time."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.zadd(DEFAULT_QUEUE, {ring.delivery_id: score})

    return poison


async def expired(_client: Redis, _ring: Ring) -> None:
    """Ring with no job at all."""


async def pickled(client: Redis, ring: Ring) -> None:
    """Ring as arq does it by default."""
    await client.set(f"arq:job:{ring.delivery_id}", pickle.dumps({"f": "deliver"}))


async def of_another_kind(client: Redis, ring: Ring) -> None:
    """Have a list in the place of the job."""
    await cast("Awaitable[int]", client.rpush(f"arq:job:{ring.delivery_id}", "x"))


async def aborted(client: Redis, ring: Ring) -> None:
    """Have arq told to abort the job."""
    await client.set(f"arq:job:{ring.delivery_id}", job(ring))
    await client.zadd("arq:abort", {ring.delivery_id: 1})


POISONS: dict[str, Poison] = {
    "unknown function": spoilt(f="drop_everything"),
    "function that is no text": spoilt(f=["deliver"]),
    "too few arguments": saying("{}", "{}"),
    "no arguments": spoilt(a=[]),
    "arguments that are none": spoilt(a=7),
    "named arguments": spoilt(k={"tenant_id": TENANT}),
    "another tenant": saying("globex", "{}", "{}"),
    "our own tenant": saying("_system", "{}", "{}"),
    "another endpoint": saying("{}", ANOTHER, "{}"),
    "another delivery": saying("{}", "{}", ANOTHER),
    "no time": spoilt(et=None),
    "a try that is no number": spoilt(t="twice"),
    "a try beyond the last": spoilt(t=10_000_000),
    "too many tries": beside("arq:retry", "10000000"),
    "tries that are no number": beside("arq:retry", "many"),
    "held for ever": beside("arq:in-progress", "1"),
    "due before all time": due(float("-inf")),
    "due at no time": due(0),
    "due after all time": due(float("inf")),
    "expired": expired,
    "pickled": pickled,
    "of another kind": of_another_kind,
    "aborted": aborted,
}


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-06")
async def test_every_poison(calm_site: Site) -> None:
    """However the ring of a delivery is spoilt, it goes out, once; the worker does not falter, and nothing is left."""
    await calm_site.publish(len(POISONS))
    rows = await calm_site.pool.fetch(
        # As if somebody had rung them: only what is in Redis is heard of them, until the sweep rings them again.
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
        await client.zadd(DEFAULT_QUEUE, {b"\xff\xfe": 1, "of nobody": 2, ANOTHER: 3})

    worker = await calm_site.fleet.start()
    await calm_site.settled()
    assert [0] == await calm_site.fleet.stop_all()

    found = await calm_site.balance()
    found.require(lost=0, duplicates=0, unknown=0, requests=2 * len(POISONS))
    assert [] == worker.told("engine.restarted")
    assert [] != worker.told("ring.dropped")
