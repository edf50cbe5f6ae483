"""Rotation by schedule: decides when an endpoint's secret is rotated, and whether to announce or rotate it now.

Nobody watches such a rotation. So it is announced first, and the time of the warning always passes before it, even if
it is long overdue because no worker ran or the schedule is new. It never revokes: both secrets sign for at least a day.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Executor
from hookseal.secrets.statements import statements

WARNING: Final = timedelta(hours=24)
LEAST_OVERLAP_SECONDS: Final = 86_400
PAGE: Final = 100

_SQL: Final = statements("schedule.sql", package="hookseal.secrets.endpoint", seconds=ANSWER_SECONDS)


class Turn(StrEnum):
    """What to do now with a secret that is rotated by schedule."""

    WAIT = "wait"
    ANNOUNCE = "announce"
    ROTATE = "rotate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """An endpoint with a rotation schedule; all times are the database's.

    Its secret is current since `updated_at`. The previous secret, if any, signs until `overlap_ends_at`. The last
    announcement of a rotation was at `announced_at`.
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
        """The time from the announcement to the rotation: a day, or half of the period if that is shorter."""
        return min(WARNING, timedelta(days=self.rotate_every_days) / 2)

    @property
    def due_at(self) -> datetime:
        """When the secret has reached its age and no overlap is running any more."""
        old_at = self.updated_at + timedelta(days=self.rotate_every_days)
        return old_at if self.overlap_ends_at is None else max(old_at, self.overlap_ends_at)

    @property
    def is_announced(self) -> bool:
        """Whether the next rotation is announced. An announcement from before its warning was for an earlier one."""
        return self.announced_at is not None and self.announced_at >= self.due_at - self.warning

    @property
    def rotates_at(self) -> datetime:
        """The time of the rotation: as announced, or as it would be if it were announced now."""
        announced_at = self.announced_at if self.is_announced and self.announced_at is not None else self.read_at
        return max(self.due_at, announced_at + self.warning)

    @property
    def turn(self) -> Turn:
        """What to do at `read_at`."""
        if not self.is_announced:
            return Turn.ANNOUNCE if self.read_at >= self.due_at - self.warning else Turn.WAIT
        return Turn.ROTATE if self.read_at >= self.rotates_at else Turn.WAIT


def overlap_seconds(configured: int) -> int:
    """Return for how long both secrets sign after a rotation by schedule: as configured, but at least a day."""
    return max(configured, LEAST_OVERLAP_SECONDS)


async def upcoming(source: Executor, after: Scheduled | None) -> list[Scheduled]:
    """Return a page of the endpoints that may need an announcement or a rotation now, the oldest secrets first.

    `after` is the last endpoint of the page before. The last page has fewer than `PAGE`. Raises `SecretUnavailable`.
    """
    cursor = (None, None) if after is None else (after.updated_at, after.endpoint_id)
    rows = await _SQL.rows(source, "upcoming", WARNING.total_seconds(), *cursor, PAGE)
    return [Scheduled(**row) for row in rows]


async def of_endpoint(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> Scheduled | None:
    """Return the schedule of the endpoint, None without a schedule or a secret. Raises `SecretUnavailable`."""
    row = await _SQL.row(connection, "of_endpoint", tenant, endpoint_id)
    return None if row is None else Scheduled(**row)
