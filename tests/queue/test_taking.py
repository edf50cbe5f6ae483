"""Which rings are taken, in which order, and what is thrown out on the way."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import cast

import msgspec
import pytest

from hookseal.ground.errors import Malformed
from hookseal.ground.ids import DeliveryId, TenantId
from hookseal.queue.bell import DEFAULT_QUEUE, Bell, bell
from hookseal.queue.taking import LARGEST_JOB_BYTES, Dropped, DropReason, RingAgain, Taking, arguments_of
from tests.doubles.claims import DELIVERY, ENDPOINT, RING
from tests.queue.contents import contents
from tests.queue.test_bell import many, until_later

HELD = f"arq:in-progress:{DELIVERY}"
JOB_KEY = f"arq:job:{DELIVERY}"


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    """Yield a bell on an empty Redis."""
    made = bell(redis_url)
    yield made
    await made.close()


@pytest.fixture
def taking(ringing: Bell) -> Taking:
    """Return what takes the rings of that bell."""
    return Taking(ringing.redis, DEFAULT_QUEUE)


def numbers(taken: dict[str, bytes]) -> list[int]:
    """Return which of `many` were taken, in that order."""
    return [int(job_id[-12:], 16) for job_id in taken]


async def rung_in_turn(ringing: Bell, count: int) -> None:
    """Ring so many, each later than the one before it."""
    for each in many(count):
        await ringing.ring([each])
        await until_later(ringing)


@pytest.mark.req("DEL-02")
async def test_the_oldest_are_taken_and_held(ringing: Bell, taking: Taking) -> None:
    """No more are taken than asked for, the oldest first; nobody takes them again while they are held."""
    await rung_in_turn(ringing, 4)
    first = await taking.take(3)
    second = await Taking(ringing.redis, DEFAULT_QUEUE).take(3)

    assert ([0, 1, 2], [3]) == (numbers(first.jobs), numbers(second.jobs))
    assert [] == first.dropped
    assert ("acme", ENDPOINT, many(1)[0].delivery_id) == arguments_of(next(iter(first.jobs.values())))
    assert 0 < await ringing.redis.pttl(f"arq:in-progress:{many(1)[0].delivery_id}") <= 10_000


async def test_what_has_ended_leaves_nothing(ringing: Bell, taking: Taking, redis_url: str) -> None:
    """Nothing is left in Redis of a ring that has ended."""
    await ringing.ring([RING])
    for job_id in (await taking.take(1)).jobs:
        await taking.end(job_id)

    assert {} == await contents(redis_url)


@pytest.mark.req("DEL-02")
async def test_what_is_put_back_keeps_its_place(ringing: Bell, taking: Taking) -> None:
    """A ring that there was no room for is the next one to be taken, whatever was rung since."""
    await rung_in_turn(ringing, 3)
    for job_id in (await taking.take(1)).jobs:
        await taking.put_back(job_id, RingAgain())

    assert [0, 1, 2] == numbers((await taking.take(3)).jobs)


@pytest.mark.req("DEL-02")
async def test_what_is_put_behind(ringing: Bell, taking: Taking) -> None:
    """A ring whose delivery is being changed lets what waits now go first, and nothing that is rung later."""
    await rung_in_turn(ringing, 3)
    for job_id in (await taking.take(1)).jobs:
        await taking.put_back(job_id, RingAgain(keeps_place=False))
    await until_later(ringing)
    later = replace(RING, delivery_id=DeliveryId("01900000-0000-7000-8000-000000000063"))
    await ringing.ring([later])

    assert [1, 2, 0, 0x63] == numbers((await taking.take(9)).jobs)


async def test_what_is_put_back_for_later(ringing: Bell, taking: Taking) -> None:
    """A ring that may not be taken again at once is passed by until then, and those behind it are not held up."""
    await rung_in_turn(ringing, 2)
    [job_id] = (await taking.take(1)).jobs
    await taking.put_back(job_id, RingAgain(2.0))

    assert 1_000 < await ringing.redis.pttl(f"arq:in-progress:{job_id}") <= 2_000
    assert [1] == numbers((await taking.take(2)).jobs)
    await ringing.redis.unlink(f"arq:in-progress:{job_id}")  # as when the time is over
    assert [0] == numbers((await taking.take(2)).jobs)


async def test_what_is_over_is_not_put_back(ringing: Bell, taking: Taking) -> None:
    """A ring that another worker has ended meanwhile is not in the queue again."""
    await ringing.ring([RING])
    await taking.take(1)
    await Taking(ringing.redis, DEFAULT_QUEUE).end(DELIVERY)
    await taking.put_back(DELIVERY, RingAgain(keeps_place=False))

    assert 0 == await ringing.depth()


@pytest.mark.req("DUR-06")
async def test_those_that_cannot_be_answered_hold_up_nobody(ringing: Bell, taking: Taking) -> None:
    """Though more rings cannot be answered than are looked at in one round, each behind them has its turn."""
    *first, last = many(1_501)
    await ringing.ring(first)
    await until_later(ringing)
    await ringing.ring([last])
    rounds = 0
    while last.delivery_id not in (taken := (await taking.take(100)).jobs):
        rounds += 1
        assert rounds <= 15
        for job_id in taken:
            await taking.put_back(job_id, RingAgain(0.2, keeps_place=False))

    assert 15 == rounds


@pytest.mark.req("DUR-06")
async def test_what_is_no_delivery_id(ringing: Bell, taking: Taking, redis_url: str) -> None:
    """Whatever is queued and is no UUID as we write them is thrown out in one round, and counted together."""
    wrong = [b"", b"x", b"\xff" * 36, DELIVERY.upper().encode(), b"x" * 36, DELIVERY.encode() + b"0", b"\n" + b"0" * 35]
    await ringing.redis.zadd(DEFAULT_QUEUE, dict.fromkeys(wrong, 1))
    await ringing.ring([RING])
    taken = await taking.take(1)

    assert [DELIVERY] == list(taken.jobs)
    assert [Dropped(DropReason.NOT_AN_ID, rings=len(wrong))] == taken.dropped
    await taking.end(DELIVERY)
    assert {} == await contents(redis_url)


async def _no_job(ringing: Bell) -> None:
    await ringing.redis.unlink(JOB_KEY)


async def _large_job(ringing: Bell) -> None:
    await ringing.redis.set(JOB_KEY, b"x" * (LARGEST_JOB_BYTES + 1))


async def _list(ringing: Bell) -> None:
    await ringing.redis.unlink(JOB_KEY)
    await cast("Awaitable[int]", ringing.redis.rpush(JOB_KEY, "x"))


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_no_job, DropReason.NO_JOB), (_large_job, DropReason.TOO_LARGE), (_list, DropReason.UNREADABLE)],
)
async def test_what_has_no_job_of_ours(
    spoil: Callable[[Bell], Awaitable[None]], reason: DropReason, ringing: Bell, taking: Taking, redis_url: str
) -> None:
    """A ring whose job is gone, is larger than any of ours, or is of another kind is thrown out, and leaves nothing."""
    await ringing.ring([RING])
    await spoil(ringing)
    taken = await taking.take(1)

    assert ({}, [Dropped(reason, job_id=DELIVERY)]) == (taken.jobs, taken.dropped)
    assert {} == await contents(redis_url)


async def _for_ever(ringing: Bell) -> None:
    await ringing.redis.set(HELD, "1")


async def _for_too_long(ringing: Bell) -> None:
    await ringing.redis.set(HELD, "1", px=10_500)


async def _by_a_list(ringing: Bell) -> None:
    await cast("Awaitable[int]", ringing.redis.rpush(HELD, "x"))


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize("hold", [_for_ever, _for_too_long, _by_a_list])
async def test_what_is_held_too_long(hold: Callable[[Bell], Awaitable[None]], ringing: Bell, taking: Taking) -> None:
    """A ring that is held without an end, or for longer than a worker holds one, is free, and taken at once."""
    await ringing.ring([RING])
    await hold(ringing)
    taken = await taking.take(1)

    assert [DELIVERY] == list(taken.jobs)
    assert [Dropped(DropReason.HELD_TOO_LONG, job_id=DELIVERY)] == taken.dropped
    assert 0 < await ringing.redis.pttl(HELD) <= 10_000


async def test_what_is_held_by_another(ringing: Bell, taking: Taking) -> None:
    """A ring that is held for no longer than it may be stays held."""
    await ringing.ring([RING])
    await ringing.redis.set(HELD, "1", px=10_000)
    taken = await taking.take(1)

    assert ({}, []) == (taken.jobs, taken.dropped)


async def test_the_longest_ring_is_small_enough(ringing: Bell, taking: Taking) -> None:
    """The longest ids that there are make a job that is taken, with room for twice as much."""
    await ringing.ring([replace(RING, tenant_id=TenantId("t" * 63))])
    taken = await taking.take(1)

    assert ("t" * 63, ENDPOINT, DELIVERY) == arguments_of(taken.jobs[DELIVERY])
    assert len(taken.jobs[DELIVERY]) <= LARGEST_JOB_BYTES / 2


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x80\x04\x95", id="pickle"),
        pytest.param(b"\x91" * 512, id="nested"),
        pytest.param(b"\x83\xa1f\xa1\xff\xa1a\x90\xa1k\x80", id="no-text"),
        pytest.param(msgspec.msgpack.encode({"f": "deliver", "k": {}}), id="no-arguments"),
        pytest.param(msgspec.msgpack.encode({"f": "deliver", "a": 7, "k": {}}), id="arguments-that-are-none"),
        pytest.param(msgspec.msgpack.encode({"f": "other", "a": [], "k": {}}), id="another-function"),
        pytest.param(msgspec.msgpack.encode({"f": ["deliver"], "a": [], "k": {}}), id="function-that-is-no-text"),
        pytest.param(msgspec.msgpack.encode({"f": "deliver", "a": [], "k": {"x": 1}}), id="named-arguments"),
    ],
)
def test_what_is_no_job_of_ours(job: bytes) -> None:
    """Whatever is no call of `deliver` is malformed, and says so without its content."""
    with pytest.raises(Malformed, match=r"^a (job|ring) "):
        arguments_of(job)
