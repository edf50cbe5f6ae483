"""What a ring stores in Redis, and how the bell behaves without Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import msgspec
import pytest
import redis
from arq.jobs import Job, serialize_job
from arq.worker import Worker, func

from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.ids import DeliveryId, TenantId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE, FUNCTION, job
from hookseal.queue.serializer import job_deserializer, job_serializer
from tests.cli.listeners import closed_port
from tests.doubles.claims import DELIVERY, ENDPOINT, RING
from tests.doubles.replaced import replace
from tests.queue.contents import contents

OTHER = replace(RING, delivery_id=DeliveryId("01900000-0000-7000-8000-00000000000b"))
JOB_KEY = f"arq:job:{DELIVERY}"
YEAR_MS = 365 * 86_400_000
FAR = 9_000_000_000_000.0


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    """Yield a bell on an empty Redis."""
    made = bell(redis_url)
    yield made
    await made.close()


def many(count: int) -> list[Ring]:
    """Return that many rings, each of another delivery."""
    return [replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012x}")) for number in range(count)]


async def now_ms(ringing: Bell) -> float:
    """Return the time of Redis."""
    seconds, microseconds = await ringing.redis.time()
    return float(seconds * 1000 + microseconds // 1000 + 1)


@pytest.mark.req("DEL-02")
async def test_a_ring_is_an_arq_job(ringing: Bell) -> None:
    """A ring is an arq job with the id of the delivery that calls `deliver` with the three ids; arq can read it."""
    assert 1 == await ringing.ring([RING])

    job = msgspec.msgpack.decode(await ringing.redis.get(JOB_KEY))
    assert ("deliver", ["acme", ENDPOINT, DELIVERY], {}) == (job["f"], job["a"], job["k"])
    info = await Job(DELIVERY, ringing.redis, DEFAULT_QUEUE, job_deserializer).info()
    assert info is not None
    assert ["deliver", "acme", ENDPOINT, DELIVERY, {}] == [info.function, *info.args, info.kwargs]
    assert info.score is not None
    assert info.score <= await now_ms(ringing)


@pytest.mark.req("DEL-02")
async def test_redis_holds_ids_only(ringing: Bell, redis_url: str) -> None:
    """After rings, Redis has one queue of delivery ids, and for each a job with three ids, a name and a time."""
    assert 2 == await ringing.ring([RING, OTHER])

    found = await contents(redis_url)
    queued = found.pop(DEFAULT_QUEUE.encode())
    jobs = {key: msgspec.msgpack.decode(value) for key, value in found.items() if isinstance(value, bytes)}
    assert isinstance(queued, list)
    assert {DELIVERY.encode(), OTHER.delivery_id.encode()} == {member for member, _ in queued}
    assert {
        f"arq:job:{ring.delivery_id}".encode(): {
            "t": None,
            "f": "deliver",
            "a": ["acme", ENDPOINT, ring.delivery_id],
            "k": {},
        }
        for ring in (RING, OTHER)
    } == {key: {name: value for name, value in job.items() if name != "et"} for key, job in jobs.items()}


async def test_a_job_expires(ringing: Bell) -> None:
    """A ring that no worker takes expires after an hour; PostgreSQL still has the delivery."""
    await ringing.ring([RING])

    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_a_queued_id_is_not_queued_twice(ringing: Bell) -> None:
    """An id that is queued is not queued twice, keeps its earlier time, and its job lives for another hour."""
    assert 2 == await ringing.ring([RING, RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: 1})
    await ringing.redis.pexpire(JOB_KEY, 60_000)
    assert 1 == await ringing.ring([RING])

    assert [(DELIVERY.encode(), 1.0)] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_a_ring_for_later_becomes_due(ringing: Bell) -> None:
    """An id that is queued for later becomes due now."""
    await ringing.ring([RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: FAR})
    await ringing.ring([RING])

    score = await ringing.redis.zscore(DEFAULT_QUEUE, DELIVERY)
    assert score is not None
    assert score <= await now_ms(ringing)


async def test_an_id_without_a_queue_entry_is_queued_again(ringing: Bell) -> None:
    """An id that has only a job key is queued again."""
    await ringing.ring([RING])
    await ringing.redis.zrem(DEFAULT_QUEUE, DELIVERY)
    await ringing.ring([RING])

    assert [DELIVERY.encode()] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)


@pytest.mark.req("DEL-02")
async def test_an_unmodified_arq_worker_takes_rings(ringing: Bell) -> None:
    """An unmodified arq worker calls `deliver` once for each ring, with the three ids."""
    calls: list[tuple[str, ...]] = []

    async def deliver(_context: dict[str, Any], *arguments: str) -> None:
        calls.append(arguments)

    await ringing.ring([RING, OTHER, RING])
    worker = Worker(
        functions=[func(deliver, name=FUNCTION, keep_result=0)],  # type: ignore[arg-type]  # arq wants its own alias
        queue_name=DEFAULT_QUEUE,
        redis_pool=ringing.redis,
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    )

    assert 2 == await worker.run_check()
    assert {(ring.tenant_id, ring.endpoint_id, ring.delivery_id) for ring in (RING, OTHER)} == set(calls)
    assert [] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)


@pytest.mark.req("DEL-02")
async def test_many_rings_take_few_round_trips(own_valkey: Server) -> None:
    """Many rings take few round trips; those of a tenant are due one ms after another, whatever a worker's clock."""
    ringing = bell(own_valkey.url)
    rings = many(1_201)
    before = await ringing.redis.info("stats")
    assert 1_201 == await ringing.ring(iter(rings))

    after = await ringing.redis.info("stats")
    assert after["total_reads_processed"] - before["total_reads_processed"] < 1_201 / 2
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert {ring.delivery_id.encode() for ring in rings} == {member for member, _ in queued}
    assert list(range(1_201)) == [due - queued[0][1] for _, due in queued]
    assert [ring.delivery_id.encode() for ring in rings] == [member for member, _ in queued]
    assert 1_201 == await ringing.redis.exists(*(f"arq:job:{ring.delivery_id}" for ring in rings))
    await ringing.close()


@pytest.mark.req("DEL-09")
async def test_few_rings_are_not_behind_the_many_of_another_tenant(own_valkey: Server) -> None:
    """Of many rings of one tenant and a few of another, rung together, the few are taken among the first."""
    ringing = bell(own_valkey.url)
    big = many(1_000)
    few = [
        replace(RING, tenant_id=TenantId("globex"), delivery_id=DeliveryId(f"01a00000-0000-7000-8000-{number:012x}"))
        for number in range(5)
    ]
    await ringing.ring([*big, *few])
    first = await ringing.redis.zrange(DEFAULT_QUEUE, 0, 2 * len(few) - 1)
    assert {each.delivery_id.encode() for each in few} <= set(first)
    await ringing.close()


async def test_accepted_rings_survive_a_full_redis(own_valkey: Server) -> None:
    """A Redis that becomes full during a ring is `Unavailable`; the accepted rings remain."""
    ringing = bell(own_valkey.url)

    def rings() -> Iterator[Ring]:
        yield from many(1_000)
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", "1mb")
        yield RING

    with pytest.raises(Unavailable, match="OutOfMemoryError"):
        await ringing.ring(rings())
    assert 1_000 == await ringing.redis.zcard(DEFAULT_QUEUE)
    await ringing.redis.config_set("maxmemory", "0")
    assert 1 == await ringing.ring([RING])
    await ringing.close()


async def test_no_rings_write_nothing(ringing: Bell, redis_url: str) -> None:
    """Without rings there are no write commands."""
    nothing: list[Ring] = []
    assert 0 == await ringing.ring(nothing)
    assert {} == await contents(redis_url)


async def test_a_bell_rings_its_own_queue(redis_url: str) -> None:
    """A bell rings its own queue."""
    ringing = bell(redis_url, "another:queue")
    await ringing.ring([RING])
    await ringing.close()

    assert {b"another:queue", b"another:queue:bell", JOB_KEY.encode()} == set(await contents(redis_url))


async def test_a_missing_redis_is_unavailable() -> None:
    """A missing Redis is `Unavailable` with the class of the error, without the password."""
    ringing = bell(f"redis://:hunter2@127.0.0.1:{closed_port()}/0")
    with pytest.raises(Unavailable, match="Redis does not answer") as raised:
        await ringing.ring([RING])
    await ringing.close()

    assert "hunter2" not in str(raised.value)


async def test_a_frozen_redis_is_unavailable(own_valkey: Server) -> None:
    """A frozen Redis is `Unavailable` within seconds; once it continues, the same bell rings."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    own_valkey.freeze()
    try:
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await ringing.ring([RING])
    finally:
        own_valkey.thaw()

    assert 1 == await ringing.ring([RING])
    await ringing.close()


@pytest.mark.req("DEL-02")
async def test_rings_are_taken_in_order(ringing: Bell) -> None:
    """A repeated ring is queued behind earlier rings, whatever their ids, so no ring starves."""
    await ringing.ring([OTHER])
    await wait_a_millisecond(ringing)
    await ringing.ring([RING])
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)

    assert RING.delivery_id < OTHER.delivery_id
    assert [OTHER.delivery_id.encode(), RING.delivery_id.encode()] == queued


@pytest.mark.req("DUR-07")
async def test_a_ring_is_due_whatever_a_workers_clock(ringing: Bell) -> None:
    """A ring is due for a worker whose clock is years behind that of Redis."""
    await ringing.ring([RING])
    score = await ringing.redis.zscore(DEFAULT_QUEUE, RING.delivery_id)

    assert score is not None
    assert 0 < score <= await now_ms(ringing) - 9 * YEAR_MS


Command = Callable[..., Awaitable[object]]
FULL = ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0")
STANDBY = ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")  # a fixed port: a random one would change the name of the test
ANOTHER_KIND = (f"SET {DEFAULT_QUEUE} x", f"DEL {DEFAULT_QUEUE}")


@pytest.mark.req("DUR-04", "OPS-01")
@pytest.mark.parametrize(
    ("break_redis", "repair_redis"), [FULL, STANDBY, ANOTHER_KIND], ids=["full", "standby", "another-kind"]
)
async def test_a_redis_that_accepts_no_rings_is_unavailable(
    own_valkey: Server, break_redis: str, repair_redis: str
) -> None:
    """A Redis that answers but accepts no rings is `Unavailable`, with another message than a silent one."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await cast("Command", ringing.redis.execute_command)(*break_redis.split())
    for asks in (ringing.ping, partial(ringing.ring, [RING])):
        with pytest.raises(Unavailable, match="Redis refuses"):
            await asks()
    await cast("Command", ringing.redis.execute_command)(*repair_redis.split())
    await ringing.redis.delete(JOB_KEY)
    await ringing.ping()

    assert {} == await contents(own_valkey.url)
    assert 1 == await ringing.ring([RING])
    await ringing.close()


@pytest.mark.req("OPS-01")
async def test_a_redis_without_scripts_is_unavailable(own_valkey: Server) -> None:
    """A Redis that lets this user write but run no scripts is `Unavailable`: no ring could be taken."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await ringing.redis.acl_setuser("default", commands=["-eval"])
    with pytest.raises(Unavailable, match="Redis refuses"):
        await ringing.ping()
    await ringing.close()


@pytest.mark.req("DUR-06")
async def test_foreign_values_break_nothing(ringing: Bell) -> None:
    """Foreign values at the keys of rings, of any type and size, break neither the probe nor the search for losses."""
    await ringing.ring([RING])
    await ringing.redis.set(f"arq:in-progress:{DELIVERY}", b"\x00" * 10_000_000)
    for key in (f"arq:in-progress:{OTHER.delivery_id}", "arq:in-progress:nobody"):
        await cast("Awaitable[int]", ringing.redis.rpush(key, "x"))
    await ringing.ping()

    before = (await ringing.redis.info("stats"))["total_net_output_bytes"]
    assert [OTHER] == await ringing.lost([RING, OTHER])
    assert 1_000_000 > (await ringing.redis.info("stats"))["total_net_output_bytes"] - before


async def wait_a_millisecond(ringing: Bell) -> None:
    """Return once the clock of Redis shows another millisecond."""
    began = await now_ms(ringing)
    while int(await now_ms(ringing)) <= int(began) + 1:
        pass


def test_a_job_is_as_arq_stores_it() -> None:
    """The job of a ring is what arq stores: a producer makes it without arq."""
    called_with = (RING.tenant_id, RING.endpoint_id, RING.delivery_id)

    assert serialize_job(FUNCTION, called_with, {}, None, 7, serializer=job_serializer) == job(RING, 7)
