"""The intake of rings, on a real Valkey: taken rings are removed, and invalid jobs are dropped unread."""

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import pytest
from arq import constants
from redis.asyncio import Redis
from redis.exceptions import InvalidResponse, ResponseError

from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.queue import intake as intake_keys
from hookseal.queue.bell import Bell, bell
from hookseal.queue.intake import MAX_JOB_BYTES, Dropped, DropReason, Intake, Taken
from hookseal.queue.rings import DEFAULT_QUEUE, bell_key
from tests.doubles.claims import RING
from tests.doubles.replaced import replace
from tests.queue.arq_pool import arq_pool
from tests.queue.contents import contents

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "publishing.md"
POISONED = "01900000-0000-7000-8000-00000000dead"
YEARS = 10 * 365 * 86_400_000
SHORT = 0.01  # seconds
LONG = 4.0  # less than Redis may take for an answer


def ring(number: int) -> Ring:
    return replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012d}"))


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    """Give a bell on an empty queue."""
    found = bell(redis_url)
    yield found
    await found.close()


@pytest.fixture
def intake(ringing: Bell) -> Intake:
    return Intake(ringing)


@pytest.mark.req("DEL-02")
def test_the_keys_are_those_of_arq() -> None:
    """The product imports no arq where it takes rings."""
    ours = intake_keys.JOB_PREFIX, intake_keys.IN_PROGRESS_PREFIX, intake_keys.RETRY_PREFIX, intake_keys.ABORTED

    assert ours == (
        constants.job_key_prefix,
        constants.in_progress_key_prefix,
        constants.retry_key_prefix,
        constants.abort_jobs_ss,
    )


@pytest.mark.req("DEL-02")
async def test_the_earliest_rings_are_taken(ringing: Bell, intake: Intake, redis_url: str) -> None:
    """As many as requested are taken, in the order of their rings, and nothing of them is left in Redis."""
    rings = [ring(number) for number in range(5)]
    for each in rings:
        await ringing.ring([each])

    assert Taken(rings[:3], []) == await intake.take(3, SHORT)
    assert Taken(rings[3:], []) == await intake.take(3, SHORT)
    assert Taken([], []) == await intake.take(3, SHORT)
    assert {} == await contents(redis_url)


@pytest.mark.req("DEL-02")
async def test_three_plain_commands_make_a_ring(ringing: Bell, intake: Intake, redis_url: str) -> None:
    """The form of docs/guide/publishing.md, with its job and its rights, is taken in turn with rings of hookseal."""
    guide = GUIDE.read_text(encoding="utf-8")
    [rights] = re.findall(r"ACL SETUSER shop on >PASSWORD (.+)", guide)
    job = bytes.fromhex("".join(re.findall(r"(?m)^ +([0-9a-f]{80,})$", guide)))
    made = Ring(
        tenant_id=TenantId("acme"),
        endpoint_id=EndpointId("01900000-0000-7000-8000-00000000000e"),
        delivery_id=DeliveryId("01900000-0000-7000-8000-00000000000d"),
    )
    before, after = ring(1), ring(20)  # of one millisecond, they are taken in the order of their ids
    await ringing.ring([before])
    async with Redis.from_url(redis_url) as client:
        await client.execute_command("ACL", "SETUSER", "shop", "on", ">shop", *rights.split())
        try:
            of_shop = f"redis://shop:shop@{urlsplit(redis_url).netloc.rpartition('@')[2]}{urlsplit(redis_url).path}"
            async with Redis.from_url(of_shop) as shop, shop.pipeline() as both:
                seconds, microseconds = await shop.time()
                both.psetex(f"arq:job:{made.delivery_id}", 3_600_000, job)
                due = seconds * 1_000 + microseconds // 1_000 - 315_360_000_000
                both.zadd(DEFAULT_QUEUE, {made.delivery_id: due}, lt=True)
                both.zadd(bell_key(DEFAULT_QUEUE), {"ring": 0})
                await both.execute()
        finally:
            await client.execute_command("ACL", "DELUSER", "shop")
    await ringing.ring([after])

    assert Taken([before, made, after], []) == await intake.take(5, SHORT)
    assert {} == await contents(redis_url)


@pytest.mark.req("DEL-02")
async def test_an_arq_pools_job_is_a_ring(ringing: Bell, intake: Intake, redis_url: str) -> None:
    """`enqueue_job` with the serializer of hookseal makes a ring, for any time: PostgreSQL decides what is due."""
    for each, later in ((ring(1), None), (ring(2), 3600)):
        arguments = (each.tenant_id, each.endpoint_id, each.delivery_id)
        await arq_pool(ringing).enqueue_job("deliver", *arguments, _job_id=each.delivery_id, _defer_by=later)

    assert Taken([ring(1), ring(2)], []) == await intake.take(5, SHORT)
    assert {} == await contents(redis_url)


@pytest.mark.req("DEL-02")
async def test_a_bell_ends_the_wait(ringing: Bell, intake: Intake, redis_url: str) -> None:
    assert Taken([], []) == await intake.take(3, SHORT)
    waiting = asyncio.create_task(intake.take(3, LONG))
    await _blocked(redis_url, 1)
    await ringing.ring([ring(number) for number in range(4)])

    assert Taken([ring(0), ring(1), ring(2)], []) == await waiting
    assert Taken([ring(3)], []) == await intake.take(3, LONG)
    assert {} == await contents(redis_url)


@pytest.mark.req("DEL-02")
async def test_each_worker_wakes_the_next(own_valkey: Server) -> None:
    """Workers that wait are woken one after the other until all rings are taken, and no more of them."""
    ringing = bell(own_valkey.url)
    waiting = [asyncio.create_task(Intake(ringing).take(2, LONG)) for _ in range(4)]
    await _blocked(own_valkey.url, 4)
    await ringing.ring([ring(number) for number in range(5)])
    first = islice(asyncio.as_completed(waiting, timeout=LONG / 2), 3)
    taken = [each for ended in first for each in (await ended).rings]
    for each in waiting:
        each.cancel()
    await ringing.close()

    assert [ring(number) for number in range(5)] == sorted(taken, key=lambda each: each.delivery_id)


async def test_a_ring_without_a_bell_waits_for_the_next_look(ringing: Bell, intake: Intake, redis_url: str) -> None:
    """A job that `enqueue_job` puts into the queue rings no bell: it is taken with the next ring, or after the wait."""
    for number in (1, 2):
        each = ring(number)
        arguments = (each.tenant_id, each.endpoint_id, each.delivery_id)
        await arq_pool(ringing).enqueue_job("deliver", *arguments, _job_id=each.delivery_id)
        if number == 1:
            assert Taken([ring(1)], []) == await intake.take(5, SHORT)
    await ringing.ring([ring(3)])

    assert {ring(2), ring(3)} == set((await intake.take(5, LONG)).rings)
    assert {} == await contents(redis_url)


async def test_a_bell_of_another_type_loses_no_ring(ringing: Bell, intake: Intake, redis_url: str) -> None:
    """If something else is in the place of the bell, rings are taken without it, and every part says what is wrong."""
    async with Redis.from_url(redis_url) as client:
        await client.set(bell_key(DEFAULT_QUEUE), "x")
    for each in (ring(1), ring(2)):
        with pytest.raises(Unavailable, match="Redis refuses the command"):  # after it has put the ring into the queue
            await ringing.ring([each])
    with pytest.raises(Unavailable, match="WRONGTYPE"):
        await ringing.ping()

    assert Taken([ring(1)], []) == await intake.take(1, LONG)
    assert Taken([ring(2)], []) == await intake.take(5, LONG)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await intake.take(5, LONG)


@pytest.mark.req("DUR-06")
async def test_a_look_empties_the_bell(ringing: Bell, intake: Intake, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.zadd(bell_key(DEFAULT_QUEUE), {f"x{number}": number for number in range(1_000)})
    await ringing.ring([ring(1)])

    assert Taken([ring(1)], []) == await intake.take(5, LONG)
    assert {} == await contents(redis_url)


async def test_a_redis_that_lost_its_scripts_gives_rings(ringing: Bell, intake: Intake, redis_url: str) -> None:
    await ringing.ring([ring(1)])
    async with Redis.from_url(redis_url) as client:
        await client.script_flush()

    assert Taken([ring(1)], []) == await intake.take(5, LONG)


async def _blocked(redis_url: str, clients: int) -> None:
    async with Redis.from_url(redis_url) as client:
        while (await client.info("clients"))["blocked_clients"] != clients:
            pass


def _job(**changes: object) -> bytes:
    arguments = [RING.tenant_id, RING.endpoint_id, POISONED]
    return msgspec.msgpack.encode({"t": None, "f": "deliver", "a": arguments, "k": {}, "et": 1} | changes)


Poison = Callable[[Redis], Awaitable[None]]


def _value(value: bytes | None, *, score: float = 1, member: bytes = POISONED.encode()) -> Poison:
    async def poison(client: Redis) -> None:
        if value is not None:
            await client.set(b"arq:job:" + member, value)
        await client.zadd(DEFAULT_QUEUE, {member: score})

    return poison


async def _a_list(client: Redis) -> None:
    await cast("Awaitable[int]", client.rpush(f"arq:job:{POISONED}", "x"))
    await client.zadd(DEFAULT_QUEUE, {POISONED: 1})


@pytest.mark.req("DUR-06", "DEL-02")
@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        pytest.param(_value(None), DropReason.NO_JOB, id="no-job-at-all"),
        pytest.param(_value(b""), DropReason.NO_JOB, id="empty-job"),
        pytest.param(_a_list, DropReason.NO_JOB, id="job-of-another-kind"),
        pytest.param(_value(b"\x80\x04\x95"), DropReason.UNREADABLE, id="pickle"),
        pytest.param(_value(_job(f="drop_everything")), DropReason.UNREADABLE, id="unknown-function"),
        pytest.param(_value(_job(f=["deliver"])), DropReason.UNREADABLE, id="function-that-is-no-text"),
        pytest.param(_value(_job(k={"tenant_id": "acme"})), DropReason.UNREADABLE, id="named-arguments"),
        pytest.param(_value(_job(a=7)), DropReason.UNREADABLE, id="arguments-that-are-none"),
        pytest.param(_value(_job(a=["acme", POISONED])), DropReason.UNREADABLE, id="too-few"),
        pytest.param(_value(_job(a=["acme", POISONED, POISONED, "x"])), DropReason.UNREADABLE, id="too-many"),
        pytest.param(_value(_job(a=["acme", POISONED, 7])), DropReason.UNREADABLE, id="not-text"),
        pytest.param(
            _value(_job(a=["_system", RING.endpoint_id, POISONED])), DropReason.UNREADABLE, id="reserved-tenant"
        ),
        pytest.param(
            _value(_job(a=["Acme' OR 1=1", RING.endpoint_id, POISONED])), DropReason.UNREADABLE, id="not-a-tenant"
        ),
        pytest.param(_value(_job(a=["acme", "../1", POISONED])), DropReason.UNREADABLE, id="not-an-endpoint"),
        pytest.param(
            _value(_job(a=["acme", RING.endpoint_id, RING.delivery_id])), DropReason.UNREADABLE, id="another-delivery"
        ),
        pytest.param(_value(b"x" * (MAX_JOB_BYTES + 1)), DropReason.TOO_LARGE, id="too-large"),
        pytest.param(_value(_job(), member=b"\xff\xfe"), DropReason.NOT_AN_ID, id="id-that-is-no-text"),
        pytest.param(_value(_job(), member=b"x" * 100_000), DropReason.NOT_AN_ID, id="long-id"),
        pytest.param(_value(_job(), score=float("-inf"), member=b"x"), DropReason.NOT_AN_ID, id="due-before-all-time"),
    ],
)
async def test_an_invalid_job_is_dropped(
    poison: Poison, reason: DropReason, ringing: Bell, intake: Intake, redis_url: str
) -> None:
    """An invalid job is dropped at once with its reason, and the ring behind it is taken in the same call."""
    async with Redis.from_url(redis_url) as client:
        await poison(client)
    await ringing.ring([RING])
    taken = await intake.take(10, SHORT)

    assert ([RING], [(reason, 1)]) == (taken.rings, [(each.reason, each.rings) for each in taken.dropped])
    left = await contents(redis_url)
    assert {} == {key: value for key, value in left.items() if b"x" * 50 not in key}, "the key of a long id was built"


@pytest.mark.parametrize(
    "poison",
    [
        _value(_job(et=None)),
        _value(_job(et="yesterday")),
        _value(_job(t=1_000_001)),
        _value(_job(t="twice")),
        _value(_job(), score=0),
        _value(_job(), score=float("-inf")),
        _value(_job(), score=YEARS * 1000),
        _value(_job(), score=float("inf")),
    ],
    ids=["no-time", "time-that-is-no-number", "many-tries", "no-number-of-tries", "0", "-inf", "far-ahead", "inf"],
)
async def test_tries_and_times_of_a_job_are_ignored(poison: Poison, intake: Intake, redis_url: str) -> None:
    """A job's number of tries and its times are ignored: the claim decides what is due."""
    async with Redis.from_url(redis_url) as client:
        await poison(client)

    assert Taken([replace(RING, delivery_id=DeliveryId(POISONED))], []) == await intake.take(2, SHORT)
    assert {} == await contents(redis_url)


@pytest.mark.req("DUR-06")
async def test_dropped_jobs_are_counted_by_reason(intake: Intake, redis_url: str) -> None:
    """A thousand forged ids are one line, with one of them; those that cannot be shown are not."""
    forged = [f"01900000-0000-7000-8000-{number:012x}" for number in range(1_000)]
    async with Redis.from_url(redis_url) as client:
        await client.zadd(DEFAULT_QUEUE, dict.fromkeys(forged, 1) | {b"\xff": 2, "x": 3})
    taken = await intake.take(2_000, SHORT)

    no_job, not_an_id = taken.dropped
    assert (DropReason.NO_JOB, 1_000, True) == (no_job.reason, no_job.rings, no_job.job_id in forged)
    assert Dropped(DropReason.NOT_AN_ID, 2) == not_an_id


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize("key", [DEFAULT_QUEUE, bell_key(DEFAULT_QUEUE)])
async def test_a_large_member_is_not_loaded(key: str, ringing: Bell, intake: Intake, redis_url: str) -> None:
    """A large member of the queue or the bell is not loaded: it has left Redis, and the next ring is taken."""
    async with Redis.from_url(redis_url) as client:
        await client.zadd(key, {b"x" * 20_000_000: 1})
    tracemalloc.start()
    with suppress(InvalidResponse):
        assert Taken([], [Dropped(DropReason.NOT_AN_ID)]) == await intake.take(1, SHORT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await ringing.ring([RING])

    assert Taken([RING], []) == await intake.take(1, LONG)
    assert peak < 3_000_000, "the large member was loaded into memory"
