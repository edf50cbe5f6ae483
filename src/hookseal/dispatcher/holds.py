"""What waits for its endpoint, held as one: probes, what is let go in batches, and what has waited for too long."""

from dataclasses import dataclass
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.policy import LONGEST_PROBE_SECONDS, SPREAD
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Executor, connected

_SQL: Final = statements("hookseal.dispatcher", "holds.sql")
PROBES: Final = 100  # at most in one look
BATCH: Final = 1_000
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One batch of a released endpoint, and how many deliveries are due now.

    `is_transient` tells that it had been held since the store did not answer.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    let_go: int
    is_transient: bool


class PostgresHolds:
    """Held endpoints, on a pool. Every method is one short statement, or a few, and waits for no lock."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def probe(self, *, at_most: int = PROBES) -> int:
        """Let one delivery go of each endpoint whose probe is due, at most so many; return how many were let go.

        The next probe of an endpoint comes twice as long after it, in five minutes at the latest. Raises `Unavailable`.
        """
        return len(await self._rows("probe", at_most, LONGEST_PROBE_SECONDS, SPREAD))

    async def settle(self, *, at_most: int = BATCH) -> Settled | None:
        """Make the oldest deliveries of one released endpoint due; None if no endpoint is released.

        What waits for an endpoint that is disabled goes on waiting, for that. Raises `Unavailable`.
        """
        rows = await self._rows("settle", at_most)
        if not rows:
            return None
        [row] = rows
        return Settled(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=EndpointId(row["endpoint_id"]),
            let_go=row["let_go"],
            is_transient=row["is_transient"],
        )

    async def hasten(self) -> None:
        """Have every endpoint probed now that is held since the store did not answer. Raises `Unavailable`."""
        await self._rows("hasten")

    async def release_strays(self, *, at_most: int = BATCH) -> int:
        """Release every endpoint for which deliveries wait without a reason; return how many there were.

        One whose deliveries wait for a secret is probed first. They are walked in pages of so many.
        Raises `Unavailable`.
        """
        released, place = 0, _BEGINNING
        while True:
            rows = await self._rows("release_strays", *place, at_most)
            if not rows:
                return released
            [row] = rows
            released += int(row["released"])
            if row["number"] < at_most:
                return released
            place = (row["tenant_id"], row["endpoint_id"], row["waiting_for"])

    async def cancel(self, *, days: int, at_most: int = BATCH) -> int:
        """Cancel what has waited for a disabled endpoint for so many days, at most so many; return how many.

        Raises `Unavailable`.
        """
        with translated():
            async with connected(self._executor) as connection:
                status: str = await connection.execute(_SQL["cancel_held"], days, at_most, timeout=ANSWER_SECONDS)
        return int(status.rpartition(" ")[2])

    async def _rows(self, name: str, *arguments: Any) -> list[Any]:
        with translated():
            async with connected(self._executor) as connection:
                return await connection.fetch(_SQL[name], *arguments, timeout=ANSWER_SECONDS)
