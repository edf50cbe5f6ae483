"""Whether deliveries still come through the queue to this worker."""

from typing import Final

from hookseal.ground.clock import Clock

STILL_SECONDS: Final = 60.0


class Movement:
    """Knows when a delivery last came to this worker through the queue, or could not come for want of room.

    `still_seconds`: for so long that may not have happened before the queue is suspected to stand still.
    """

    def __init__(self, clock: Clock, *, sweep_seconds: float) -> None:
        self.still_seconds = STILL_SECONDS + 2 * sweep_seconds
        self._clock = clock
        self._moved_at = clock.monotonic()

    def moved(self) -> None:
        """Note that a delivery came, or that there is no room for one."""
        self._moved_at = self._clock.monotonic()

    @property
    def is_still(self) -> bool:
        """Whether none came for longer than is usual where some are due."""
        return self._clock.monotonic() - self._moved_at >= self.still_seconds
