"""Held endpoints: releases probes, releases deliveries in batches, and cancels those that were held for too long."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from hookseal.dispatcher.policy import LONGEST_PROBE_SECONDS, SPREAD
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.handles import Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "held_endpoints.sql")
PROBES: Final = 100  # at most in one look
BATCH: Final = 1_000
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000", "")
Line: TypeAlias = tuple[str, str]  # tenant and endpoint
Held: TypeAlias = tuple[datetime, str]  # since when a delivery is held, and its id
FIRST_LINE: Final[Line] = ("", "00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedBatch:
    """One batch of held deliveries of a released endpoint: `due` of them are due now.

    `is_transient` says whether the endpoint was held because the store did not answer.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    due: int
    is_transient: bool


class PostgresHeldEndpoints:
    """The held endpoints, on a pool. Every method runs one or a few short statements, and none waits for a lock."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def probe(self, *, at_most: int = PROBES) -> int:
        """Release one delivery of each endpoint whose probe is due, of at most `at_most` endpoints; return how many.

        The time to the next probe of an endpoint doubles, up to five minutes. Raises `Unavailable`.
        """
        return len(await self._rows("probe", at_most, LONGEST_PROBE_SECONDS, SPREAD))

    async def release_batch(self, *, at_most: int = BATCH) -> ReleasedBatch | None:
        """Make the oldest held deliveries of one released endpoint due; None if no endpoint is being released.

        `at_most` is 1,000 or less. If the endpoint is disabled, they stay held for that reason. Raises `Unavailable`.
        """
        rows = await self._rows("release_batch", at_most)
        if not rows:
            return None
        [row] = rows
        return ReleasedBatch(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=EndpointId(row["endpoint_id"]),
            due=row["due"],
            is_transient=row["is_transient"],
        )

    async def probe_transient(self) -> None:
        """Set the next probe of every endpoint that is held because the store did not answer to now.

        Raises `Unavailable`.
        """
        await self._rows("probe_transient")

    async def release_strays(self, *, at_most: int = BATCH) -> int:
        """Release every endpoint with deliveries that are held without a reason; return the number of endpoints.

        An endpoint whose deliveries wait for a secret is probed first. The endpoints are read in pages of `at_most`.
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

    async def move_lines(self, after: Line = FIRST_LINE, *, at_most: int = BATCH) -> tuple[int, Line]:
        """Make the head of each line due that waits without a reason, in the next `at_most` lines after this one.

        Returns how many, and the line after which the next look begins. Raises `Unavailable`.
        """
        rows = await self._rows("move_lines", *after, at_most)
        if not rows:
            return 0, FIRST_LINE
        [row] = rows
        return row["due"], (row["tenant_id"], row["endpoint_id"]) if row["n"] == at_most else FIRST_LINE

    async def cancel(self, *, days: int, after: Held | None = None, at_most: int = BATCH) -> tuple[int, Held | None]:
        """Cancel those of the next `at_most` deliveries, at most 1,000, that a disabled endpoint has held for `days`.

        Returns how many, and the delivery after which the next look begins, None if there are no more. Raises
        `Unavailable`.
        """
        rows = await self._rows("cancel_held", days, *(after or (None, None)), at_most)
        if not rows:
            return 0, None
        [row] = rows
        return row["cancelled"], (row["held_at"], row["id"]) if row["number"] == at_most else None

    async def _rows(self, name: str, *arguments: Any) -> list[Any]:
        return await _SQL.rows(self._executor, name, *arguments)
