"""Holding an endpoint and releasing it: what its deliveries wait for, and what an operator does with them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.dispatcher.core.policy import LONGEST_PROBE_SECONDS, SPREAD
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "held_endpoints.sql")
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


_HELD_DELIVERIES: Final = Statements("hookseal.dispatcher.store", "held_deliveries.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSince:
    """The held deliveries of an enabled endpoint: a release makes `due` of them due.

    If it is ordered, `in_line` others wait behind the `head` of its line, which is None if nothing does.
    """

    due: int
    in_line: int
    head: DeliveryId | None


async def release(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Make the leader release the held deliveries of the endpoint, oldest first, once this is committed.

    If the endpoint is disabled, they stay held for that reason. Raises `Unavailable`.
    """
    await _execute(connection, "release", tenant, endpoint_id)


async def probe(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> WaitingFor | None:
    """Make the leader probe the endpoint within a second after this is committed; return what it is held for, if it is.

    Once the probe was signed, the other deliveries that wait for a secret are released. Raises `Unavailable`.
    """
    held_for = await _HELD_DELIVERIES.value(connection, "probe", tenant, endpoint_id)
    return None if held_for is None else WaitingFor(held_for)


async def probe_all(connection: Connection) -> int:
    """Make the leader probe every held endpoint; return how many deliveries wait for a secret.

    Raises `Unavailable`.
    """
    await _execute(connection, "probe_all")
    number: int = await _HELD_DELIVERIES.value(connection, "count_all")
    return number


async def count(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> HeldSince:
    """Return how many deliveries of the endpoint are held. Raises `Unavailable`."""
    [row] = await _HELD_DELIVERIES.rows(connection, "count", tenant, endpoint_id)
    return HeldSince(due=row["due"], in_line=row["in_line"], head=DeliveryId(row["head"]) if row["in_line"] else None)


async def cancel(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Cancel every pending delivery of an endpoint that is being deleted; return how many. Raises `Unavailable`."""
    return await _execute(connection, "cancel", tenant, endpoint_id)


async def older_claims(source: Executor, tenant: TenantId, endpoint_id: EndpointId, generation: int) -> int:
    """Return how many claims with a valid lease have read an older generation of the endpoint.

    If this is 0 after the new generation was committed, it stays 0. Raises `Unavailable`.
    """
    count: int = await _HELD_DELIVERIES.value(source, "older_claims", tenant, endpoint_id, generation)
    return count


async def _execute(connection: Connection, name: str, *arguments: str) -> int:
    return await _HELD_DELIVERIES.execute(connection, name, *arguments)
