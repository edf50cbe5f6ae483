"""Where a look at what is due begins. Pure but for its clock.

An index keeps the entries of deliveries that were sent for as long as any transaction may still see them as they were:
that of a `pg_dump`, a forgotten session or a replication slot. A look that begins at the left end of the index reads
all of these entries, more from hour to hour. So a look begins where the last one found that all before is done.

A delivery may be due before that place nevertheless, if a transaction that was open for long is committed late. So a
whole look, from the left end, comes again and again: after `WHOLE_TIMES` as long as the last one took, and after
`MOST_PAUSE` at most. The time that a look took includes waits, as for a lock, so without this limit a wait of minutes
would end whole looks for hours. While whole looks are fast, every look is one. If they take up to half a second, they
take a twentieth of the time. One that ends just within the time-out of five seconds takes a third of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from hookseal.ground.clock import Clock

WHOLE_TIMES: Final = 20.0
MOST_PAUSE: Final = 10.0  # seconds between two whole looks
MOST_AFTER_FAILURE: Final = 5.0  # the same after one that failed


class LookStart:
    """Where looks of one kind begin: `since`, a time of PostgreSQL. Each look moves it for the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._whole_at = float("-inf")
        self._has_failed = False  # the last look, which was a whole one
        self.since: datetime | None = None

    @contextmanager
    def look(self) -> Iterator[datetime | None]:
        """Yield since when to read, None for a whole look. The block is the look, and sets `since`.

        The next look after a whole one that failed is not whole: if whole looks end by the time-out, others succeed.
        """
        began_at = self._clock.monotonic()
        if began_at < self._whole_at or self._has_failed:
            self._has_failed = False
            yield self.since
            return
        self._has_failed = True
        try:
            yield None
            self._has_failed = False
        finally:
            most = MOST_AFTER_FAILURE if self._has_failed else MOST_PAUSE
            self._whole_at = whole_again(began_at, self._clock.monotonic(), most)

    def look_at_all(self) -> None:
        """Make the next look a whole one."""
        self._whole_at, self._has_failed = float("-inf"), False


def whole_again(began_at: float, ended_at: float, most: float = MOST_PAUSE) -> float:
    """Return when a whole look that began and ended then may be repeated, after a pause of at most so many seconds."""
    return ended_at + min(WHOLE_TIMES * (ended_at - began_at), most)


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two places; None, the left end, is before all others."""
    return None if one is None or other is None else min(one, other)
