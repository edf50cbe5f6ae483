"""Tracks whether deliveries still reach this worker through the queue."""

from typing import Final

from hookseal.ground.clock import Clock

STILL_SECONDS: Final = 60.0


class Movement:
    """The time at which a delivery last came through the queue, or at which this worker had no room for one.

    If that is `still_seconds` ago, the queue may have stopped.
    """

    def __init__(self, clock: Clock, *, sweep_seconds: float) -> None:
        self.still_seconds = STILL_SECONDS + 2 * sweep_seconds
        self._clock = clock
        self._moved_at = clock.monotonic()

    def moved(self) -> None:
        """Record that a delivery came, or that there is no room for one."""
        self._moved_at = self._clock.monotonic()

    @property
    def is_still(self) -> bool:
        """Whether no delivery came for `still_seconds`."""
        return self._clock.monotonic() - self._moved_at >= self.still_seconds
