"""The records of benchmarks and long suites: one for each id in `docs/EVIDENCE/`, written by a run, never by hand.

The stored run of `make bench` is the record of each id that has bars; the stored soak adds its figures. A new record
replaces the old one: git has the earlier ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tools.bench import results
from tools.bench.bars import Bar, values_of
from tools.bench.results import Run
from tools.governance.benchmarks import BENCH, BENCHMARKS, Suite
from tools.soak import record as soaks
from tools.soak.record import Soak

FOLDER: Final = "docs/EVIDENCE"
_LARGE: Final = 10_000
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)  # what reading a file of another form raises


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
    id that is proven by a soak, too, has its commit, and its figures among `measured`.
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

    @property
    def commits(self) -> tuple[str, ...]:
        """Every commit that was measured."""
        return (self.commit,) if self.soak_commit is None else (self.commit, self.soak_commit)


Counts = Mapping[str, Mapping[str, int]]
Evidence = Mapping[str, Record | None]


def place(name: str) -> str:
    """Return the path of the record of that id, relative to the root."""
    return results.RESULTS if name in BENCHMARKS and BENCHMARKS[name].bars else f"{FOLDER}/{name}.json"


def places(name: str) -> tuple[str, ...]:
    """Return the paths of all that the record of that id is read from."""
    return (place(name), soaks.RECORD) if name in BENCHMARKS and BENCHMARKS[name].soak_bars else (place(name),)


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


def misses(
    name: str,
    figures: Mapping[str, Figure],
    counts: Counts | None = None,
    measured: Mapping[str, float] | None = None,
) -> list[str]:
    """Return how these figures, counts and measured values miss the bounds of the id; nothing if all are met."""
    held_to = BENCHMARKS[name]
    missed = [line for part, us in held_to.at_most_us.items() if (line := _miss(part, us, figures.get(part)))]
    missed += [line for bar in held_to.all_bars if (line := _missed_bar(bar, (measured or {}).get(bar.what)))]
    return missed if held_to.suite is None else [*missed, *_miscounted(held_to.suite, counts or {})]


def totals(counts: Counts) -> Counter[str]:
    """Return the total counts of all scenarios."""
    return sum((Counter(dict(found)) for found in counts.values()), Counter[str]())


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


def write(root: Path, record: Record) -> None:
    """Write the record as the last one of its id."""
    file = root / place(record.id)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read(root: Path) -> Evidence:
    """Return every record by its id, which is the name of its file; None for a file of another form."""
    written: Evidence = {file.stem: _read(file) for file in sorted((root / FOLDER).glob("*.json"))}
    return {**written, **_of_bench(root)} if (root / results.RESULTS).is_file() else written


def _of_bench(root: Path) -> Evidence:
    """Return the records that the stored run is. A quick run, and one of some parts only, measures none of its bars."""
    try:
        run = results.read(root)
    except UNREADABLE:
        return dict.fromkeys(name for name, held_to in BENCHMARKS.items() if held_to.bars)
    try:
        soak = soaks.read(root) if (root / soaks.RECORD).is_file() else None
    except UNREADABLE:
        return _of_run(run, None) | dict.fromkeys(name for name, held_to in BENCHMARKS.items() if held_to.soak_bars)
    return _of_run(run, soak)


def _of_run(run: results.Run, soak: Soak | None) -> dict[str, Record | None]:
    machine = Machine(cpu=run.machine.cpu, cpus=run.machine.cpus, python=run.machine.python)
    records = dict[str, Record | None]()
    for name, held_to in BENCHMARKS.items():
        values = values_of(held_to.bars, run) if run.command == BENCH else {}
        of_soak = soak if held_to.soak_bars else None
        if of_soak is not None:
            values |= values_of(held_to.soak_bars, of_soak)
        if held_to.bars:
            records[name] = Record(
                id=name,
                commit=run.commit,
                is_dirty=run.is_dirty or (of_soak is not None and of_soak.is_dirty),
                machine=machine,
                figures={},
                is_met=not misses(name, {}, measured=values),
                measured=values,
                soak_commit=None if of_soak is None else of_soak.commit,
            )
    return records


def _read(file: Path) -> Record | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except UNREADABLE:
        return None


def _miscounted(suite: Suite, counts: Counts) -> Iterator[str]:
    yield from (f"{scenario} was not run" for scenario in suite.scenarios if scenario not in counts)
    counted = totals({scenario: counts[scenario] for scenario in suite.scenarios if scenario in counts})
    for what, number in suite.at_least.items():
        if counted[what] < number:
            yield f"{counted[what]} {what}, at least {number} are required"
    for what, number in suite.at_most.items():
        if counted[what] > number:
            yield f"{counted[what]} {what}, at most {number} are allowed"


def _missed_bar(bar: Bar[Run] | Bar[Soak], value: float | None) -> str | None:
    if value is None:
        return f"{bar.what} was not measured"
    bound = f"at least {_shown(bar.gate)} is required" if bar.is_least else f"at most {_shown(bar.gate)} is allowed"
    return None if bar.is_met(value) else f"{bar.what}: {_shown(value)} {bar.unit}".strip() + f", {bound}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= _LARGE else f"{value:.4g}"


def _miss(part: str, at_most_us: float, found: Figure | None) -> str | None:
    if found is None:
        return f"{part} was not measured"
    return f"{part} took {found.us:g} us, at most {at_most_us:g} us are allowed" if found.us > at_most_us else None
