"""What a metric is: its name, kind and labels, and how the values of several processes become one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Aggregation(StrEnum):
    """How the values that several processes have of one gauge become one. Counters and histograms are added up."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `labels` has every label with all its values, or with none if they are known only when measured.

    `aggregation` applies to gauges only.
    """

    name: str
    kind: Kind
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    aggregation: Aggregation = Aggregation.SUM


def aggregations(metrics: Iterable[Metric]) -> Mapping[str, Aggregation]:
    """Return the aggregation of each metric by the name of its family, which for a counter is without `_total`."""
    return {metric.name.removesuffix("_total"): metric.aggregation for metric in metrics}
