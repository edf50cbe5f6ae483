"""The pulse: measures how late the event loop of this worker runs its timers."""

from collections import deque
from typing import Final

from hookseal.ground.clock import Clock

_BEAT_SECONDS: Final = 0.5
_REMEMBERED: Final = 60  # sleeps: half a minute


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
