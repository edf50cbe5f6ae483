"""Counts what happens in this worker, reads what is measured elsewhere, and writes both as Prometheus reads them."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, assert_never

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from hookseal.dispatcher.model import Outcome, State, Verdict, WaitingFor
from hookseal.ground.errors import Defect
from hookseal.queue.intake import DropReason
from hookseal.secrets.reader import Statistics
from hookseal.worker import metrics
from hookseal.worker.metrics import METRICS, FailureOf, Kind, Metric, RungBy

# A number; one for each value of the label, or of all labels together; or none.
Reading = float | Mapping[str, float] | Mapping[tuple[str, ...], float] | None
_UNLABELLED: Final = ""


class WorkerMeter(Collector):
    """A `Meter` of the dispatcher, and the one of every loop of a worker.

    Counters begin at zero for every value of their label, so that an increase is seen from the first one on.
    """

    def __init__(self) -> None:
        self._counts = {
            metric.name: dict.fromkeys(next(iter(metric.labels.values()), (_UNLABELLED,)), 0.0)
            for metric in METRICS
            if metric.kind is Kind.COUNTER
        }
        self._histograms = {metric.name: _Histogram(metric.buckets) for metric in METRICS if metric.buckets}
        self._readings: dict[str, Callable[[], Reading]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def attempted(self, outcome: Outcome, seconds: float, *, first_after: float | None) -> None:
        """Count an attempt that took so long; `first_after` is the age of the delivery at its first attempt."""
        self._count(metrics.ATTEMPTS, outcome.value)
        self._histograms[metrics.ATTEMPT_DURATION.name].observe(seconds)
        if first_after is not None:
            self._histograms[metrics.FIRST_ATTEMPT.name].observe(first_after)

    def decided(self, verdict: Verdict) -> None:
        """Count what a recorded attempt led to: a dead letter, an endpoint that was disabled."""
        if verdict.state is State.DEAD_LETTER:
            self._count(metrics.DEAD_LETTERS)
        if verdict.disable is not None:
            self._count(metrics.ENDPOINTS_DISABLED)

    def held(self, waiting_for: WaitingFor) -> None:
        """Count a delivery that was held back."""
        self._count(metrics.HELD, waiting_for.value)

    def held_too_long(self, deliveries: int) -> None:
        """Count deliveries that were cancelled because their endpoint was disabled for too long."""
        self._count(metrics.HELD_TOO_LONG, by=deliveries)

    def given_back(self) -> None:
        """Count a delivery that was given back, because its claim was too old to dial."""
        self._count(metrics.GIVEN_BACK)

    def exhausted(self) -> None:
        """Count a delivery that was given back, because this machine lacked what a connection takes."""
        self._count(metrics.EXHAUSTED)

    def lease_lost(self) -> None:
        """Count a write that came after its lease had moved on."""
        self._count(metrics.LEASES_LOST)

    def took_back(self, states: Sequence[State]) -> None:
        """Count leases that ran out and were ended here, by the states in which that left their deliveries."""
        self._count(metrics.LEASES_TAKEN_BACK, by=len(states))
        self._count(metrics.DEAD_LETTERS, by=states.count(State.DEAD_LETTER))

    def rang(self, by: RungBy, rings: int) -> None:
        """Count rings that were put into the queue."""
        self._count(metrics.RINGS, by.value, by=rings)

    def ring_dropped(self, reason: DropReason, rings: int = 1) -> None:
        """Count rings that claimed nothing, or were thrown out."""
        self._count(metrics.RINGS_DROPPED, reason.value, by=rings)

    def claim_failed(self) -> None:
        """Count a claim that was not answered."""
        self._count(metrics.CLAIMS_FAILED)

    def put_back(self) -> None:
        """Count a row that was found to be older than is known, once it is audited."""
        self._count(metrics.PUT_BACK)

    def audit_refused(self) -> None:
        """Count a row that the audit log did not take from this worker."""
        self._count(metrics.AUDIT_REFUSED)

    def watch(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """Have this metric read whenever the figures are asked for: a number, one for each label, or None."""
        self._readings[metric.name] = read

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the figures as they are now in the form that the `Accept` header asks for, and their content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a value."""
        for metric in METRICS:
            read = self._readings.get(metric.name)
            if metric.name in self._histograms:
                yield self._histograms[metric.name].family(metric)
            elif read is not None:
                yield from _families(metric, read())
            elif metric.name in self._counts:
                yield from _families(metric, self._counts[metric.name])

    def _count(self, metric: Metric, label: str = _UNLABELLED, *, by: int = 1) -> None:
        self._counts[metric.name][label] += by


def watch_secrets(meter: WorkerMeter, statistics: Callable[[], Statistics]) -> None:
    """Have the meter tell what the secrets' cache and its store did."""
    meter.watch(metrics.CACHE_HITS, lambda: statistics().hits)
    meter.watch(metrics.CACHE_MISSES, lambda: statistics().misses)
    meter.watch(metrics.CACHE_EVICTIONS, lambda: statistics().evictions)
    meter.watch(metrics.CACHE_ENTRIES, lambda: statistics().entries)
    meter.watch(metrics.CACHE_BYTES, lambda: statistics().bytes)
    meter.watch(
        metrics.SECRET_FAILURES,
        lambda: {
            FailureOf.DEFINITIVE.value: statistics().definitive_failures,
            FailureOf.TRANSIENT.value: statistics().transient_failures,
        },
    )


class _Histogram:
    """How many values fell under each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, metric: Metric) -> Family:
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, map(float, self._bounds)), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(metric.name, metric.text, buckets=buckets, sum_value=self._sum)


def _families(metric: Metric, reading: Reading) -> Iterator[Family]:
    """Yield the family of a reading, none if there is none; no label has a value outside its closed set."""
    if reading is None:
        return
    family = _family(metric, tuple(metric.labels))
    for values, number in _labelled(metric, reading).items():
        family.add_metric(values, number)
    yield family


def _labelled(
    metric: Metric, reading: float | Mapping[str, float] | Mapping[tuple[str, ...], float]
) -> Mapping[tuple[str, ...], float]:
    if not isinstance(reading, Mapping):
        return {(): reading}
    if not metric.labels:
        return {(): sum(reading.values())}
    found = {(key,) if isinstance(key, str) else key: number for key, number in reading.items()}
    closed = list(metric.labels.values())
    if len(closed) == 1 and closed[0]:
        return {(value,): found.get((value,), 0.0) for value in closed[0]}
    return {
        values: number
        for values, number in found.items()
        if all(value in of or not of for value, of in zip(values, closed, strict=True))
    }


def _family(metric: Metric, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    match metric.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(metric.name, metric.text, labels=labels)
        case Kind.GAUGE:
            return GaugeMetricFamily(metric.name, metric.text, labels=labels)
        case Kind.HISTOGRAM:
            raise Defect("a histogram is counted, never read")
        case _:
            assert_never(metric.kind)
