"""What queries of Prometheus name: metrics, and labels with their values."""

import re
from collections.abc import Iterator

from hookseal.api.serving import METRICS as METRICS_OF_THE_API
from hookseal.worker.metrics.definitions import METRICS
from hookseal.worker.metrics.runtime import Kind, Metric

# A name, and the text in braces after it.
_SELECTOR = re.compile(r"\b(hookseal_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_PARTS_OF_A_HISTOGRAM = ("_bucket", "_count", "_sum")
_BY_PROMETHEUS = {"instance", "job", "le"}
_KNOWN_WHEN_MEASURED = re.compile(r"[0-9a-f]{16}|unregistered|acme|_other")


def metric_of(name: str) -> Metric | None:
    """Return the metric that a query calls so, None if there is none."""
    for metric in (*METRICS, *METRICS_OF_THE_API):
        parts = _PARTS_OF_A_HISTOGRAM if metric.kind is Kind.HISTOGRAM else ("",)
        if name in {metric.name + part for part in parts}:
            return metric
    return None


def selectors(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each name of a metric of ours, with its matchers of labels."""
    for name, braces in _SELECTOR.findall(text):
        yield name, _MATCHER.findall(braces)


def require_known(text: str) -> None:
    """Fail unless every metric, label and value in the query exists: with a misspelled one it would never match."""
    found = list(selectors(text))
    assert found, text
    for name, matchers in found:
        metric = metric_of(name)
        assert metric is not None, name
        for label, value in matchers:
            if label not in _BY_PROMETHEUS:
                values = metric.labels[label]
                for each in value.split("|"):
                    assert each in values or (not values and _KNOWN_WHEN_MEASURED.fullmatch(each)), each


def require_rates(text: str) -> None:
    """Fail unless counters and histograms are used inside `rate` or `increase`, and gauges are not."""
    bare = re.sub(r"\b(?:rate|increase)\([^)]*\)", "", text)
    kinds = {name: metric.kind for name, _ in selectors(text) if (metric := metric_of(name)) is not None}
    outside = {name for name, _ in selectors(bare)}

    assert {name for name, kind in kinds.items() if kind is Kind.GAUGE} == outside, text
