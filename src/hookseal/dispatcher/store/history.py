"""History: removes, in batches, deliveries, attempts, events, former urls, tokens and idempotency keys.

Each has its retention. It also fills in what attempts of before an upgrade do not have.
"""

from dataclasses import dataclass, fields
from typing import Final, NewType

from hookseal.errors import Defect
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "history.sql")
BATCH: Final = 500  # the limit of each function in the schema

Place = NewType("Place", str)
"""Where a walk through deliveries or events is: the time of the last one that it looked at."""
OLDEST: Final = Place("-infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many rows of each table were removed."""

    deliveries: int = 0
    attempts: int = 0
    events: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        """Return the sums."""
        return Removed(
            deliveries=self.deliveries + other.deliveries,
            attempts=self.attempts + other.attempts,
            events=self.events + other.events,
        )

    def __bool__(self) -> bool:
        """Return whether anything was removed. Attempts are removed only with their delivery."""
        return bool(self.deliveries or self.events)


TABLES: Final = tuple(each.name for each in fields(Removed))


class PostgresHistory:
    """The history, on a pool. Each method runs one statement that deletes at most a batch and waits for no lock."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def remove_deliveries(self, place: Place, *, days: int) -> tuple[Removed, Place | None]:
        """Remove a batch of the deliveries that ended more than `days` ago, with their attempts; pass locked ones.

        Return how many were removed, and where the next batch begins: None if this one was the last. Raises
        `Unavailable`.
        """
        row = await _SQL.row(self._executor, "remove_deliveries", days, place)
        if row is None:
            raise Defect("remove_deliveries returns one row")
        removed = Removed(deliveries=row["deliveries"], attempts=row["attempts"])
        return removed, Place(row["last"]) if removed.deliveries == BATCH else None

    async def fill_attempts(self) -> bool:
        """Fill in the endpoint of a batch of attempts that have none, the newest ones; return whether more may be left.

        Raises `Unavailable`.
        """
        filled: int = await _SQL.value(self._executor, "fill_attempts")
        return filled == BATCH

    async def remove_urls(self, *, days: int) -> int:
        """Remove a batch of the urls which ended more than `days` ago and which no delivery that is left can have used.

        Return how many were removed. Raises `Unavailable`.
        """
        removed: int = await _SQL.value(self._executor, "remove_urls", days)
        return removed

    async def remove_idempotency_keys(self) -> bool:
        """Remove a batch of the idempotency keys that are older than 12 hours; return whether more may be left.

        Raises `Unavailable`.
        """
        removed: int = await _SQL.value(self._executor, "remove_idempotency_keys")
        return removed == BATCH

    async def remove_tokens(self) -> bool:
        """Remove a batch of the tokens that ended 30 days ago, of a portal 7 days ago; return whether more may be left.

        Raises `Unavailable`.
        """
        removed: int = await _SQL.value(self._executor, "remove_tokens")
        return removed == BATCH

    async def remove_events(self, place: Place, *, days: int) -> tuple[Removed, Place | None]:
        """Look at a batch of the events that were published more than `days` ago, and remove those without a delivery.

        Return how many were removed, and where the next batch begins: None if this one was the last. Raises
        `Unavailable`.
        """
        row = await _SQL.row(self._executor, "remove_events", days, place)
        if row is None:
            raise Defect("remove_events returns one row")
        return Removed(events=row["events"]), Place(row["last"]) if row["looked_at"] >= BATCH else None
