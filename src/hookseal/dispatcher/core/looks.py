"""Where a look at what is due begins. Pure but for its clock.

An index keeps the entries of deliveries that were sent for as long as any transaction may still see them as they were:
that of a `pg_dump`, a forgotten session or a replication slot. A look that begins at the left end of the index reads
all of these entries, more from hour to hour. So a look begins where the last one found that all before is done.

A delivery may be due before that place nevertheless, if a transaction that was open for long is committed late. So a
whole look, from the left end, comes again and again: after `WHOLE_TIMES` as long as the last one took. While whole
looks are fast, every look is one. If they are slow, they take a twentieth of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from hookseal.ground.clock import Clock

WHOLE_TIMES: Final = 20.0


class LookStart:
    """Where looks of one kind begin: `since`, a time of PostgreSQL. Each look moves it for the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._whole_at = float("-inf")
        self.since: datetime | None = None

    @contextmanager
    def look(self) -> Iterator[datetime | None]:
        """Yield since when to read, None for a whole look. The block is the look, and sets `since`."""
        began_at = self._clock.monotonic()
        is_whole = began_at >= self._whole_at
        try:
            yield None if is_whole else self.since
        finally:
            if is_whole:
                self._whole_at = whole_again(began_at, self._clock.monotonic())

    def look_at_all(self) -> None:
        """Make the next look a whole one."""
        self._whole_at = float("-inf")


def whole_again(began_at: float, ended_at: float) -> float:
    """Return when a whole look that began and ended then may be repeated."""
    return ended_at + WHOLE_TIMES * (ended_at - began_at)


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two places; None, the left end, is before all others."""
    return None if one is None or other is None else min(one, other)
