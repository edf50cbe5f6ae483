"""The records of benchmarks and long suites: one for each id in `docs/EVIDENCE/`, written by a run, never by hand.

The stored run of `make bench` is the record of each id that has bars; the stored soak adds its figures. A new record
replaces the old one: git has the earlier ones. The bounds are in this code and not in the records. An id of the group
PERF is proven by its record alone. For another id the record proves the figures or counts in it, and tests prove the
rest.
"""

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec

from tools import records, soak
from tools.bench import results
from tools.bench.results import BARS, Bar, Run, values_of
from tools.records import EVIDENCE
from tools.soak import Soak

GROUP: Final = "PERF"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)  # what reading a file of another form raises
_LARGE: Final = 10_000
_FAULTS: Final = "make test-faults ARGS=--record"
_SMOKE: Final = "make smoke ARGS=--record"
_NOTHING_LOST: Final = {"lost": 0, "unexplained": 0, "wrong": 0}
_NOTHING_TWICE: Final = {**_NOTHING_LOST, "duplicates": 0, "unknown": 0}

Counts = Mapping[str, Mapping[str, int]]


class Suite(NamedTuple):
    """The scenarios of a long suite, all of which must run, and the bounds for their total counts."""

    scenarios: tuple[str, ...]
    at_least: Mapping[str, int]
    at_most: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How the record of an id is made, and its bounds: microseconds for each figure, counts for a suite, or bars.

    `measures` are the files whose change may change the result, and `tools` the others that measured it.
    """

    command: str
    measures: tuple[str, ...] = (records.SOURCE,)
    tools: tuple[str, ...] = ()
    at_most_us: Mapping[str, float] = field(default_factory=dict)
    suite: Suite | None = None
    bars: tuple[Bar[Run], ...] = ()
    soak_bars: tuple[Bar[Soak], ...] = ()


def _suite(*scenarios: str, deliveries: int, at_most: Mapping[str, int]) -> Benchmark:
    bounds = {"deliveries": deliveries, "faults": len(scenarios)}
    return Benchmark(command=_FAULTS, tools=("tests/faults",), suite=Suite(scenarios, bounds, at_most))


def _bench(*names: str) -> dict[str, Benchmark]:
    bars = {name: tuple(bar for bar in BARS if bar.id == name) for name in names}
    return {name: Benchmark(command=results.COMMAND, tools=results.TOOLS, bars=of) for name, of in bars.items()}


# Together at least 100,000 deliveries. The same scenarios prove DUR-02 and DUR-07.
BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "DUR-01": _suite("flushed", deliveries=20_000, at_most={**_NOTHING_TWICE, "late": 0}),
    "DUR-02": _suite("paused", "stalled", "paused-at-each-step", deliveries=15_000, at_most=_NOTHING_LOST),
    "DUR-03": _suite("killed", "killed-at-each-step", deliveries=40_000, at_most=_NOTHING_LOST),
    "DUR-04": _suite(
        *("without-redis", "without-postgresql", "failed-over", "failed-over-behind"),
        *("attempts-locked", "deliveries-locked", "disk-full"),
        deliveries=24_000,
        at_most={**_NOTHING_TWICE, "disordered": 0},
    ),
    "DUR-05": _suite("restarted", "stormed", deliveries=30_000, at_most=_NOTHING_TWICE),
    "DUR-07": _suite("paused", "stalled", "paused-at-each-step", "clock-set", deliveries=21_000, at_most=_NOTHING_LOST),
    "SEC-05": Benchmark(
        command="make bench-keys ARGS=--record",
        measures=("src/hookseal/secrets", "src/hookseal/operations/key", "tools/bench_keys.py"),
        at_most_us={"rewrap": 100.0},  # 10,000 records in a second
    ),
    "OPS-14": Benchmark(
        command="make image ARGS=--record",
        tools=("tools/image", "tools/smoke"),
        suite=Suite(
            ("release", "image", "compose"),
            {"delivered": 4, "wheels": 3, "sdists": 3, "signatures": 1, "refused": 8},
            {"findings": 0},
        ),
    ),
    "UX-01": Benchmark(
        command=_SMOKE,
        measures=("pyproject.toml",),
        tools=("tools/smoke",),
        suite=Suite(
            ("api", "aws", "cli", "embedded", "gcp", "migrate", "otel", "together", "worker"),
            {"installations": 24, "resolutions": 8},
            {"moved": 0},
        ),
    ),
    "UX-04": Benchmark(
        command=_SMOKE,
        measures=(records.SOURCE, "docs/tutorial.md", "pyproject.toml"),
        tools=("tools/smoke",),
        suite=Suite(("tutorial",), {"verified": 1}, {"seconds": 240}),
    ),
    "OPS-15": Benchmark(
        command="make bench-status ARGS=--record",
        measures=(records.SOURCE, "tools/bench_status.py", "tests/many_rows.py"),
        suite=Suite(("stored",), {"pending": 1_000_000, "endpoints": 100_000}, {}),
        at_most_us=dict.fromkeys(("status", "tenants", "held", "failing"), 1_000_000.0),  # a second
    ),
    "UI-06": Benchmark(
        command="make pages ARGS=--record",
        measures=("src/hookseal/pages", "tools/browser.py"),
        # Of each page one look in light and one in dark.
        suite=Suite(("customer", "operator", "mounted", "framed"), {"pages": 80}, {"findings": 0, "violations": 0}),
    ),
    "PERF-06": Benchmark(
        command="make bench-secrets ARGS=--record",
        measures=("src/hookseal/secrets", "tools/bench_secrets.py"),
        at_most_us={"open": 25.0, "resolve-and-sign": 30.0, "fetch-and-open": 500.0},
    ),
    **_bench(*(f"PERF-{number:02}" for number in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12)), "API-10", "UI-07"),
    "PERF-07": Benchmark(
        command="make bench soak",
        tools=results.TOOLS,
        bars=tuple(bar for bar in BARS if bar.id == "PERF-07"),
        soak_bars=soak.BARS,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Microseconds: the median of the p50 of alternating rounds, and that of a baseline in the same run."""

    us: float
    baseline_us: float
    ratio: float
    rounds_us: tuple[float, ...]
    baseline_rounds_us: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of the run, without host names and paths."""

    cpu: str
    cpus: int
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: its commit (`is_dirty`: with uncommitted changes), its machine, its results and its verdict.

    A benchmark has `figures`; a suite has `counts`, by scenario; `make bench` has `measured`, by the name of a bar. An
    id that is proven by a soak, too, has its commit, and its figures among `measured`. `digest` is that of the files
    that it measured and of its `tools` (`records.digest_of`), which its commit must have; an older record names no
    tools.
    """

    id: str
    commit: str
    is_dirty: bool
    machine: Machine
    figures: dict[str, Figure]
    is_met: bool
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    soak_commit: str | None = None
    digest: str | None = None
    soak_digest: str | None = None
    tools: tuple[str, ...] = ()
    soak_tools: tuple[str, ...] = ()

    @property
    def commits(self) -> tuple[str, ...]:
        """Every commit that was measured."""
        return (self.commit,) if self.soak_commit is None else (self.commit, self.soak_commit)


Evidence = Mapping[str, Record | None]


def place(name: str) -> str:
    """Return the path of the record of that id, relative to the root."""
    return results.RESULTS if name in BENCHMARKS and BENCHMARKS[name].bars else f"{EVIDENCE}/{name}.json"


def places(name: str) -> tuple[str, ...]:
    """Return the paths of all that the record of that id is read from."""
    return (place(name), soak.RECORD) if name in BENCHMARKS and BENCHMARKS[name].soak_bars else (place(name),)


def figure(rounds_us: Sequence[float], baseline_rounds_us: Sequence[float]) -> Figure:
    """Return the figure of these rounds."""
    ours, baseline = [round(us, 3) for us in rounds_us], [round(us, 3) for us in baseline_rounds_us]
    return Figure(
        us=round(median(ours), 3),
        baseline_us=round(median(baseline), 3),
        ratio=round(median(ours) / median(baseline), 2),
        rounds_us=tuple(ours),
        baseline_rounds_us=tuple(baseline),
    )


def record_of(root: Path, name: str, figures: Mapping[str, Figure], counts: Counts | None = None) -> Record:
    """Return the record of a run of this tree for that id. Raises `CalledProcessError` outside a git work tree."""
    return Record(
        id=name,
        commit=records.commit_of(root),
        is_dirty=records.is_dirty(root),
        machine=Machine(cpu=records.cpu_model(), cpus=os.cpu_count() or 0, python=platform.python_version()),
        figures=dict(figures),
        is_met=not misses(name, figures, counts),
        counts={scenario: dict(counted) for scenario, counted in (counts or {}).items()},
        digest=records.digest_of(root, "HEAD", *BENCHMARKS[name].measures, *BENCHMARKS[name].tools),
        tools=BENCHMARKS[name].tools,
    )


def write(root: Path, record: Record) -> None:
    """Write the record as the last one of its id."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=2).decode() + "\n"
    records.write(root, {place(record.id): text})


def read(root: Path) -> Evidence:
    """Return every record by its id, which is the name of its file; None for a file of another form."""
    found: dict[str, Record | None] = {}
    for file in sorted((root / EVIDENCE).glob("*.json")):
        try:
            found[file.stem] = msgspec.json.decode(file.read_bytes(), type=Record)
        except UNREADABLE:
            found[file.stem] = None
    return found | _of_bench(root) if (root / results.RESULTS).is_file() else found


def _of_bench(root: Path) -> dict[str, Record | None]:
    """Return the records that the stored run and the stored soak are."""
    with_bars = [name for name, held_to in BENCHMARKS.items() if held_to.bars]
    try:
        run = results.read(root)
    except UNREADABLE:
        return dict.fromkeys(with_bars)
    soaked, is_readable = None, True
    try:
        soaked = soak.read(root) if (root / soak.RECORD).is_file() else None
    except UNREADABLE:
        is_readable = False
    found = {name: _of_run(name, run, soaked if BENCHMARKS[name].soak_bars else None) for name in with_bars}
    return {name: None if BENCHMARKS[name].soak_bars and not is_readable else of for name, of in found.items()}


def _of_run(name: str, run: Run, soaked: Soak | None) -> Record:
    # A quick run, and one of some parts only, measures none of its bars.
    values = values_of(BENCHMARKS[name].bars, run) if run.command == results.COMMAND else {}
    if soaked is not None:
        values |= values_of(BENCHMARKS[name].soak_bars, soaked)
    return Record(
        id=name,
        commit=run.commit,
        is_dirty=run.is_dirty or (soaked is not None and soaked.is_dirty),
        machine=Machine(cpu=run.machine.cpu, cpus=run.machine.cpus, python=run.machine.python),
        figures={},
        is_met=not misses(name, {}, measured=values),
        measured=values,
        soak_commit=None if soaked is None else soaked.commit,
        digest=run.digest,
        soak_digest=None if soaked is None else soaked.digest,
        tools=run.tools,
        soak_tools=() if soaked is None else soaked.tools,
    )


def contradictions(record: Record) -> Iterator[str]:
    """Yield what no run can have written: the record was edited, or the bounds have changed since."""
    for part, found in record.figures.items():
        values = (*found.rounds_us, *found.baseline_rounds_us)
        if not found.rounds_us or len(found.rounds_us) != len(found.baseline_rounds_us) or min(values) <= 0:
            yield f"its figure {part} does not have rounds of both sides"
        elif found != figure(found.rounds_us, found.baseline_rounds_us):
            yield f"its figure {part} does not follow from its rounds"
    for scenario, counted in record.counts.items():
        if min(counted.values(), default=0) < 0 or counted.get("requests", 0) < counted.get("deliveries", 0):
            yield f"its scenario {scenario} has impossible counts"
    if record.is_met is bool(misses(record.id, record.figures, record.counts, record.measured)):
        yield "its verdict does not follow from its figures and the bounds"


def misses(
    name: str,
    figures: Mapping[str, Figure],
    counts: Counts | None = None,
    measured: Mapping[str, float] | None = None,
) -> list[str]:
    """Return how these figures, counts and measured values miss the bounds of the id; nothing if all are met."""
    held_to, missed = BENCHMARKS[name], list[str]()
    for part, at_most_us in held_to.at_most_us.items():
        found = figures.get(part)
        if found is None:
            missed.append(f"{part} was not measured")
        elif found.us > at_most_us:
            missed.append(f"{part} took {_shown(found.us)} us, at most {_shown(at_most_us)} us are allowed")
    bars: tuple[Bar[Run] | Bar[Soak], ...] = (*held_to.bars, *held_to.soak_bars)
    for bar in bars:
        value, bound = (measured or {}).get(bar.what), f"at {'least' if bar.is_least else 'most'} {_shown(bar.gate)}"
        if value is None:
            missed.append(f"{bar.what} was not measured")
        elif not bar.is_met(value):
            is_what = "required" if bar.is_least else "allowed"
            missed.append(f"{bar.what}: {_shown(value)} {bar.unit}".strip() + f", {bound} is {is_what}")
    return missed if held_to.suite is None else [*missed, *_miscounted(held_to.suite, counts or {})]


def _miscounted(suite: Suite, counts: Counts) -> Iterator[str]:
    yield from (f"{scenario} was not run" for scenario in suite.scenarios if scenario not in counts)
    counted: Counter[str] = Counter()
    for scenario in suite.scenarios:
        counted.update(counts.get(scenario, {}))
    for what, number in suite.at_least.items():
        if counted[what] < number:
            yield f"{counted[what]} {what}, at least {number} are required"
    for what, number in suite.at_most.items():
        if counted[what] > number:
            yield f"{counted[what]} {what}, at most {number} are allowed"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= _LARGE else f"{value:.4g}"
