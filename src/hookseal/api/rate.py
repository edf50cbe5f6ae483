"""How many requests each caller may send: a rate, and a burst after a pause. Pure.

Each process counts by itself. It knows so many callers at most: beyond these it forgets the one that was answered least
recently, who may then begin with a burst again.
"""

from collections.abc import Hashable
from typing import Final

DEFAULT_RATE: Final = 2_000
BURST_SECONDS: Final = 2.0
MOST_CALLERS: Final = 10_000


class RateLimit:
    """Lets each caller send `rate` requests a second, and as many at once as it could have in the 2 s before."""

    def __init__(self, rate: int, *, most: int = MOST_CALLERS) -> None:
        self._step = 1 / rate
        self._most = most
        # Until when each caller has used up its rate, the one that was answered least recently first.
        self._used_until = dict[Hashable, float]()

    def wait(self, caller: Hashable, now: float) -> float:
        """Count a request at this monotonic time. Return 0 if it may be answered, else in how many seconds one may."""
        used_until = max(self._used_until.get(caller, now), now) + self._step
        if (wait := used_until - BURST_SECONDS - now) > 0:
            return wait
        self._used_until.pop(caller, None)
        self._used_until[caller] = used_until
        if len(self._used_until) > self._most:
            del self._used_until[next(iter(self._used_until))]
        return 0.0
