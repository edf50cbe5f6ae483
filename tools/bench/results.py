"""The results of a run: rounds, ratios, the bounds of docs/requirements.md, and what is quoted. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final, Generic, TypeVar

import msgspec

from tools.bench.plan import (
    AT_LEAST,
    BARE,
    BY_16_TASKS,
    BY_API,
    HANGING,
    HOOKSEAL,
    LISTEN,
    ONE_PROCESS,
    RING,
    SQL,
    STOCK,
    TWO,
)
from tools.harness import API, POSTGRESQL, WORKER
from tools.records import Machine, number

RESULTS: Final = "docs/proof/performance.json"
COMMAND: Final = "make bench"
TOOLS: Final = ("tools/bench", "tools/harness.py", "tools/records.py")
_MICROSECONDS: Final = 1e6
P99_MS: Final = " p99_ms"  # after the name of a call of the HTTP API, or of a page
PAGE: Final = "page: "  # before the name of a page
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: that many deliveries in that many seconds, with the CPU seconds of each part.

    `figures` has other measurements, by a name that ends in the unit. A round without deliveries (idle, memory)
    has only those.
    """

    deliveries: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Deliveries in a second; 0 if there were none."""
        return self.deliveries / self.seconds if self.seconds else 0.0

    def microseconds(self, part: str) -> float:
        """Microseconds of CPU of that part for one delivery; 0 if it took no part."""
        return self.cpu.get(part, 0.0) * _MICROSECONDS / self.deliveries if self.deliveries else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All rounds of one contender in one scenario. Its figures are medians."""

    scenario: str
    contender: str
    rounds: tuple[Round, ...]

    @property
    def per_second(self) -> float:
        """The median rate."""
        return median(each.per_second for each in self.rounds)

    def microseconds(self, part: str) -> float:
        """The median of the CPU of that part for one delivery."""
        return median(each.microseconds(part) for each in self.rounds)

    def figure(self, name: str) -> float | None:
        """The median of that figure over the rounds that have it; None if none has."""
        found = [each.figures[name] for each in self.rounds if name in each.figures]
        return median(found) if found else None

    def total(self, name: str) -> float:
        """The sum of that figure over all rounds."""
        return sum(each.figures.get(name, 0.0) for each in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A measurement that was left out, and why; `is_failure` if it was tried and failed."""

    scenario: str
    contender: str
    reason: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The figures of a whole run that are quoted: of each contender its rate, and its ratios to the others."""

    commit: str
    cpu: str
    python: str
    figures: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: its commit (`is_dirty`: with uncommitted changes), its time (UTC), its machine and all its results.

    `settings` are those of a worker that differ from the defaults in every case; `bodies` says what is sent, `titles`
    what each case is. `runs` are the headlines of the last whole runs on clean trees under the same `conditions`, which
    are those of the base case, the newest last. `digest` is that of the source and of the `tools` that measured it
    (`records.digest_of`); an older run names no tools.
    """

    commit: str
    is_dirty: bool
    date: str
    command: str
    is_quick: bool
    seconds: float
    machine: Machine
    settings: dict[str, str]
    bodies: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    titles: dict[str, str]
    conditions: str
    runs: tuple[Headline, ...] = ()
    digest: str | None = None
    tools: tuple[str, ...] = ()

    def row(self, scenario: str, contender: str) -> Row | None:
        """Return the rounds of that contender in that scenario, if it has any."""
        return next((row for row in self.rows_of(scenario) if row.contender == contender), None)

    def rows_of(self, scenario: str) -> tuple[Row, ...]:
        """Return the rows of a scenario, in the order of measurement."""
        return tuple(row for row in self.rows if row.scenario == scenario)

    def figure(self, scenario: str, name: str, contender: str = HOOKSEAL) -> float | None:
        """Return the median of a figure of that contender, by default hookseal as installed, if it was measured."""
        row = self.row(scenario, contender)
        return row.figure(name) if row is not None else None


def read(root: Path) -> Run:
    """Return the stored run. Raises `msgspec.DecodeError` if it has another form."""
    return msgspec.json.decode((root / RESULTS).read_bytes(), type=Run)


def ratio(
    ours: Row | None,
    theirs: Row | None,
    value: Callable[[Round], float],
    their_value: Callable[[Round], float] | None = None,
) -> float | None:
    """Return the median over the rounds of hookseal's value divided by the other's, for which a function may differ.

    Rounds alternate, so the two of one number ran one after the other: a slower minute of the machine hardly changes
    their ratio. None if one is missing.
    """
    if ours is None or theirs is None:
        return None
    of_theirs = their_value or value
    pairs = zip(ours.rounds, theirs.rounds, strict=False)
    found = [value(mine) / of_theirs(other) for mine, other in pairs if of_theirs(other)]
    return median(found) if found else None


def ratio_of_rates(ours: Row | None, theirs: Row | None) -> float | None:
    """Return hookseal's rate, divided by the other's."""
    return ratio(ours, theirs, lambda each: each.per_second)


def ratio_of_cpu(ours: Row | None, theirs: Row | None, parts: Sequence[str] = (WORKER,)) -> float | None:
    """Return hookseal's CPU a delivery in these parts, divided by the other's."""
    return ratio(ours, theirs, lambda each: sum(each.microseconds(part) for part in parts))


# The targets of docs/requirements.md, and whether a run meets them.


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


def two_to_one(run: Run) -> float | None:
    """Return the CPU of a delivery with two processes, divided by that with one."""
    return ratio_of_cpu(run.row("processes", TWO), run.row("processes", ONE_PROCESS))


def postgresql_to_bare(run: Run) -> float | None:
    """Return the CPU of PostgreSQL for a delivery, divided by that of a request by bare aiohttp."""
    ours, bare = run.row("base", HOOKSEAL), run.row("base", BARE)
    return ratio(ours, bare, lambda each: each.microseconds(POSTGRESQL), lambda each: each.microseconds(WORKER))


def to_least_backlog(scenario: str) -> Callable[[Run], float | None]:
    """Return what gives the CPU of a delivery there, worker and PostgreSQL, divided by that at the least backlog."""
    both = (WORKER, POSTGRESQL)
    return lambda run: ratio_of_cpu(run.row(scenario, HOOKSEAL), run.row(AT_LEAST, HOOKSEAL), both)


def snapshot_to_none(run: Run) -> float | None:
    """Return the CPU of PostgreSQL for a delivery beside the snapshot when it is oldest, divided by that without it."""
    pair = [run.row(scenario, HOOKSEAL) for scenario in ("snapshot", AT_LEAST)]
    last = [replace(row, rounds=row.rounds[-1:]) for row in pair if row is not None]
    return ratio_of_cpu(last[0], last[1], (POSTGRESQL,)) if len(last) == len(pair) else None


def hung_to_none(run: Run) -> float | None:
    """Return the p99 latency while requests hang, divided by that without."""
    hung, none = run.row("latency-20", HANGING), run.row("latency-20", RING)
    return ratio(hung, none, lambda each: each.figures["p99_ms"])


def api_to_publisher(run: Run) -> float | None:
    """Return the rate of messages by the HTTP API, divided by that of `Publisher.publish` in 16 tasks."""
    return ratio_of_rates(run.row("api", BY_API), run.row("api", BY_16_TASKS))


def api_microseconds(run: Run) -> float | None:
    """Return the CPU of the HTTP API for a message."""
    return None if (row := run.row("api", BY_API)) is None else row.microseconds(API)


def slowest_list(run: Run) -> float | None:
    """Return the p99 of the list of the HTTP API that has the highest one."""
    return max((value for name, value in _reads(run).items() if "list" in name), default=None)


def slowest_in_vain(run: Run) -> float | None:
    """Return the highest p99 of the lists whose filters match nothing, and of the count."""
    return max((ms for name, ms in _reads(run).items() if "in vain" in name or "stats" in name), default=None)


def slowest_page(run: Run) -> float | None:
    """Return the p99 of the page that has the highest one."""
    return max((value for name, value in _reads(run).items() if name.startswith(PAGE)), default=None)


def _reads(run: Run) -> dict[str, float]:
    row = run.row("api-reads", HOOKSEAL)
    return {} if row is None else {name: ms for name, ms in row.rounds[0].figures.items() if name.endswith(P99_MS)}


def _rate_to(scenario: str, other: str) -> Callable[[Run], float | None]:
    return lambda run: ratio_of_rates(run.row(scenario, HOOKSEAL), run.row(scenario, other))


def _cpu_to_bare(scenario: str) -> Callable[[Run], float | None]:
    return lambda run: ratio_of_cpu(run.row(scenario, HOOKSEAL), run.row(scenario, BARE))


def _rate(scenario: str, contender: str = HOOKSEAL) -> Callable[[Run], float | None]:
    return lambda run: None if (row := run.row(scenario, contender)) is None else row.per_second


def _figure(scenario: str, name: str, contender: str = HOOKSEAL) -> Callable[[Run], float | None]:
    return lambda run: run.figure(scenario, name, contender)


def _bar(id_: str, what: str, gate: float, unit: str, value: Callable[[Run], float | None]) -> Bar[Run]:
    return Bar(id=id_, what=what, gate=gate, unit=unit, value=value, is_least=what.startswith(("rate", "slots")))


BARS: Final = (
    _bar("PERF-01", "rate to stock arq", 4, "x", _rate_to("base", STOCK)),
    _bar("PERF-01", "rate to bare aiohttp", 0.5, "x", _rate_to("base", BARE)),
    _bar("PERF-01", "CPU of the worker to a bare request", 1.6, "x", _cpu_to_bare("base")),
    _bar("PERF-02", "20/s by ring, p50", 5, "ms", _figure("latency-20", "p50_ms", RING)),
    _bar("PERF-02", "20/s by ring, p99", 10, "ms", _figure("latency-20", "p99_ms", RING)),
    _bar("PERF-02", "20/s by SQL, p99", 150, "ms", _figure("latency-20", "p99_ms", SQL)),
    _bar("PERF-02", "with LISTEN, p99", 20, "ms", _figure("latency-20", "p99_ms", LISTEN)),
    _bar("PERF-02", "half of saturation, p50", 15, "ms", _figure("latency-half", "p50_ms", RING)),
    _bar("PERF-02", "half of saturation, p99", 60, "ms", _figure("latency-half", "p99_ms", RING)),
    _bar("PERF-02", "idle, worker", 0.6, "% CPU", _figure("idle", "worker_cpu_percent")),
    _bar("PERF-02", "idle, Redis", 5, "/s", _figure("idle", "redis_commands_per_second")),
    _bar("PERF-02", "idle, PostgreSQL", 8, "/s", _figure("idle", "statements_per_second")),
    _bar("PERF-03", "400 hung, worker", 2, "% CPU", _figure("hung", "worker_cpu_percent")),
    _bar("PERF-03", "p99 at 20/s, 400 hung to none", 2, "x", hung_to_none),
    _bar("PERF-04", "CPU, two processes to one", 1.15, "x", two_to_one),
    _bar("PERF-05", "CPU, backlog 1,000,000 to 1,000", 1.2, "x", to_least_backlog("backlog-1000000")),
    _bar("PERF-05", "CPU, 2,000,000 retained to none", 1.1, "x", to_least_backlog("retained")),
    _bar("PERF-07", "memory at rest", 100, "MB", _figure("memory-1kb", "rest_mb")),
    _bar("PERF-07", "500 x 1 KB in flight", 150, "MB", _figure("memory-1kb", "most_mb")),
    _bar("PERF-07", "500 x 256 KB in flight", 200, "MB", _figure("memory-256kb", "most_mb")),
    _bar("PERF-08", "statements, saturated", 0.1, "", _figure("statements", "statements")),
    _bar("PERF-08", "statements, at 20/s", 2.5, "", _figure("statements-20", "statements")),
    _bar("PERF-08", "PostgreSQL to a bare request", 1.0, "x", postgresql_to_bare),
    _bar("PERF-09", "rate at 1,000 places, kept, to bare aiohttp", 0.45, "x", _rate_to("places-1000-kept", BARE)),
    _bar("PERF-09", "CPU at 1,000 places, cold, to bare aiohttp", 1.0, "x", _cpu_to_bare("places-1000-cold")),
    _bar("PERF-09", "1,000 places, cold, 200/s, p50", 15, "ms", _figure("latency-cold", "p50_ms", RING)),
    _bar("PERF-09", "1,000 places, cold, 200/s, p99", 50, "ms", _figure("latency-cold", "p99_ms", RING)),
    _bar("PERF-09", "slots used at 50 ms", 85, "%", _figure("slow-50", "slots_percent")),
    _bar("PERF-09", "slots used at 300 ms", 85, "%", _figure("slow-300", "slots_percent")),
    _bar("PERF-09", "rate at 12,000 endpoints that take 300 ms", 1_000, "/s", _rate("slow-12000")),
    _bar("PERF-10", "CPU of PostgreSQL, an old snapshot to none", 1.5, "x", snapshot_to_none),
    _bar("PERF-11", "rate of publishing, one by one", 1_400, "/s", _rate("publish", "Publisher, one at a time")),
    _bar("PERF-11", "rate of publishing, 50 tasks", 5_000, "/s", _rate("publish", "Publisher, 50 at once")),
    _bar("PERF-11", "rate of publishing, 100 in a call", 10_000, "/s", _rate("publish", "Publisher, 100 in one call")),
    _bar("PERF-12", "journal to deliver", 1_050, "bytes", _figure("base", "wal_bytes")),
    _bar("PERF-12", "journal to publish", 2_200, "bytes", _figure("base", "publish_wal_bytes")),
    _bar("PERF-12", "kept beside the body", 1_000, "bytes", _figure("base", "kept_bytes")),
    _bar("PERF-12", "log of a delivery", 300, "bytes", _figure("base", "log_bytes")),
    _bar("API-10", "rate of messages to Publisher.publish in 16 tasks", 0.8, "x", api_to_publisher),
    _bar("API-10", "CPU of the API for a message", 450, "us", api_microseconds),
    _bar("API-10", "messages at 50/s, p99", 15, "ms", _figure("api-50", "p99_ms")),
    _bar("API-10", "lists of large tables, slowest p99", 50, "ms", slowest_list),
    _bar("API-10", "lists in vain and stats, slowest p99", 20, "ms", slowest_in_vain),
    _bar("API-10", "endpoint.create, p99", 50, "ms", _figure("api-reads", f"endpoint.create{P99_MS}")),
    _bar("API-10", "memory of the API", 120, "MB", _figure("api", "resident_mb", BY_API)),
    _bar("API-10", "400 slow clients, API", 2, "% CPU", _figure("api-slow", "api_cpu_percent")),
    _bar("UI-07", "pages of large tables, slowest p99", 80, "ms", slowest_page),
    _bar("UI-07", "memory after the pages", 120, "MB", _figure("api-reads", "resident_mb")),
)


# The figures that are quoted from whole runs, and their ranges over the last of them.

KEPT: Final = 3  # whole runs
RATE: Final = "per second"
UNITS: Final = {RATE: "", "to stock arq": "x", "to bare aiohttp": "x", "worker CPU to bare": "x"}
# The rows of the first table, by what they are called there: case and contender.
ROWS: Final = {
    "hookseal, as installed": ("base", HOOKSEAL),
    "hookseal, 8 KB": ("base-8kb", HOOKSEAL),
    "hookseal, an older PostgreSQL": ("oldest", HOOKSEAL),
    "hookseal, an older PostgreSQL, 8 KB": ("oldest-8kb", HOOKSEAL),
    "hookseal, as installed, 1,000 endpoints": ("1000endpoints", HOOKSEAL),
}


def headline(run: Run) -> Headline:
    """Return the headline of a run, with the figures that it measured."""
    figures = {}
    for name, (case, contender) in ROWS.items():
        if (row := run.row(case, contender)) is not None:
            bare, stock = run.row(case, BARE), run.row(case, STOCK)
            values = (row.per_second, ratio_of_rates(row, stock), ratio_of_rates(row, bare), ratio_of_cpu(row, bare))
            figures[name] = {of: value for of, value in zip(UNITS, values, strict=True) if value is not None}
    return Headline(commit=run.commit, cpu=run.machine.cpu, python=run.machine.python, figures=figures)


def kept(run: Run, earlier: Run | None) -> Run:
    """Return a whole run with the headlines of the last whole runs under its conditions, of which it is the newest."""
    before = earlier.runs if earlier is not None and earlier.conditions == run.conditions else ()
    return replace(run, runs=(*before, headline(run))[-KEPT:])


def spread(run: Run, row: str, figure: str) -> str:
    """Return the lowest and the highest of that figure over the runs that are kept, or that of this run, as a text."""
    found = [each.figures.get(row, {}).get(figure) for each in run.runs or (headline(run),)]
    values = [each for each in found if each is not None]
    ends = dict.fromkeys(number(end, UNITS[figure]) for end in ((min(values), max(values)) if values else (None,)))
    return " to ".join(ends)
