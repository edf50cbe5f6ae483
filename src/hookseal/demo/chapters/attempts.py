"""The attempts of one delivery, as a chapter reports them. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt. `waited_seconds` is the time since the end of the previous one, None for the first."""

    number: int
    status: int | None
    outcome: str
    waited_seconds: float | None


def parse_attempts(attempt_log: Iterable[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """Return the attempts in the result of `history.show`, oldest first."""
    attempts: list[Attempt] = []
    ended: datetime | None = None
    for attempt in attempt_log:
        started: datetime = attempt["started_at"]
        attempts.append(
            Attempt(
                number=attempt["number"],
                status=attempt["status"],
                outcome=attempt["outcome"],
                waited_seconds=None if ended is None else round((started - ended).total_seconds(), 2),
            )
        )
        ended = started + timedelta(milliseconds=attempt["duration_ms"] or 0)
    return tuple(attempts)


def statuses_and_outcomes(attempts: Iterable[Attempt]) -> tuple[tuple[int | None, str], ...]:
    """Return the status and the outcome of each."""
    return tuple((attempt.status, attempt.outcome) for attempt in attempts)
