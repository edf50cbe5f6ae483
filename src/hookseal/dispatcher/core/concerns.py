"""Decides whether a person must act, why, and which command comes next; and what limits a worker. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.ground.ids import plural
from hookseal.ground.wire import MAX_BODY_BYTES

LATE_SECONDS: Final = 60.0  # what is due is sent within this time, as the alert HooksealDeliveriesLate says
HELD_SECONDS: Final = 3_600.0  # what is held for longer does not come by itself
IDLE_SECONDS: Final = 300.0  # a replay job takes a step every second
LEADERLESS_SECONDS: Final = 30.0  # after that another worker leads, if there is one


class Limit(StrEnum):
    """What a worker has no more of: it cannot begin a request until it has, or is slower."""

    REQUESTS = "requests"
    BYTES = "bytes"
    CONNECTIONS = "connections"
    RECORDS = "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a worker used at its last heartbeat, and how much it may use; None if it does not say it.

    `cannot_record` is whether it knows an outcome that it cannot record, so that it sends nothing.
    """

    requests: int | None
    most_requests: int | None
    bytes: int | None
    most_bytes: int | None
    connections: int | None
    most_connections: int | None
    cannot_record: bool


def limited_by(use: Use) -> tuple[Limit, ...]:
    """Return what limits the worker; nothing if it could do more."""
    reached = {
        Limit.REQUESTS: _is_full(use.requests, use.most_requests),
        # A claim needs room for a body of the largest size.
        Limit.BYTES: _is_full(use.bytes, use.most_bytes, rest=MAX_BODY_BYTES - 1),
        Limit.CONNECTIONS: _is_full(use.connections, use.most_connections),
        Limit.RECORDS: use.cannot_record,
    }
    return tuple(limit for limit, is_reached in reached.items() if is_reached)


def _is_full(used: int | None, most: int | None, *, rest: int = 0) -> bool:
    return used is not None and most is not None and used + rest >= most


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Why a person must act, and the command to run next."""

    reason: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationFacts:
    """What was read of the installation.

    `limits` has for each live worker what limits it. `leaderless_seconds` is for how long no worker has led, None if
    one leads, or none ever did. `oldest_waiting_seconds` has for each reason to wait how long the oldest delivery has
    been held. `idle_replay_seconds` is how long ago the running replay job that is furthest behind took a step, None if
    none runs. `active_keys` counts the active master keys; None if there are none at all, because another provider
    keeps the secrets.
    """

    endpoints: int
    pending: int
    oldest_due_seconds: float
    oldest_waiting_seconds: Mapping[str, float]
    limits: Sequence[Sequence[Limit]]
    leaderless_seconds: float | None
    secrets_refused: int
    stopped_endpoints: int
    idle_replay_seconds: float | None
    active_keys: int | None


def concerns(facts: InstallationFacts) -> tuple[Concern, ...]:
    """Return why a person must act, what stops most first; nothing if hookseal and the receivers can do the rest."""
    return (*_of_workers(facts), *_of_deliveries(facts))


def _of_workers(facts: InstallationFacts) -> Iterator[Concern]:
    if facts.endpoints and facts.active_keys == 0:
        yield Concern(reason="no master key is active, so nothing can be signed", command="hookseal key status")
    if not facts.limits:
        if facts.endpoints or facts.pending:
            yield Concern(reason="no worker is live, so nothing is sent", command="hookseal worker")
        return
    if facts.leaderless_seconds is not None and facts.leaderless_seconds > LEADERLESS_SECONDS:
        yield Concern(
            reason=f"no worker has led for {_span(facts.leaderless_seconds)}: retries and held deliveries stay",
            command="hookseal check",
        )
    if stuck := sum(Limit.RECORDS in each for each in facts.limits):
        yield Concern(
            reason=f"{plural(stuck, 'worker cannot record what it has', 'workers cannot record what they have')} sent",
            command="hookseal check",
        )
    elif facts.oldest_due_seconds > LATE_SECONDS:
        yield _lateness(facts)


def _lateness(facts: InstallationFacts) -> Concern:
    late = f"a delivery has been due for {_span(facts.oldest_due_seconds)}"
    if all(facts.limits):
        limits = ", ".join(limit for limit in Limit if any(limit in each for each in facts.limits))
        return Concern(reason=f"{late}, and every worker is at a limit ({limits}): run more", command="hookseal worker")
    return Concern(reason=f"{late}, although a worker could do more", command="hookseal check")


_WAITS: Final = {
    WaitingFor.BREAKER: ("an open breaker", "hookseal endpoint list --state held"),
    WaitingFor.CONCURRENCY: ("room of its endpoint", "hookseal endpoint stats --sort waiting"),
    WaitingFor.RATE: ("the rate of its endpoint", "hookseal endpoint stats --sort waiting"),
}


def _of_deliveries(facts: InstallationFacts) -> Iterator[Concern]:
    if refused := facts.secrets_refused:
        yield Concern(
            reason=f"the secret of {plural(refused, 'endpoint', 'endpoints')} is refused",
            command="hookseal endpoint list --state held",
        )
    if stopped := facts.stopped_endpoints:
        yield Concern(
            reason=f"{plural(stopped, 'ordered endpoint is', 'ordered endpoints are')} stopped by a delivery that was "
            "given up",
            command="hookseal endpoint list --state stopped",
        )
    for waiting_for, (what, command) in _WAITS.items():
        seconds = facts.oldest_waiting_seconds.get(waiting_for, 0.0)
        if seconds > HELD_SECONDS:
            yield Concern(reason=f"a delivery has waited for {what} for {_span(seconds)}", command=command)
    if facts.idle_replay_seconds is not None and facts.idle_replay_seconds > IDLE_SECONDS:
        yield Concern(
            reason=f"a replay job has done nothing for {_span(facts.idle_replay_seconds)}",
            command="hookseal replay list --state running",
        )


def _span(seconds: float) -> str:
    """Return a duration in its largest unit that it has twice: `40 s`, `12 min`, `5 h`, `3 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
