"""The targets of docs/requirements.md, and whether a run meets them. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tools.bench.plan import BARE, ONE_PROCESS, STOCK, WIDE
from tools.bench.results import POSTGRESQL, WORKER, Run, ratio, ratio_of_cpu, ratio_of_rates

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar(Generic[T]):
    """A target for a figure of a run `T`: a minimum if `is_least`, else a maximum."""

    id: str
    what: str
    gate: float
    unit: str
    value: Callable[[T], float | None]
    is_least: bool = False

    def is_met(self, value: float) -> bool:
        """Return whether the value meets the target."""
        return value >= self.gate if self.is_least else value <= self.gate


def values_of(bars: Iterable[Bar[T]], run: T) -> dict[str, float]:
    """Return the figures that a run has, by the names of their bars."""
    return {bar.what: value for bar in bars if (value := bar.value(run)) is not None}


def _figure(scenario: str, name: str, contender: str | None = None) -> Callable[[Run], float | None]:
    return lambda run: run.figure(scenario, name, contender)


def _rate_to(other: str) -> Callable[[Run], float | None]:
    return lambda run: ratio_of_rates(run.row("base", WIDE), run.row("base", other))


def two_to_one(run: Run) -> float | None:
    """Return the CPU of a delivery with two processes, divided by that with one."""
    return ratio_of_cpu(run.row("two", WIDE), run.row("two", ONE_PROCESS))


def postgresql_to_bare(run: Run) -> float | None:
    """Return the CPU of PostgreSQL for a delivery, divided by that of a request by bare aiohttp."""
    return ratio(
        run.row("base", WIDE),
        run.row("base", BARE),
        lambda ours: ours.microseconds(POSTGRESQL),
        lambda bare: bare.microseconds(WORKER),
    )


def backlog_ratio(run: Run) -> float | None:
    """Return the CPU of a delivery, worker and PostgreSQL, at a backlog of a million, divided by that at a thousand."""
    return ratio_of_cpu(run.ours("backlog-1000000"), run.ours("backlog-1000"), (WORKER, POSTGRESQL))


def hung_to_none(run: Run) -> float | None:
    """Return the p99 latency while requests hang, divided by that without."""
    hung, none = run.row("latency-20", HANGING), run.row("latency-20", RING)
    return ratio(hung, none, lambda each: each.figures["p99_ms"])


RING, SQL, LISTEN, HANGING = "by ring", "by SQL, LISTEN off", "by SQL, LISTEN on", "by ring, 400 hung"
# Those at 1,000 are held to an endpoint with `--concurrency 1000`, not to one as installed.
BARS: Final[tuple[Bar[Run], ...]] = (
    Bar(id="PERF-01", what="rate at 1,000, to stock arq", gate=3.5, unit="x", value=_rate_to(STOCK), is_least=True),
    Bar(id="PERF-01", what="rate at 1,000, to bare aiohttp", gate=0.45, unit="x", value=_rate_to(BARE), is_least=True),
    Bar(id="PERF-02", what="20/s by ring, p50", gate=5, unit="ms", value=_figure("latency-20", "p50_ms", RING)),
    Bar(id="PERF-02", what="20/s by ring, p99", gate=15, unit="ms", value=_figure("latency-20", "p99_ms", RING)),
    Bar(id="PERF-02", what="20/s by SQL, p99", gate=150, unit="ms", value=_figure("latency-20", "p99_ms", SQL)),
    Bar(id="PERF-02", what="with LISTEN, p99", gate=20, unit="ms", value=_figure("latency-20", "p99_ms", LISTEN)),
    Bar(id="PERF-02", what="idle, worker", gate=1, unit="% CPU", value=_figure("idle", "worker_cpu_percent")),
    Bar(id="PERF-02", what="idle, Redis", gate=10, unit="/s", value=_figure("idle", "redis_commands_per_second")),
    Bar(id="PERF-02", what="idle, PostgreSQL", gate=10, unit="/s", value=_figure("idle", "statements_per_second")),
    Bar(id="PERF-03", what="400 hung, worker", gate=2, unit="% CPU", value=_figure("hung", "worker_cpu_percent")),
    Bar(id="PERF-03", what="p99 at 20/s, 400 hung to none", gate=2, unit="x", value=hung_to_none),
    Bar(id="PERF-04", what="CPU at 1,000, two processes to one", gate=1.15, unit="x", value=two_to_one),
    Bar(id="PERF-05", what="CPU, backlog 1,000,000 to 1,000", gate=1.2, unit="x", value=backlog_ratio),
    Bar(id="PERF-07", what="memory at rest", gate=100, unit="MB", value=_figure("memory-1kb", "rest_mb")),
    Bar(id="PERF-07", what="500 x 1 KB in flight", gate=150, unit="MB", value=_figure("memory-1kb", "most_mb")),
    Bar(id="PERF-07", what="500 x 256 KB in flight", gate=200, unit="MB", value=_figure("memory-256kb", "most_mb")),
    Bar(
        id="PERF-08",
        what="statements at 1,000, saturated",
        gate=0.1,
        unit="",
        value=_figure("statements", "statements", WIDE),
    ),
    Bar(id="PERF-08", what="statements, at 20/s", gate=2.5, unit="", value=_figure("statements-20", "statements")),
    Bar(id="PERF-08", what="PostgreSQL at 1,000, to a bare request", gate=1.0, unit="x", value=postgresql_to_bare),
)
