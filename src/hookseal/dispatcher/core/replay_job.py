"""What a replay job is: which deliveries it sends again, how fast, and how far it is. Pure."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from hookseal.dispatcher.core.model import State
from hookseal.errors import Malformed
from hookseal.ground.ids import EndpointId, EventId, ReplayId, TenantId

MAX_RUNNING: Final = 5  # jobs of one tenant
MAX_RATE: Final = 1_000  # deliveries a second, of one job
DEFAULT_RATE: Final = 100
FINAL: Final = (State.DELIVERED, State.DEAD_LETTER, State.FAILED, State.CANCELLED)
NOT_DELIVERED: Final = (State.DEAD_LETTER, State.FAILED, State.CANCELLED)

_RATE: Final = re.compile(r"([0-9]{1,6})(?:/s)?")
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_END: Final = datetime(9000, 1, 1, tzinfo=UTC)


class JobState(StrEnum):
    """Where a replay job stands. `done`: every delivery that it is about was looked at."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which finished deliveries of a tenant to replay: every condition that is set must be true.

    `since` (inclusive) and `until` (exclusive) are about when the delivery was made; without `until`, it is everything
    up to now. `states` has what never reached the receiver, by default; deliveries without any attempt are included,
    and copies that `delivery replay --new-id` made. Unless `states` has `DELIVERED`, what was delivered to the same
    endpoint under another id since it ended is left out. Raises `Malformed`.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId | None = None
    event_type: str | None = None
    event_id: EventId | None = None
    states: tuple[State, ...] = NOT_DELIVERED
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        final_states(self.states)
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and not _FIRST <= moment < _END:
                raise Malformed(
                    f"{name} must be a time between the years {_FIRST.year} and {_END.year}, in UTC", field=name
                )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise Malformed("since must be earlier than until", field="since")

    def shown(self) -> dict[str, Any]:
        """Return the conditions as commands print them and the audit log stores them."""
        return {
            "endpoint_id": self.endpoint_id,
            "event_type": self.event_type,
            "event_id": self.event_id,
            "states": [state.value for state in self.states],
            "since": self.since,
            "until": self.until,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Deliveries by what happens to them: replayed, or skipped because their endpoint is disabled or deleted."""

    replayed: int = 0
    disabled: int = 0
    deleted: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.replayed + self.disabled + self.deleted

    def __add__(self, other: "Tally") -> "Tally":
        """Return the sums."""
        return Tally(
            replayed=self.replayed + other.replayed,
            disabled=self.disabled + other.disabled,
            deleted=self.deleted + other.deleted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A replay job. `matched` deliveries met the conditions when it was started; `tally` counts those it looked at."""

    replay_id: ReplayId
    selection: Selection
    state: JobState
    rate: int
    matched: int
    started_at: datetime
    moved_at: datetime
    ended_at: datetime | None
    tally: Tally = field(default_factory=Tally)

    @property
    def remaining(self) -> int:
        """How many deliveries the job has not looked at, since it still runs or was cancelled; 0 once it is done."""
        return 0 if self.state is JobState.DONE else max(self.matched - self.tally.total, 0)

    @property
    def changed(self) -> int:
        """How many met the conditions at the start and not when the job came to them; 0 until it is done.

        They were replayed by hand or delivered under another id meanwhile, perhaps by this job, or retention deleted
        them.
        """
        return max(self.matched - self.tally.total, 0) if self.state is JobState.DONE else 0

    def progress(self) -> dict[str, Any]:
        """Return the counts as commands print them and the audit log stores them."""
        return {
            "matched": self.matched,
            "replayed": self.tally.replayed,
            "skipped": {
                "endpoint_disabled": self.tally.disabled,
                "endpoint_deleted": self.tally.deleted,
                "changed": self.changed,
            },
        }

    def shown(self) -> dict[str, Any]:
        """Return the job as commands print it."""
        return {
            "tenant_id": self.selection.tenant_id,
            "replay_id": self.replay_id,
            "state": self.state.value,
            "filter": self.selection.shown(),
            "rate": self.rate,
            **self.progress(),
            "remaining": self.remaining,
            "started_at": self.started_at,
            "moved_at": self.moved_at,
            "ended_at": self.ended_at,
        }


def final_states(states: Collection[str]) -> tuple[State, ...]:
    """Return the states, each once, if a delivery ends in each of them. Raises `Malformed`, which names all of them."""
    if not states or not set(states) <= set(FINAL):
        raise Malformed(f"state must be one of {', '.join(FINAL)}: what is not finished is sent anyway", field="states")
    return tuple(dict.fromkeys(map(State, states)))


def rate(text: str) -> int:
    """Return the deliveries a second from a text such as `100/s`, if they are 1 to 1000. Raises `Malformed`."""
    match = _RATE.fullmatch(text)
    number = 0 if match is None else int(match[1])
    if not 1 <= number <= MAX_RATE:
        raise Malformed(f"rate must be 1/s to {MAX_RATE}/s, for instance {DEFAULT_RATE}/s", field="rate")
    return number
