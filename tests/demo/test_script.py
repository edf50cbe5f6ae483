"""The demo passes only if every delivery was verified and recorded, and every chapter saw what it must see."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hookseal.admin import OutcomeName
from hookseal.admin.results.deliveries import AttemptRecord, DeliveryDetails
from hookseal.demo.receiver import Arrival
from hookseal.demo.script import Chapter, Line, Result, attempts_of, rotation_seen, side_by_side, time_limit
from hookseal.errors import Unavailable

LINE = Line(tenant="acme", endpoint="/acme/everything", deliveries=3, delivered=3, verified=3, refused=0)
CHAPTER = Chapter(name="rotation", detail="all seen", seen={}, missing=())


def result(*lines: Line, chapters: tuple[Chapter, ...] = (CHAPTER,)) -> Result:
    """Return the result of a demo with these endpoints."""
    return Result(events=3, lines=lines, chapters=chapters, seconds=1.0)


@pytest.mark.req("OPS-08")
def test_a_complete_result_passes() -> None:
    """If all are delivered and verified, none is refused and every chapter passed, the demo passes."""
    other = replace(LINE, tenant="globex", deliveries=1, delivered=1, verified=1)
    assert result(LINE, other, chapters=(CHAPTER, replace(CHAPTER, name="retries"))).holds


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    "miss",
    [
        replace(LINE, refused=1),  # an invalid signature
        replace(LINE, verified=2),  # a delivery that never arrived
        replace(LINE, delivered=2),  # a delivery that arrived and is not recorded
        replace(LINE, verified=4),  # a delivery that was not published
        replace(LINE, delivered=4),
        replace(LINE, deliveries=4),
        replace(LINE, deliveries=0, delivered=0, verified=0),  # no deliveries
    ],
)
def test_one_failure_fails_the_demo(miss: Line) -> None:
    """With one failure of any kind at one endpoint, the demo fails."""
    for ended in (result(LINE, miss), result(miss, LINE)):
        assert not ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_one_failed_chapter_fails_the_demo() -> None:
    """If one chapter misses something, the demo fails, though all deliveries were verified."""
    miss = replace(CHAPTER, missing=("the replay",))
    for chapters in ((CHAPTER, miss), (miss, CHAPTER)):
        ended = result(LINE, chapters=chapters)
        assert ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_an_empty_result_fails() -> None:
    """Without endpoints or without chapters, the demo fails."""
    assert not result().holds
    assert not result(LINE, chapters=()).holds


def arrival(*secrets: int) -> Arrival:
    """Return a request that these secrets verify."""
    return Arrival(delivery_id="id", verified_by=frozenset(secrets), status=204 if secrets else 401)


def test_requests_are_counted_by_the_verifying_secrets() -> None:
    """Requests are counted by the secrets that verify them, and after the revocation by whether one was older."""
    arrivals = [
        arrival(1),
        arrival(1),
        arrival(1, 2),
        arrival(2),
        arrival(),
        arrival(3),
        arrival(3),
        arrival(1, 2),
        arrival(),
        arrival(2, 3),
    ]
    seen = rotation_seen(arrivals, 6, Counter({"delivered": 7, "pending": 2}))
    assert (9, 7) == (seen["deliveries"], seen["delivered"])
    assert [2, 2, 2, 2, 2] == [seen[kind] for kind in ("old", "both", "new", "other", "refused")]
    assert (True, 4, 2) == (seen["complete"], seen["after"], seen["older_after"])


def test_no_request_follows_an_incomplete_revocation() -> None:
    """Then no request counts as after it."""
    seen = rotation_seen([arrival(1), arrival(3)], None, Counter())
    assert (False, 0, 0) == (seen["complete"], seen["after"], seen["older_after"])


def test_a_wait_begins_at_the_end_of_the_previous_attempt() -> None:
    """The wait begins at the end of the previous attempt, or at its start if its end is unknown."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    attempts = attempts_of(
        delivery(
            attempt(1, start, 250, 500, "server_error"),
            attempt(2, start + timedelta(seconds=1), None, None, "unknown"),
            attempt(3, start + timedelta(seconds=3), 9, 204, "delivered"),
        )
    )
    assert [None, 0.75, 2.0] == [each["waited_seconds"] for each in attempts]
    assert [(1, 500, "server_error"), (2, None, "unknown"), (3, 204, "delivered")] == [
        (each["number"], each["status"], each["outcome"]) for each in attempts
    ]


def attempt(
    number: int, started_at: datetime, duration_ms: int | None, status: int | None, outcome: OutcomeName
) -> AttemptRecord:
    """Return an attempt with this answer."""
    return AttemptRecord(
        number=number,
        manual=False,
        url=None,
        started_at=started_at,
        duration_ms=duration_ms,
        status=status,
        outcome=outcome,
        signed_by=(),
        worker="w",
        snippet=None,
    )


def delivery(*attempts: AttemptRecord) -> DeliveryDetails:
    """Return a delivery with these attempts."""
    return DeliveryDetails(
        tenant_id="acme",
        delivery_id="d",
        endpoint_id="e",
        event_id="v",
        event_type="t",
        state="delivered",
        attempts=len(attempts),
        budget_spent=len(attempts),
        created_at=attempts[0].started_at,
        next_attempt_at=None,
        waiting_for=None,
        last_error=None,
        replay_of=None,
        correlation_id=None,
        attempt_log=attempts,
    )


async def test_chapters_run_concurrently() -> None:
    """Chapters run at the same time, and their results keep their order."""
    first, second = asyncio.Event(), asyncio.Event()

    async def one() -> int:
        first.set()
        await second.wait()
        return 1

    async def two() -> int:
        await first.wait()
        second.set()
        return 2

    assert [1, 2] == await asyncio.wait_for(side_by_side(one(), two()), 5)


async def test_an_error_ends_the_others_first() -> None:
    """An error is raised unchanged, after the others have ended."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await begun.wait()
        raise Unavailable("Redis does not answer")

    with pytest.raises(Unavailable, match="Redis does not answer"):
        await asyncio.wait_for(side_by_side(waits(), fails()), 5)
    assert ended.is_set()


async def test_the_time_limit_ends_a_block_silently() -> None:
    """The time limit ends a block silently, but does not suppress a cancellation from outside."""
    async with asyncio.timeout(60), time_limit(0):
        await asyncio.Event().wait()

    async def limited() -> None:
        async with time_limit():
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    waiting = asyncio.create_task(limited())
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
