"""Counts what happens in this worker, reads what is measured elsewhere, and renders both for Prometheus."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, assert_never

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from hookseal.dispatcher.core.model import Outcome, State, Verdict, WaitingFor
from hookseal.dispatcher.core.replay_job import Tally
from hookseal.dispatcher.store.history import Removed
from hookseal.errors import Defect
from hookseal.ground.version import VERSION
from hookseal.postgres.schema.revision import EXPECTED
from hookseal.queue.intake import DropReason
from hookseal.secrets.resolve.reader import Statistics
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.definitions import (
    BREAKERS_OPENED,
    METRICS,
    REMOVED,
    REPLAY_SKIPPED,
    REPLAYED,
    FailureOf,
    RungBy,
    SkippedBecause,
)
from hookseal.worker.metrics.runtime import PROCESSES, Figures, Kind, Metric
from hookseal.worker.recorder import Circuit
from hookseal.worker.saturation import Statement

# A number; one for each value of the label, or of all labels together; or none.
Reading = float | Mapping[str, float] | Mapping[tuple[str, ...], float] | None
_UNLABELLED: Final = ""
_BUILD: Final[Mapping[tuple[str, ...], float]] = {(VERSION, EXPECTED): 1.0}


class WorkerMeter(Figures, Collector):
    """The `Meter` of the dispatcher, and of every loop of a worker.

    Counters begin at zero for every value of their label, so that Prometheus sees the first increase, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._histograms = {
            metric.name: Histogram(
                metric.name, metric.text, tuple(metric.labels), buckets=metric.buckets, registry=None
            )
            for metric in METRICS
            if metric.kind is Kind.HISTOGRAM
        }
        self._counters = {
            metric.name: Counter(metric.name, metric.text, tuple(metric.labels), registry=None)
            for metric in METRICS
            if metric.kind is Kind.COUNTER
        }
        # `labels()` costs more than all the rest of a count: it is called once for each value, here.
        self._increments = {
            metric.name: {value: self._counters[metric.name].labels(value).inc for value in values}
            if (values := next(iter(metric.labels.values()), ()))
            else {_UNLABELLED: self._counters[metric.name].inc}
            for metric in METRICS
            if metric.kind is Kind.COUNTER
        }
        self._attempts = self._increments[definitions.ATTEMPTS.name]
        self._observe_duration = self._histograms[definitions.ATTEMPT_DURATION.name].observe
        first = self._histograms[definitions.FIRST_ATTEMPT.name]
        self._observe_first = {
            was_held: first.labels(held).observe for was_held, held in definitions.HELD_WORDS.items()
        }
        statements = self._histograms[definitions.STATEMENT_DURATION.name]
        self._observe_statement = {each: statements.labels(each.value).observe for each in Statement}
        self._observe_redis = self._histograms[definitions.REDIS_DURATION.name].observe
        self._readings: dict[str, Callable[[], Reading]] = {
            PROCESSES.name: lambda: 1.0,
            definitions.BUILD_INFO.name: lambda: _BUILD,
        }
        self._registry.register(self)

    def attempted(self, outcome: Outcome, seconds: float, *, first_after: float | None, was_held: bool = False) -> None:
        """Count an attempt of this duration; `first_after` is the time from publish to a first attempt.

        `was_held` says whether something held the delivery before that.
        """
        self._attempts[outcome.value]()
        self._observe_duration(seconds)
        if first_after is not None:
            self._observe_first[was_held](first_after)

    def claimed(self, seconds: float, deliveries: int) -> None:
        """Count a claim that took so long, and the deliveries that it claimed."""
        self._statement(Statement.CLAIM, seconds, deliveries)

    def recorded(self, seconds: float, outcomes: int) -> None:
        """Count a try to record so many outcomes together that took so long."""
        self._statement(Statement.RECORD, seconds, outcomes)

    def redis_answered(self, seconds: float) -> None:
        """Count an answer of Redis that took so long."""
        self._observe_redis(seconds)

    def _statement(self, statement: Statement, seconds: float, rows: int) -> None:
        self._observe_statement[statement](seconds)
        self._count(definitions.STATEMENT_ROWS, statement.value, by=rows)

    def decided(self, verdict: Verdict) -> None:
        """Count what a recorded attempt led to: a dead letter, an endpoint that was disabled."""
        if verdict.state is State.DEAD_LETTER:
            self._count(definitions.DEAD_LETTERS)
        if verdict.disable is not None:
            self._count(definitions.ENDPOINTS_DISABLED)

    def disabled(self) -> None:
        """Count an endpoint that was disabled because it failed for too long."""
        self._count(definitions.ENDPOINTS_DISABLED)

    def held(self, waiting_for: WaitingFor) -> None:
        """Count a delivery that was held."""
        self._count(definitions.HELD, waiting_for.value)

    def breaker_opened(self) -> None:
        """Count a breaker that this worker opened."""
        self._count(BREAKERS_OPENED)

    def held_too_long(self, deliveries: int) -> None:
        """Count deliveries that were cancelled because their endpoint was disabled for too long."""
        self._count(definitions.HELD_TOO_LONG, by=deliveries)

    def replayed(self, tally: Tally) -> None:
        """Count what a step of a replay job did."""
        self._count(REPLAYED, by=tally.replayed)
        self._count(REPLAY_SKIPPED, SkippedBecause.ENDPOINT_DISABLED.value, by=tally.disabled)
        self._count(REPLAY_SKIPPED, SkippedBecause.ENDPOINT_DELETED.value, by=tally.deleted)

    def removed(self, rows: Removed) -> None:
        """Count rows that were deleted after the retention."""
        for table, number in asdict(rows).items():
            self._count(REMOVED, table, by=number)

    def given_back(self) -> None:
        """Count a delivery that was given back: its claim was too old or beyond a limit, or another must send it."""
        self._count(definitions.GIVEN_BACK)

    def exhausted(self) -> None:
        """Count a delivery that was released, because this machine had no file descriptor or memory left."""
        self._count(definitions.EXHAUSTED)

    def lease_lost(self) -> None:
        """Count an outcome that was not recorded, because its lease was lost."""
        self._count(definitions.LEASES_LOST)

    def took_back(self, states: Sequence[State]) -> None:
        """Count expired leases that this worker has ended, by the new states of their deliveries."""
        self._count(definitions.LEASES_TAKEN_BACK, by=len(states))
        self._count(definitions.DEAD_LETTERS, by=states.count(State.DEAD_LETTER))

    def rang(self, by: RungBy, rings: int) -> None:
        """Count rings that were put into the queue."""
        self._count(definitions.RINGS, by.value, by=rings)

    def ring_dropped(self, reason: DropReason, rings: int = 1) -> None:
        """Count rings that claimed nothing, or were removed from Redis."""
        self._count(definitions.RINGS_DROPPED, reason.value, by=rings)

    def claim_failed(self) -> None:
        """Count a claim that failed."""
        self._count(definitions.CLAIMS_FAILED)

    def stale_found(self) -> None:
        """Count a stale row, once it is audited."""
        self._count(definitions.STALE_FOUND)

    def audit_refused(self) -> None:
        """Count a row that the audit log did not accept from this worker."""
        self._count(definitions.AUDIT_REFUSED)

    def watch(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """Read this metric by `read` at every scrape: a number, one for each label value, or None for no sample."""
        self._readings[metric.name] = read

    def collect(self) -> Iterator[Family]:
        """Yield every metric of hookseal that has a value."""
        for metric in METRICS:
            read = self._readings.get(metric.name)
            if read is not None:
                yield from _families(metric, read())
            elif metric.kind is Kind.COUNTER:
                yield from _uncreated(self._counters[metric.name])
            elif metric.kind is Kind.HISTOGRAM:
                yield from _uncreated(self._histograms[metric.name])

    def _count(self, metric: Metric, label: str = _UNLABELLED, *, by: int = 1) -> None:
        self._increments[metric.name][label](by)


def _uncreated(collector: Collector) -> Iterator[Family]:
    """Yield the families without when each sample was created: a sum over processes would make no sense of it."""
    for family in collector.collect():
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        yield family


def watch_secrets(meter: WorkerMeter, statistics: Callable[[], Statistics]) -> None:
    """Have the meter report the cache and the store of secrets."""
    meter.watch(definitions.CACHE_HITS, lambda: statistics().hits)
    meter.watch(definitions.CACHE_MISSES, lambda: statistics().misses)
    meter.watch(definitions.CACHE_EVICTIONS, lambda: statistics().evictions)
    meter.watch(definitions.CACHE_ENTRIES, lambda: statistics().entries)
    meter.watch(definitions.CACHE_BYTES, lambda: statistics().bytes)
    meter.watch(
        definitions.SECRET_FAILURES,
        lambda: {
            FailureOf.DEFINITIVE.value: statistics().definitive_failures,
            FailureOf.TRANSIENT.value: statistics().transient_failures,
        },
    )


def watch_records(meter: WorkerMeter, circuit: Circuit) -> None:
    """Have the meter report the outcomes that are not on record yet."""
    meter.watch(definitions.UNRECORDED, lambda: circuit.unrecorded)
    meter.watch(definitions.OLDEST_UNRECORDED, lambda: circuit.oldest_seconds)
    meter.watch(definitions.RECORDS_FAILED, lambda: circuit.failures)


def _families(metric: Metric, reading: Reading) -> Iterator[Family]:
    """Yield the family of a reading, or nothing for None; values outside the closed set of a label are left out."""
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
    numbers = {(key,) if isinstance(key, str) else key: number for key, number in reading.items()}
    closed = list(metric.labels.values())
    if len(closed) == 1 and closed[0]:
        return {(value,): numbers.get((value,), 0.0) for value in closed[0]}
    return {
        values: number
        for values, number in numbers.items()
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
