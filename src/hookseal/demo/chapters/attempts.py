"""The log of attempts of one delivery, as a chapter tells it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt. `waited_seconds` is from the end of the one before it, None for the first."""

    number: int
    status: int | None
    outcome: str
    waited_seconds: float | None


def tried(attempt_log: Iterable[Mapping[str, Any]]) -> tuple[Tried, ...]:
    """Return the attempts of a delivery as `history.show` gives them, oldest first."""
    told: list[Tried] = []
    ended: datetime | None = None
    for attempt in attempt_log:
        started: datetime = attempt["started_at"]
        told.append(
            Tried(
                number=attempt["number"],
                status=attempt["status"],
                outcome=attempt["outcome"],
                waited_seconds=None if ended is None else round((started - ended).total_seconds(), 2),
            )
        )
        ended = started + timedelta(milliseconds=attempt["duration_ms"] or 0)
    return tuple(told)


def answered(attempts: Iterable[Tried]) -> tuple[tuple[int | None, str], ...]:
    """Return the status and the outcome of each."""
    return tuple((attempt.status, attempt.outcome) for attempt in attempts)
