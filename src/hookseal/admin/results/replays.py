"""Results about replay jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hookseal.admin.results.base import HIDDEN
from hookseal.ground.literals import ReplayState


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A job that replays many deliveries. `state` is running, done or cancelled; `rate` is per second.

    `filter` has its conditions. `matched` deliveries met them at the start. `skipped` counts those that were not
    replayed, by reason.
    """

    tenant_id: str
    replay_id: str
    state: ReplayState
    filter: Mapping[str, Any]
    rate: int
    matched: int
    replayed: int
    skipped: Mapping[str, int]
    remaining: int
    started_at: datetime
    moved_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCount:
    """How many deliveries a replay job would send again, and how many it would skip, by the reason.

    If it is not `complete`, there are more deliveries that were not looked at.
    """

    would_replay: int
    would_skip: Mapping[str, int]
    complete: bool = field(default=True, metadata=HIDDEN)
