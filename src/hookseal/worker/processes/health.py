"""Decides what the probes of the parent answer from the state of its processes. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

_OK: Final = "ok"
_WORST_LAST: Final = (_OK, "timeout", "unavailable")  # any other word says why: it answers, and cannot


class Health(StrEnum):
    """The state of one process, as its parent sees it."""

    OK = "ok"
    STARTING = "starting"  # for the first time, or after it died
    WAITING = "waiting"  # it died, and is restarted after a pause
    SILENT = "silent"  # it did not answer within two seconds
    STUCK = "stuck"  # it answers, but takes no rings
    UNAVAILABLE = "unavailable"  # one of its checks fails
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One process, and the results of its checks, if it was asked for them.

    `unrecorded` says since when and why it cannot record, if that is so.
    """

    health: Health
    states: Mapping[str, str] = field(default_factory=dict)
    unrecorded: Mapping[str, str | int] | None = None


Probed = tuple[bool, dict[str, Any]]


def live(seen: Mapping[int, Health], *, draining: bool) -> Probed:
    """Return the answer of `/livez`: always success, because the parent itself replaces stuck processes."""
    all_live = draining or all(health in {Health.OK, Health.UNAVAILABLE, Health.DRAINING} for health in seen.values())
    return True, {"status": _OK if all_live else "degraded", "processes": _named(seen)}


def ready(seen: Mapping[int, ProcessState], *, draining: bool) -> Probed:
    """Return the answer of `/readyz`: success only if every process is ready and the worker does not drain.

    It says why outcomes cannot be recorded by the process for which that has been so for longest.
    """
    return _all(seen, status="draining" if draining else None)


def started(seen: Mapping[int, ProcessState]) -> Probed:
    """Return the answer of `/startupz`: success only if the startup checks of every process pass."""
    return _all(seen, status=None)


def of_states(states: Mapping[str, str], *, draining: bool, moves: bool) -> Health:
    """Return the health of a process from its answer."""
    if draining:
        return Health.DRAINING
    if not moves:
        return Health.STUCK
    return Health.OK if all(state == _OK for state in states.values()) else Health.UNAVAILABLE


def _all(seen: Mapping[int, ProcessState], *, status: str | None) -> Probed:
    healthy = sum(each.health is Health.OK for each in seen.values())
    if status is None:
        status = _OK if healthy == len(seen) else "degraded" if healthy else "unavailable"
    body: dict[str, Any] = {
        "status": status,
        "checks": _worst(each.states for each in seen.values()),
        "processes": _named({number: each.health for number, each in seen.items()}),
    }
    if reports := [each.unrecorded for each in seen.values() if each.unrecorded is not None]:
        body["unrecorded"] = min(reports, key=lambda report: str(report["since"]))
    return status == _OK, body


def _named(seen: Mapping[int, Health]) -> dict[str, str]:
    return {str(number): health.value for number, health in sorted(seen.items())}


def _worst(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the worst result of each check over all processes."""
    worst: dict[str, str] = {}
    for states in parts:
        for name, state in states.items():
            worst[name] = max(worst.get(name, _OK), state, key=_badness)
    return worst


def _badness(state: str) -> int:
    return _WORST_LAST.index(state) if state in _WORST_LAST else len(_WORST_LAST)
