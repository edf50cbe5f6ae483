"""Rings the deliveries that nobody has rung: tenants take turns, and few of these rings are in Redis at once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.dispatcher.store.ledger import Chore, PostgresLedger, Unrung
from hookseal.ground.clock import Clock
from hookseal.queue.bell import MAX_QUEUED, Bell
from hookseal.worker.chores import BacklogTurns

MOST_AT_ONCE: Final = 250  # deliveries in one look: the worker handles its answer, and rings them, without a break
FEW_AT_ONCE: Final = 50  # in the first look at a backlog, and while lanes are full; the next rings twice as many
FULL_SECONDS: Final = 1.0  # while Redis has `most_standing` of these rings, each tenant gets one more in this time
_ENDS: Final = 2  # ends of the list of tenants: between two of them, every tenant was looked at


@dataclass(frozen=True, slots=True)
class Rung:
    """How many rings one look put into Redis, and whether to look again without waiting for the next poll.

    `chores` is what else there is for the leader to do, None if PostgreSQL was not asked.
    """

    rings: int
    has_more: bool
    chores: frozenset[Chore] | None = None


class UnrungRings:
    """Rings in batches. It remembers at which tenant the last batch ended.

    At most `most_standing` of its rings wait for a worker at the same time, over all tenants. Above that each tenant
    gets one more ring a second, so that one whose rings are not taken does not stop the others. Rings of others count
    only up to that number, so filling Redis stops no backlog.
    """

    most_standing = MAX_QUEUED

    def __init__(self, ledger: PostgresLedger, bell: Bell, *, clock: Clock, turns: BacklogTurns) -> None:
        self._ledger = ledger
        self._bell = bell
        self._clock = clock
        self._turns = turns
        self._after_tenant = ""
        self._ends = 0
        self._at_once = FEW_AT_ONCE
        self._is_busy = True
        self._rung_at = float("-inf")

    async def ring(self, token: str | None, *, waited_seconds: float, now: datetime | None = None) -> Rung:
        """Ring a batch of what was due `waited_seconds` before `now`. Raises `Unavailable`."""
        moment = self._clock.monotonic()
        room, each = min(self._at_once, await self._room()) if self._is_busy else self._at_once, None
        if not room:
            if moment < self._rung_at + FULL_SECONDS:
                return Rung(0, has_more=False)
            room, each = MOST_AT_ONCE, 1
        async with self._turns.turn():
            if self._turns.is_parking and each is None:
                room = min(room, FEW_AT_ONCE)
            unrung = await self._ledger.ring_unrung(
                token, waited_seconds=waited_seconds, now=now, after=self._after_tenant, at_most=room, each=each
            )
        self._after_tenant = unrung.place
        self._at_once = max(min(2 * room, MOST_AT_ONCE), FEW_AT_ONCE) if unrung.has_backlog else FEW_AT_ONCE
        self._is_busy = unrung.has_backlog or bool(unrung.rings)
        self._rung_at = moment
        await self._put(unrung)
        has_more = not self._is_vain(unrung) and unrung.has_more and each is None
        return Rung(len(unrung.rings), has_more=has_more, chores=unrung.chores)

    def _is_vain(self, unrung: Unrung) -> bool:
        """Return whether a look at all tenants rang nothing: other transactions have locked what is due."""
        self._ends = self._ends + (not unrung.place) if unrung.has_backlog and unrung.is_empty else 0
        if self._ends < _ENDS:
            return False
        self._ends = 0
        return True

    async def _room(self) -> int:
        """Return how many more rings may stand in Redis."""
        standing = await self._bell.depth()
        if standing >= self.most_standing:
            standing = min(standing, await self._ledger.standing(self.most_standing))
        return max(self.most_standing - standing, 0)

    async def _put(self, unrung: Unrung) -> None:
        if unrung.rings:
            await self._bell.ring(unrung.rings, backlogged=unrung.backlogged)
