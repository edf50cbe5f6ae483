"""A periodic loop: its pauses, the leader, and what it says of its passes."""

import asyncio
from collections.abc import Callable

import pytest
import structlog

from hookseal.errors import Unavailable
from hookseal.worker.periodic import Passes, Periodic
from tests.doubles.clock import FakeClock


class _EndedError(BaseException):
    """Ends a loop."""


class Clock(FakeClock):
    """A clock that ends the loop after so many pauses."""

    def __init__(self, pauses: int) -> None:
        super().__init__()
        self._pauses = pauses

    async def sleep(self, seconds: float) -> None:
        """Note the pause."""
        await super().sleep(seconds)
        if len(self.slept) == self._pauses:
            raise _EndedError


class Work:
    """What a loop does: each pass has the next of these results, or raises it."""

    def __init__(self, *results: bool | Exception | None) -> None:
        self.results = list(results)

    async def once(self) -> bool | None:
        """Make a pass."""
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def loop(
    clock: Clock,
    work: Work,
    *,
    first: float = 0.0,
    retry: float | None = None,
    leads: Callable[[], bool] = lambda: True,
    passes: Passes | None = None,
) -> Periodic:
    """Return a loop that makes a pass every ten seconds, and looks every three seconds whether it leads."""
    return Periodic(
        "thing",
        work.once,
        first=first,
        every=lambda: 10.0,
        retry=retry,
        leads=leads,
        follow=3.0,
        passes=passes,
        clock=clock,
        log=structlog.get_logger(),
    )


async def pauses(
    number: int, *results: bool | Exception | None, first: float = 0.0, retry: float | None = None
) -> list[float]:
    """Return the first pauses of a loop whose passes have these results."""
    clock, work = Clock(number), Work(*results)
    with pytest.raises(_EndedError):
        await loop(clock, work, first=first, retry=retry).run()
    assert [] == work.results
    return clock.slept


async def test_a_pause_follows_each_pass_that_leaves_nothing() -> None:
    """It rests after a pass, but not if that says that more is left, and begins after the first pause."""
    assert [10.0, 10.0] == await pauses(2, None, False)
    assert [10.0] == await pauses(1, True, True, None)
    assert [0.5, 10.0] == await pauses(2, None, first=0.5)


async def test_a_failed_pass_is_repeated() -> None:
    """After a failure it rests for the usual time, or for the time that is given for that."""
    assert [10.0, 10.0] == await pauses(2, Unavailable("it is away"), None)
    assert [1.0, 1.0, 10.0] == await pauses(3, Unavailable("it is away"), ValueError(), None, retry=1.0)


async def test_an_outage_is_logged_once() -> None:
    """Each reason is logged once until a pass succeeds, under the name of the loop."""
    away = Unavailable("it is away")
    with structlog.testing.capture_logs() as logs:
        await pauses(5, away, away, ValueError(), None, away)
    assert ["thing.failed", "thing.defect", "thing.resumed", "thing.failed"] == [line["event"] for line in logs]


async def test_only_the_leader_works() -> None:
    """A worker that does not lead makes no pass, but shows the probes that its loop runs, and looks again soon."""
    clock, standing = Clock(4), [False, False, True, True]
    passes = Passes("thing", clock)
    with pytest.raises(_EndedError):
        await loop(clock, Work(None, Unavailable("it is away")), leads=lambda: standing.pop(0), passes=passes).run()
    assert [3.0, 3.0, 10.0, 10.0] == clock.slept
    assert (6.0, 16.0) == (passes.passed_at, passes.ran_at)


async def test_an_event_ends_a_pause() -> None:
    """The loop makes its next pass at once, and says why; the pause after it is a whole one."""
    clock, woken = FakeClock(), asyncio.Event()
    seen = list[bool]()

    async def once() -> None:
        seen.append(periodic.was_woken)
        if len(seen) < 3:
            woken.set()
        else:
            raise _EndedError

    periodic = Periodic("thing", once, every=60.0, woken=woken, clock=clock, log=structlog.get_logger())
    with pytest.raises(_EndedError):
        await periodic.run()
    assert [False, True, True] == seen
    assert not woken.is_set()
