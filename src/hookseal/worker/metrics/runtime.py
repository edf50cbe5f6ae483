"""The metrics of processes. The parent of several processes loads this module, but no client of a server."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry


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


class Ending(StrEnum):
    """How a process ended that its parent then restarted."""

    EXITED = "exited"
    KILLED = "killed"
    STUCK = "stuck"


PROCESSES: Final = Metric(
    name="hookseal_processes",
    kind=Kind.GAUGE,
    text="Processes that these figures cover: 1, or with `--processes` those that answered during this scrape.",
)
PROCESS_RESTARTS: Final = Metric(
    name="hookseal_process_restarts_total",
    kind=Kind.COUNTER,
    text="Processes of this worker that ended unexpectedly and were restarted by their parent: `exited` by themselves, "
    "`killed` by a signal, or `stuck`: they did not answer their parent, or took no rings, and it killed them.",
    labels={"ending": tuple(Ending)},
)


def _gauge(name: str, text: str, aggregation: Aggregation = Aggregation.SUM) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, text=text, aggregation=aggregation)


def _of_collector(name: str, text: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, text=text, labels={"generation": ("0", "1", "2")})


# What prometheus_client itself reports, under the names that all its users know. `process_*` exist on Linux only.
RUNTIME: Final = (
    Metric(name="process_cpu_seconds_total", kind=Kind.COUNTER, text="CPU time spent, user and system."),
    _gauge("process_resident_memory_bytes", "Resident memory."),
    _gauge("process_virtual_memory_bytes", "Virtual memory."),
    _gauge("process_open_fds", "Open file descriptors of the process that has most.", Aggregation.MAX),
    _gauge("process_max_fds", "How many file descriptors a process may open.", Aggregation.MIN),
    _gauge("process_start_time_seconds", "When the process started, in Unix time.", Aggregation.MIN),
    Metric(
        name="python_info",
        kind=Kind.GAUGE,
        text="Always 1; the labels are the implementation and version of Python.",
        labels=dict.fromkeys(("version", "implementation", "major", "minor", "patchlevel"), ()),
        aggregation=Aggregation.MAX,
    ),
    _of_collector("python_gc_objects_collected_total", "Objects that the garbage collector freed."),
    _of_collector("python_gc_objects_uncollectable_total", "Objects that the garbage collector could not free."),
    _of_collector("python_gc_collections_total", "Runs of the garbage collector."),
)


class Figures:
    """The figures of this process, in a registry of its own: those of `RUNTIME`, and what a subclass registers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def families(self) -> Iterable[Family]:
        """Return every metric that has a value."""
        return self._registry.collect()

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the figures in the format that the `Accept` header asks for, and its content type."""
        return scraped(self._registry, accept)


def scraped(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the figures of the registry in the format that the `Accept` header asks for, and its content type."""
    try:
        encoder, content_type = choose_encoder(accept)
    except TypeError:  # it cannot compare a version that is no number
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type
