"""The loops of a worker: each runs its work again and again, logs an outage once, and shows the probes that it runs."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from hookseal.errors import Unavailable, with_advice
from hookseal.ground.clock import Clock
from hookseal.ground.log import calls

LATE_SECONDS: Final = 30.0  # a loop whose last pass ended so long ago is late; most pass each second
_FIRST_SECONDS: Final = 0.5  # how long the first check waits for the first pass, which every loop makes at its start
_BEAT_SECONDS: Final = 0.5
_REMEMBERED: Final = 60  # sleeps: half a minute

T = TypeVar("T")


async def set_within(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Return True in the first turn of the event loop after the event is set, False if that is not within `seconds`."""

    async def end() -> None:
        await clock.sleep(seconds)
        limit.reschedule(0)

    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            sleeping = asyncio.ensure_future(end())
            try:
                await event.wait()
            finally:
                sleeping.cancel()
    return event.is_set()


async def at_most(seconds: float, work: Coroutine[object, object, T]) -> T:
    """Return what the work returns. After `seconds` it is cancelled, without waiting until it has ended.

    Raises the exception of the work, or `TimeoutError`.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(retrieve_exception)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        raise TimeoutError
    return await task


def retrieve_exception(task: asyncio.Task[object]) -> None:
    """Retrieve the exception of a task that nobody awaits: otherwise asyncio would print its text."""
    if not task.cancelled():
        task.exception()


class Passes:
    """The passes of one loop.

    `passed_at` is the monotonic time at which the last one ended, `ran_at` the same with those that ended in an outage;
    before the first one, both are the time at which the loop was made.

    A pass is one turn of the loop that did all its work. One that ended in an outage did not, but it shows that the
    loop runs. One that ended in any other error shows nothing: a loop that dies at each pass does not run.
    """

    def __init__(self, name: str, clock: Clock, *, late_seconds: float = LATE_SECONDS) -> None:
        self.name = name
        self.late_seconds = late_seconds
        self._clock = clock
        self.passed_at = self.ran_at = clock.monotonic()
        self._first = asyncio.Event()

    def passed(self) -> None:
        """Record that a pass has ended."""
        self.passed_at = self.ran_at = self._clock.monotonic()
        self._first.set()

    def interrupted(self) -> None:
        """Record that a pass has ended in an outage."""
        self.ran_at = self._clock.monotonic()

    @property
    def silence(self) -> float:
        """How many seconds ago a pass last ended, also one that ended in an outage."""
        return self._clock.monotonic() - self.ran_at

    async def check(self) -> None:
        """Return if a pass has ended since the start, and the last one less than `late_seconds` ago.

        The first pass may still run: it waits half a second for that. Raises `Unavailable`.
        """
        if not self._first.is_set() and not await set_within(self._first, _FIRST_SECONDS, self._clock):
            raise Unavailable(f"the loop {self.name} has ended no pass since the start")
        if self._clock.monotonic() - self.passed_at >= self.late_seconds:
            raise Unavailable(f"the loop {self.name} has ended no pass for {self.late_seconds:.0f} s")


class Outage:
    """The outage of one loop: its beginning and its end are logged, not every failed pass.

    The names of its log events begin with `name`. Each block of `survived` is a pass of the loop, which `passes`
    records.
    """

    def __init__(self, name: str, log: Any, *, passes: Passes | None = None) -> None:
        self._name = name
        self._log = log
        self._passes = passes
        self._logged = set[str]()

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return bool(self._logged)

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Catch and log every exception of the block. Each reason is logged once for each outage."""
        try:
            yield
        except Unavailable as error:
            self._begins(with_advice(error))
            if self._passes is not None:
                self._passes.interrupted()
        except Exception as error:  # noqa: BLE001 -- it is logged, and the loop tries again
            self._begins(calls(error), defect=True)
        else:
            self.over()
            if self._passes is not None:
                self._passes.passed()

    def over(self) -> None:
        """Log that the outage is over, if there was one."""
        if self._logged:
            self._logged.clear()
            self._log.info(f"{self._name}.resumed")

    def _begins(self, reason: str, *, defect: bool = False) -> None:
        if reason in self._logged:
            return
        self._logged.add(reason)
        if defect:
            self._log.exception(f"{self._name}.defect")
        else:
            self._log.warning(f"{self._name}.failed", reason=reason)


class Periodic:
    """Runs `run_once` until cancelled: every `every` seconds, and at once again while it returns True.

    The first pass comes after `first` seconds. `every` may be a function, which is asked after each pass. An outage is
    logged once, under `name`; if `retry` is given, a failed pass is repeated after so many seconds. The event `woken`
    ends a pause.

    With `leads` only the leader runs it: another worker asks every `follow` seconds whether it leads now. `passes`
    records the passes for the probes; a worker that does not lead passes, too.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[bool | None]],
        *,
        every: float | Callable[[], float],
        clock: Clock,
        log: Any,
        first: float = 0.0,
        retry: float | None = None,
        leads: Callable[[], bool] = lambda: True,
        follow: float = 0.0,
        woken: asyncio.Event | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.name = name
        self.outage = Outage(name, log, passes=passes)
        self.was_woken = False  # whether `woken` ended the last pause
        self._run_once = run_once
        self._every = every
        self._clock = clock
        self._first = first
        self._retry = retry
        self._leads = leads
        self._follow = follow
        self._woken = woken
        self._passes = passes

    async def run(self) -> None:
        """Make passes until cancelled."""
        if self._first:
            await self._clock.sleep(self._first)
        while True:
            if self._leads():
                more = await self.one_pass()
                seconds = self._pause()
            else:
                more, seconds = False, self._follow
                if self._passes is not None:
                    self._passes.passed()
            if not more:
                await self._rest(seconds)

    async def one_pass(self) -> bool:
        """Run it once, and log a failure; return whether to run it again at once."""
        more: bool | None = False
        with self.outage.survived():
            more = await self._run_once()
        return bool(more)

    def _pause(self) -> float:
        if self.outage.lasts and self._retry is not None:
            return self._retry
        return self._every() if callable(self._every) else self._every

    async def _rest(self, seconds: float) -> None:
        if self._woken is None:
            await self._clock.sleep(seconds)
        else:
            self.was_woken = await set_within(self._woken, seconds, self._clock)
            self._woken.clear()


class Pulse:
    """Sleeps repeatedly, and remembers by how much each sleep was too long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late = deque([0.0], maxlen=_REMEMBERED)

    @property
    def lag_seconds(self) -> float:
        """The longest delay of the loop within the last half minute."""
        return max(self._late)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            asleep_at = self._clock.monotonic()
            await self._clock.sleep(_BEAT_SECONDS)
            self._late.append(max(self._clock.monotonic() - asleep_at - _BEAT_SECONDS, 0.0))
