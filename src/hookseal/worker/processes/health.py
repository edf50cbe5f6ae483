"""Decides what the probes of the parent answer from the state of its processes. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from hookseal.worker.metrics.runtime import PROCESS_RESTARTS, Aggregation, Ending, scraped
from hookseal.worker.processes.messages import Family

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

    `unrecorded` says since when and why it cannot record, if that is so; `unaudited` names endpoints whose rows were
    changed without an audit row.
    """

    health: Health
    states: Mapping[str, str] = field(default_factory=dict)
    unrecorded: Mapping[str, str | int] | None = None
    unaudited: Sequence[Mapping[str, str]] = ()


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
    if unaudited := max((each.unaudited for each in seen.values()), key=len, default=()):
        body["unaudited"] = unaudited  # each process reads the same tables
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


_GAUGE: Final = "gauge"
_COMBINE: Final[Mapping[Aggregation, Callable[[float, float], float]]] = {
    Aggregation.SUM: lambda one, other: one + other,
    Aggregation.MAX: max,
    Aggregation.MIN: min,
}

_Key = tuple[str, tuple[tuple[str, str], ...]]


def families(collected: Iterable[Metric], aggregations: Mapping[str, Aggregation]) -> list[Family]:
    """Convert the metrics of a registry into the form that a process sends to its parent."""
    return [
        Family(
            name=family.name,
            kind=family.type,
            text=family.documentation,
            aggregation=aggregations[family.name],
            samples=[(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in collected
    ]


def merged(parts: Iterable[Sequence[Family]]) -> list[Family]:
    """Return one family for each name, sample by sample: counters and histograms added up, gauges by their aggregation.

    A sample that only some parts have is merged from those.
    """
    heads: dict[str, Family] = {}
    values: dict[str, dict[_Key, float]] = {}
    for family in (family for part in parts for family in part):
        heads.setdefault(family.name, family)
        combined = values.setdefault(family.name, {})
        combine = _COMBINE[family.aggregation if family.kind == _GAUGE else Aggregation.SUM]
        for name, labels, value in family.samples:
            key = (name, tuple(labels.items()))
            combined[key] = combine(combined[key], value) if key in combined else value
    return [_family(head, values[name]) for name, head in heads.items()]


def lasting(figures: Sequence[Family]) -> list[Family]:
    """Return the metrics that are kept after a process has ended: counters and histograms, but no gauges."""
    return [family for family in figures if family.kind != _GAUGE]


def restart_counts(counted: Mapping[Ending, int]) -> Family:
    """Return how often processes were restarted, by how they had ended."""
    return Family(
        name=PROCESS_RESTARTS.name.removesuffix("_total"),
        kind="counter",
        text=PROCESS_RESTARTS.text,
        aggregation=Aggregation.SUM,
        samples=[(PROCESS_RESTARTS.name, {"ending": ending.value}, float(counted.get(ending, 0))) for ending in Ending],
    )


def rendered(figures: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """Return the figures in the format that the `Accept` header asks for, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Fixed(figures))
    return scraped(registry, accept)


def _family(head: Family, values: Mapping[_Key, float]) -> Family:
    samples = [(name, dict(labels), value) for (name, labels), value in values.items()]
    return Family(name=head.name, kind=head.kind, text=head.text, aggregation=head.aggregation, samples=samples)


class _Fixed(Collector):
    def __init__(self, figures: Sequence[Family]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        for family in self._figures:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
