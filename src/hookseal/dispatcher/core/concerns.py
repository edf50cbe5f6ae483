"""Decides whether a person must act, why, and with which command; and whether first attempts come in time. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.ground.ids import plural

LATE_SECONDS: Final = 60.0  # what is due is sent within this time, as the alert HooksealDeliveriesLate says
HELD_SECONDS: Final = 3_600.0  # what is held for longer does not come by itself
IDLE_SECONDS: Final = 300.0  # a replay job takes a step every second
LEADERLESS_SECONDS: Final = 30.0  # after that another worker leads, if there is one
OBJECTIVE_SHARE: Final = 0.95  # so many first attempts
OBJECTIVE_SECONDS: Final = 5.0  # begin within this time, else the alert HooksealFirstAttemptSlow fires


class Limit(StrEnum):
    """What limits a worker: its requests, the bytes of their bodies, its CPU, or answers of PostgreSQL or Redis."""

    REQUESTS = "requests"
    BYTES = "bytes"
    POSTGRESQL = "postgresql"
    REDIS = "redis"
    CPU = "cpu"


_GIVEN_UP: Final = "hookseal delivery list --state dead_letter --state failed"
_OF_SERVERS: Final = frozenset({Limit.POSTGRESQL, Limit.REDIS})  # which further workers only slow down


def meets_objective(p95_seconds: float | None, oldest_due_seconds: float) -> bool | None:
    """Return whether first attempts come in time; None if there were none.

    `p95_seconds` is the percentile of `OBJECTIVE_SHARE`. What has been due for longer than the objective is late,
    however fast the newest are.
    """
    if oldest_due_seconds > OBJECTIVE_SECONDS:
        return False
    return None if p95_seconds is None else p95_seconds <= OBJECTIVE_SECONDS


class Kind(StrEnum):
    """What a person must act on. docs/guide/running.md says for each when it is reported and what to do."""

    NO_ACTIVE_KEY = "no_active_key"
    NO_WORKER = "no_worker"
    NO_LEADER = "no_leader"
    CANNOT_RECORD = "cannot_record"
    OVERSTAYS = "overstays"
    LATE = "late"
    SECRET_REFUSED = "secret_refused"  # noqa: S105 -- no password
    LINE_STOPPED = "line_stopped"
    HELD_FOR_LONG = "held_for_long"
    REPLAY_STUCK = "replay_stuck"
    GIVEN_UP = "given_up"  # is worth a look, and no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Why a person must act, or what is worth a look, of which kind that is, and the command to run next."""

    kind: Kind
    reason: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationFacts:
    """What was read of the installation.

    `limits` has for each live worker that does not drain what limits it, and `cannot_record` counts those of them that
    know an outcome which they cannot record, so that they send nothing. `draining` counts the others, and `overstaying`
    those of them that should have ended. `leaderless_seconds` is for how long no worker has led, None if
    one leads, or none ever did. `oldest_waiting_seconds` has for each reason to wait how long the oldest delivery has
    been held. `idle_replay_seconds` is how long ago the running replay job that is furthest behind took a step, None if
    none runs. `active_keys` counts the active master keys; None if there are none at all, because another provider
    keeps the secrets. `dead_letters` and `failed` deliveries are counted up to `most`.
    """

    endpoints: int
    pending: int
    oldest_due_seconds: float
    oldest_waiting_seconds: Mapping[str, float]
    limits: Sequence[Sequence[str]]
    cannot_record: int
    draining: int
    overstaying: int
    leaderless_seconds: float | None
    secrets_refused: int
    stopped_endpoints: int
    idle_replay_seconds: float | None
    active_keys: int | None
    dead_letters: int
    failed: int
    most: int


def concerns(facts: InstallationFacts) -> tuple[Concern, ...]:
    """Return why a person must act, what stops most first; nothing if hookseal and the receivers can do the rest."""
    return (*_of_workers(facts), *_of_deliveries(facts))


def _of_workers(facts: InstallationFacts) -> Iterator[Concern]:
    if facts.endpoints and facts.active_keys == 0:
        reason = "no master key is active, so nothing can be signed"
        yield Concern(kind=Kind.NO_ACTIVE_KEY, reason=reason, command="hookseal key status")
    if facts.overstaying:
        reason = f"{plural(facts.overstaying, 'worker has', 'workers have')} drained for longer than the limit"
        yield Concern(kind=Kind.OVERSTAYS, reason=reason, command="hookseal doctor")
    if not facts.limits:
        if not facts.draining and (facts.endpoints or facts.pending):
            reason = "no worker is live, so nothing is sent"
            yield Concern(kind=Kind.NO_WORKER, reason=reason, command="hookseal worker")
        return
    if facts.leaderless_seconds is not None and facts.leaderless_seconds > LEADERLESS_SECONDS:
        reason = f"no worker has led for {_span(facts.leaderless_seconds)}: retries and held deliveries stay"
        yield Concern(kind=Kind.NO_LEADER, reason=reason, command="hookseal check")
    if stuck := facts.cannot_record:
        reason = f"{plural(stuck, 'worker cannot record what it has', 'workers cannot record what they have')} sent"
        yield Concern(kind=Kind.CANNOT_RECORD, reason=reason, command="hookseal check")
    elif facts.oldest_due_seconds > LATE_SECONDS:
        yield _lateness(facts)


def _lateness(facts: InstallationFacts) -> Concern:
    late = f"a delivery has been due for {_span(facts.oldest_due_seconds)}"
    reached = [limit for limit in Limit if any(limit in each for each in facts.limits)]
    if not all(facts.limits):
        reason, command = f"{late}, although a worker could do more", "hookseal check"
    elif slow := [limit for limit in reached if limit in _OF_SERVERS]:
        reason, command = f"{late}, and every worker waits ({', '.join(slow)} is too slow)", "hookseal doctor"
    else:
        reason, command = f"{late}, and every worker is at a limit ({', '.join(reached)}): run more", "hookseal worker"
    return Concern(kind=Kind.LATE, reason=reason, command=command)


_WAITS: Final = {
    WaitingFor.BREAKER: ("an open breaker", "hookseal endpoint list --state held"),
    WaitingFor.CONCURRENCY: ("room of its endpoint", "hookseal endpoint stats --sort waiting"),
    WaitingFor.RATE: ("the rate of its endpoint", "hookseal endpoint stats --sort waiting"),
}


def _of_deliveries(facts: InstallationFacts) -> Iterator[Concern]:
    if refused := facts.secrets_refused:
        reason = f"the secret of {plural(refused, 'endpoint', 'endpoints')} is refused"
        yield Concern(kind=Kind.SECRET_REFUSED, reason=reason, command="hookseal endpoint list --state held")
    if stopped := facts.stopped_endpoints:
        lines = plural(stopped, "ordered endpoint is", "ordered endpoints are")
        reason = f"{lines} stopped by a delivery that was given up"
        yield Concern(kind=Kind.LINE_STOPPED, reason=reason, command="hookseal endpoint list --state stopped")
    for waiting_for, (what, command) in _WAITS.items():
        seconds = facts.oldest_waiting_seconds.get(waiting_for, 0.0)
        if seconds > HELD_SECONDS:
            reason = f"a delivery has waited for {what} for {_span(seconds)}"
            yield Concern(kind=Kind.HELD_FOR_LONG, reason=reason, command=command)
    if facts.idle_replay_seconds is not None and facts.idle_replay_seconds > IDLE_SECONDS:
        reason = f"a replay job has done nothing for {_span(facts.idle_replay_seconds)}"
        yield Concern(kind=Kind.REPLAY_STUCK, reason=reason, command="hookseal replay list --state running")


def worth_a_look(facts: InstallationFacts) -> tuple[Concern, ...]:
    """Return what nobody must act on and a person should know: deliveries that were given up."""
    counted = [
        plural(number, one, many)
        for number, one, many in (
            (facts.dead_letters, "dead letter", "dead letters"),
            (facts.failed, "failed delivery", "failed deliveries"),
        )
        if number
    ]
    if not counted:
        return ()
    prefix = "at least " if max(facts.dead_letters, facts.failed) >= facts.most else ""
    reason = f"given up: {prefix}{' and '.join(counted)}"
    return (Concern(kind=Kind.GIVEN_UP, reason=reason, command=_GIVEN_UP),)


def _span(seconds: float) -> str:
    """Return a duration in its largest unit that it has twice: `40 s`, `12 min`, `5 h`, `3 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
