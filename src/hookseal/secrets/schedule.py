"""Rotation by schedule: when an endpoint's secret is due, and what its turn is, as decisions over what was read.

Nobody sits beside such a rotation. So it is announced, it comes no sooner after that than the warning lasts, even
when it is long overdue (the workers were down, or the endpoint has only now asked for it), and it never revokes:
both secrets sign for at least a day.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Executor, connected
from hookseal.secrets.database import outages_translated

WARNING: Final = timedelta(hours=24)
LEAST_OVERLAP_SECONDS: Final = 86_400
PAGE: Final = 100

_SQL: Final = statements("hookseal.secrets", "schedule.sql")


class Turn(StrEnum):
    """What is to be done now about a secret that is rotated by schedule."""

    WAIT = "wait"
    ANNOUNCE = "announce"
    ROTATE = "rotate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """An endpoint that asks for rotation by schedule; all times are of the database.

    `updated_at` is when its secret became the current one, `overlap_ends_at` until when the one before it signs, if
    there is one, `announced_at` when a rotation of the endpoint was last announced.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    rotate_every_days: int
    updated_at: datetime
    overlap_ends_at: datetime | None
    announced_at: datetime | None
    read_at: datetime

    @property
    def warning(self) -> timedelta:
        """How long before it a rotation is announced: a day, or half of the period if that is shorter."""
        return min(WARNING, timedelta(days=self.rotate_every_days) / 2)

    @property
    def due_at(self) -> datetime:
        """When the secret is as old as it may get, and no overlap runs any more."""
        old_at = self.updated_at + timedelta(days=self.rotate_every_days)
        return old_at if self.overlap_ends_at is None else max(old_at, self.overlap_ends_at)

    @property
    def is_announced(self) -> bool:
        """Whether this very rotation was announced: an earlier announcement was of another one."""
        return self.announced_at is not None and self.announced_at >= self.due_at - self.warning

    @property
    def rotates_at(self) -> datetime:
        """When the rotation comes: as it was announced, or as it would be if it were announced now."""
        told_at = self.announced_at if self.is_announced and self.announced_at is not None else self.read_at
        return max(self.due_at, told_at + self.warning)

    @property
    def turn(self) -> Turn:
        """What is to be done about it at the time it was read."""
        if not self.is_announced:
            return Turn.ANNOUNCE if self.read_at >= self.due_at - self.warning else Turn.WAIT
        return Turn.ROTATE if self.read_at >= self.rotates_at else Turn.WAIT


def overlap_seconds(configured: int) -> int:
    """Return how long both secrets sign after a rotation by schedule: as is configured, and a day at least."""
    return max(configured, LEAST_OVERLAP_SECONDS)


async def near(source: Executor, after: Scheduled | None) -> list[Scheduled]:
    """Return a page of the endpoints whose next rotation may be announced or made, the oldest secrets first.

    It begins after the last one of the page before, and is shorter than `PAGE` at the end. Raises
    `SecretUnavailable`.
    """
    place = (None, None) if after is None else (after.updated_at, after.endpoint_id)
    with outages_translated():
        async with connected(source) as connection:
            rows = await connection.fetch(_SQL["near"], WARNING.total_seconds(), *place, PAGE, timeout=ANSWER_SECONDS)
    return [Scheduled(**row) for row in rows]


async def of_endpoint(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> Scheduled | None:
    """Return how the endpoint stands, None if it asks for no rotation or has no secret. Raises `SecretUnavailable`."""
    with outages_translated():
        row = await connection.fetchrow(_SQL["of_endpoint"], tenant, endpoint_id, timeout=ANSWER_SECONDS)
    return None if row is None else Scheduled(**row)
