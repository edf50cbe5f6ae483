"""Knows of each loop that deliveries depend on when its last pass ended: for the probes."""

import asyncio
from typing import Final

from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.worker.timeouts import set_within

LATE_SECONDS: Final = 30.0  # a loop whose last pass ended so long ago is late; most pass each second
_FIRST_SECONDS: Final = 0.5  # how long the first check waits for the first pass, which every loop makes at its start


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
