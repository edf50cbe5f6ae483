"""What a ring leaves in Redis, and what the bell does when Redis is not there."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import msgspec
import pytest
import redis
from arq.jobs import Job
from arq.worker import Worker, func

from hookseal.dispatcher.model import Ring
from hookseal.embedded.server import Server
from hookseal.ground.errors import Unavailable
from hookseal.ground.ids import DeliveryId
from hookseal.queue.bell import DEFAULT_QUEUE, FUNCTION, Bell, bell
from hookseal.queue.serializer import job_deserializer, job_serializer
from tests.cli.listeners import closed_port
from tests.doubles.claims import DELIVERY, ENDPOINT, RING
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
    """A ring is a job of arq under the delivery's id that calls `deliver` with the three ids; arq can read it."""
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
    """After rings, Redis holds one queue of delivery ids, and for each a job of three ids, a name and a time."""
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
    """A ring that nobody takes leaves Redis by itself after an hour: PostgreSQL knows of it."""
    await ringing.ring([RING])

    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_ringing_again(ringing: Bell) -> None:
    """An id that is queued is not queued twice, keeps its earlier time, and its job lives for an hour again."""
    assert 2 == await ringing.ring([RING, RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: 1})
    await ringing.redis.pexpire(JOB_KEY, 60_000)
    assert 1 == await ringing.ring([RING])

    assert [(DELIVERY.encode(), 1.0)] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_ringing_brings_forward(ringing: Bell) -> None:
    """An id that is queued for later is due now."""
    await ringing.ring([RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: FAR})
    await ringing.ring([RING])

    score = await ringing.redis.zscore(DEFAULT_QUEUE, DELIVERY)
    assert score is not None
    assert score <= await now_ms(ringing)


async def test_ringing_brings_back(ringing: Bell) -> None:
    """An id that only its job key remembers is in the queue again."""
    await ringing.ring([RING])
    await ringing.redis.zrem(DEFAULT_QUEUE, DELIVERY)
    await ringing.ring([RING])

    assert [DELIVERY.encode()] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)


@pytest.mark.req("DEL-02")
async def test_a_stock_worker_takes_what_was_rung(ringing: Bell) -> None:
    """A worker of arq as it is installed calls `deliver` once for each ring, with the three ids."""
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
async def test_many_at_once(own_valkey: Server) -> None:
    """Many rings take few round trips; all are queued, due at one time, whatever the clock of a worker says."""
    ringing = bell(own_valkey.url)
    rings = many(1_201)
    before = await ringing.redis.info("stats")
    assert 1_201 == await ringing.ring(iter(rings))

    after = await ringing.redis.info("stats")
    assert after["total_reads_processed"] - before["total_reads_processed"] < 1_201 / 2
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert {ring.delivery_id.encode() for ring in rings} == {member for member, _ in queued}
    assert 1 == len({due for _, due in queued})
    assert 1_201 == await ringing.redis.exists(*(f"arq:job:{ring.delivery_id}" for ring in rings))
    await ringing.close()


async def test_what_was_rung_stays_rung(own_valkey: Server) -> None:
    """A Redis that takes no more in mid-ring is `Unavailable`; the rings that it took stay."""
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


async def test_nothing_to_ring(ringing: Bell, redis_url: str) -> None:
    """No rings, no commands that write."""
    nothing: list[Ring] = []
    assert 0 == await ringing.ring(nothing)
    assert {} == await contents(redis_url)


async def test_a_queue_of_its_own(redis_url: str) -> None:
    """A bell rings the queue that it was made for."""
    ringing = bell(redis_url, "another:queue")
    await ringing.ring([RING])
    await ringing.close()

    assert {b"another:queue", JOB_KEY.encode()} == set(await contents(redis_url))


async def test_nobody_listens() -> None:
    """A Redis that is not there is `Unavailable`, named by the class of the error, without the password."""
    ringing = bell(f"redis://:hunter2@127.0.0.1:{closed_port()}/0")
    with pytest.raises(Unavailable, match="Redis does not answer") as told:
        await ringing.ring([RING])
    await ringing.close()

    assert "hunter2" not in str(told.value)


async def test_a_frozen_redis(own_valkey: Server) -> None:
    """A Redis that stands still is `Unavailable` within seconds; once it goes on, the same bell rings."""
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
async def test_who_was_rung_first_is_taken_first(ringing: Bell) -> None:
    """What is rung again and again comes behind what was rung before it, whatever their ids: nothing starves."""
    await ringing.ring([OTHER])
    await until_later(ringing)
    await ringing.ring([RING])
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)

    assert RING.delivery_id < OTHER.delivery_id
    assert [OTHER.delivery_id.encode(), RING.delivery_id.encode()] == queued


@pytest.mark.req("DUR-07")
async def test_due_for_a_worker_whose_clock_is_behind(ringing: Bell) -> None:
    """A ring is due for a worker whose clock is years behind that of Redis."""
    await ringing.ring([RING])
    score = await ringing.redis.zscore(DEFAULT_QUEUE, RING.delivery_id)

    assert score is not None
    assert 0 < score <= await now_ms(ringing) - 9 * YEAR_MS


Command = Callable[..., Awaitable[object]]
FULL = ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0")
STANDBY = ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")  # of nobody: a port that is drawn would name another test
ANOTHER_KIND = (f"SET {DEFAULT_QUEUE} x", f"DEL {DEFAULT_QUEUE}")


@pytest.mark.req("DUR-04", "OPS-01")
@pytest.mark.parametrize(("spoil", "mend"), [FULL, STANDBY, ANOTHER_KIND], ids=["full", "standby", "another-kind"])
async def test_a_redis_that_takes_no_rings(own_valkey: Server, spoil: str, mend: str) -> None:
    """A Redis that answers and takes no rings is `Unavailable`, and told apart from one that is silent."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await cast("Command", ringing.redis.execute_command)(*spoil.split())
    for asks in (ringing.ping, partial(ringing.ring, [RING])):
        with pytest.raises(Unavailable, match="Redis refuses"):
            await asks()
    await cast("Command", ringing.redis.execute_command)(*mend.split())
    await ringing.redis.delete(JOB_KEY)
    await ringing.ping()

    assert {} == await contents(own_valkey.url)
    assert 1 == await ringing.ring([RING])
    await ringing.close()


@pytest.mark.req("OPS-01")
async def test_a_redis_that_runs_no_scripts(own_valkey: Server) -> None:
    """A Redis whose rights let us write and run no script is `Unavailable`: no ring could be taken."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await ringing.redis.acl_setuser("default", commands=["-eval"])
    with pytest.raises(Unavailable, match="Redis refuses"):
        await ringing.ping()
    await ringing.close()


@pytest.mark.req("DUR-06")
async def test_what_others_leave_at_our_keys(ringing: Bell) -> None:
    """Whatever lies where a ring is held, of any kind and size, fails neither the probe nor the look for lost rings."""
    await ringing.ring([RING])
    await ringing.redis.set(f"arq:in-progress:{DELIVERY}", b"\x00" * 10_000_000)
    for key in (f"arq:in-progress:{OTHER.delivery_id}", "arq:in-progress:nobody"):
        await cast("Awaitable[int]", ringing.redis.rpush(key, "x"))
    await ringing.ping()

    before = (await ringing.redis.info("stats"))["total_net_output_bytes"]
    assert [OTHER] == await ringing.lost([RING, OTHER])
    assert 1_000_000 > (await ringing.redis.info("stats"))["total_net_output_bytes"] - before


async def until_later(ringing: Bell) -> None:
    """Return once the clock of Redis shows another millisecond."""
    began = await now_ms(ringing)
    while int(await now_ms(ringing)) <= int(began) + 1:
        pass
