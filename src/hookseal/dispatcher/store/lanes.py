"""Crowded lanes in PostgreSQL: deliveries that wait because their endpoint is at a limit, and open breakers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.dispatcher.core.model import Pace, Ring, WaitingFor
from hookseal.dispatcher.lanes.crowded import Asked
from hookseal.dispatcher.lanes.lane import Opened, Parked
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements, lines

FIRST_PROBE_SECONDS: Final = 5.0  # after a breaker opened; each later probe comes after twice as long
PAGE: Final = 1_000
REOPENED_SECONDS: Final = 10.0  # a lane stays so long after its breaker closed: a worker reads 1,000 lanes a second
MOST_LEFT_WAITING: Final = 100  # deliveries in a lane that is deleted: the workers that know it fetch them
BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000")

_SQL: Final = Statements("hookseal.dispatcher.store", "lanes.sql")


@dataclass(frozen=True, slots=True)
class CrowdedLane:
    """A lane with waiting deliveries. `is_open`: they may be claimed. `reopened_at`: when its breaker closed.

    `pace` is None if the row of the endpoint is missing.
    """

    key: Key
    reopened_at: datetime | None
    is_open: bool
    pace: Pace | None


class PostgresLanes:
    """The crowded lanes, on a pool. Every method runs one statement and may raise `Unavailable`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def park(self, parked: Sequence[Parked]) -> dict[str, WaitingFor | None]:
        """Let these deliveries wait; return the ids of those that wait, and for what those that do since now.

        The others are not due, locked, or a probe.
        """
        columns = lines([
            (each.ring.tenant_id, each.ring.endpoint_id, each.ring.delivery_id, each.waiting_for.value)
            for each in parked
        ])  # fmt: skip
        return {
            row["delivery_id"]: None if row["waiting_for"] is None else WaitingFor(row["waiting_for"])
            for row in await self._rows("park", *columns)
        }

    async def due(self, rings: Sequence[Ring]) -> dict[str, bool]:
        """Return the ids of these deliveries that are due, and whether each is the probe of its held endpoint."""
        columns = lines([(each.tenant_id, each.endpoint_id, each.delivery_id) for each in rings])
        return {row["delivery_id"]: row["is_probe"] for row in await self._rows("due", *columns)}

    async def open_breakers(self, opened: Sequence[Opened], *, spread: float) -> set[Key]:
        """Hold these endpoints until a probe is answered; return those that were not held already.

        The first probe comes after five seconds times `spread`.
        """
        once = {each.key: each for each in opened}
        columns = lines([(*key, _reason(each)) for key, each in once.items()])
        rows = await self._rows("open_breakers", *columns, FIRST_PROBE_SECONDS, spread)
        return {(row["tenant_id"], row["endpoint_id"]) for row in rows}

    async def page(self, after: Key = BEGINNING) -> list[CrowdedLane]:
        """Return the crowded lanes behind this one, at most a thousand."""
        return [
            CrowdedLane((row["tenant_id"], row["endpoint_id"]), row["reopened_at"], row["is_open"], _pace(row))
            for row in await self._rows("page", *after, PAGE)
        ]

    async def next(self, asked: Sequence[Asked]) -> list[Ring]:
        """Return the oldest waiting deliveries that are asked for, those of a lane in order. Nothing is changed."""
        rows = await self._rows("next", *lines([(*each.key, str(each.number), each.after) for each in asked]))
        return [
            Ring(
                tenant_id=TenantId(row["tenant_id"]),
                endpoint_id=EndpointId(row["endpoint_id"]),
                delivery_id=DeliveryId(row["delivery_id"]),
                is_parked=True,
            )
            for row in rows
        ]

    async def has_one_tenant(self) -> bool:
        """Return whether all endpoints are of one tenant."""
        return bool((await self._rows("has_one_tenant"))[0][0])

    async def delete(self, keys: Sequence[Key]) -> dict[Key, bool]:
        """Delete these lanes if few deliveries wait in them; return those to look after further, and whether any waits.

        These are the lanes that were stored, deleted now or not, and those in which something waits.
        """
        rows = await self._rows("delete", *lines(keys), MOST_LEFT_WAITING, REOPENED_SECONDS)
        return {(row["tenant_id"], row["endpoint_id"]): row["waits"] for row in rows}

    async def _rows(self, name: str, *arguments: Any) -> list[Any]:
        return await _SQL.rows(self._executor, name, *arguments)


async def plan(connection: Connection) -> None:
    """Have PostgreSQL plan the statements that park and fetch, on this connection. Nothing is changed.

    Raises `Unavailable`.
    """
    await _SQL.rows(connection, "park", *("",) * 4)
    await _SQL.rows(connection, "due", *("",) * 3)
    await _SQL.rows(connection, "next", *("",) * 4)


def _pace(row: Any) -> Pace | None:
    if row["ordered"] is None:
        return None
    return Pace(concurrency=row["concurrency"], rate=row["rate"], ordered=row["ordered"])


def _reason(opened: Opened) -> str:
    return f"the endpoint failed 10 times in a row, the last time with {opened.outcome.value}"
