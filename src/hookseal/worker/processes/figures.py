"""Merges the metrics of several processes into those of one worker. Pure: takes and returns lists of families."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from hookseal.worker.metrics.runtime import PROCESS_RESTARTS, Aggregation, Ending, scraped
from hookseal.worker.processes.messages import Family

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
