"""The results of a benchmark run: every round as measured, and the medians and ratios. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tools.bench.plan import HOOKSEAL, WIDE

RESULTS: Final = "docs/proof/performance.json"
WORKER: Final = "worker"
POSTGRESQL: Final = "postgresql"
REDIS: Final = "redis"
RECEIVER: Final = "receiver"
PRODUCER: Final = "producer"
_MICROSECONDS: Final = 1e6


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
    """All rounds of one contender in one scenario."""

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
class Machine:
    """The machine of the run, without host names and paths."""

    cpu: str
    cpus: int
    memory_mb: int
    kernel: str
    python: str
    postgresql: str
    redis: str


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

    `settings` are those of a worker that differ from the defaults in every case; `bodies` says what is sent. `runs` are
    the headlines of the last whole runs on clean trees, the newest last.
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
    runs: tuple[Headline, ...] = ()

    def ours(self, scenario: str) -> Row | None:
        """Return the rounds of hookseal as installed in that scenario, or else those with another limit."""
        return self.row(scenario, HOOKSEAL) or self.row(scenario, WIDE)

    def row(self, scenario: str, contender: str) -> Row | None:
        """Return the rounds of that contender in that scenario, if it has any."""
        found = [row for row in self.rows if (row.scenario, row.contender) == (scenario, contender)]
        return found[0] if found else None

    def rows_of(self, scenario: str) -> tuple[Row, ...]:
        """Return the rows of a scenario, in the order of measurement."""
        return tuple(row for row in self.rows if row.scenario == scenario)

    def figure(self, scenario: str, name: str, contender: str | None = None) -> float | None:
        """Return the median of a figure of that contender, or else of hookseal, if it was measured."""
        row = self.ours(scenario) if contender is None else self.row(scenario, contender)
        return row.figure(name) if row is not None else None


def ratio_of_rates(ours: Row | None, theirs: Row | None) -> float | None:
    """Return the median over the rounds of hookseal's rate divided by the other's; None if one is missing.

    Rounds alternate, so the two of one number ran one after the other: a slower minute of the machine hardly changes
    their ratio.
    """
    return ratio(ours, theirs, lambda each: each.per_second)


def ratio_of_cpu(ours: Row | None, theirs: Row | None, parts: Sequence[str] = (WORKER,)) -> float | None:
    """Return the median over the rounds of hookseal's CPU a delivery in these parts, divided by the other's."""
    return ratio(ours, theirs, lambda each: sum(each.microseconds(part) for part in parts))


def ratio(
    ours: Row | None,
    theirs: Row | None,
    value: Callable[[Round], float],
    their_value: Callable[[Round], float] | None = None,
) -> float | None:
    """Return the median over the rounds of hookseal's value divided by the other's, for which a function may differ."""
    if ours is None or theirs is None:
        return None
    of_theirs = their_value or value
    pairs = zip(ours.rounds, theirs.rounds, strict=False)
    found = [value(mine) / of_theirs(other) for mine, other in pairs if of_theirs(other)]
    return median(found) if found else None


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed. There must be a value."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def written(run: Run) -> bytes:
    """Return the run in its stored form."""
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def read(root: Path) -> Run:
    """Return the stored run. Raises `msgspec.DecodeError` if it has another form."""
    return msgspec.json.decode((root / RESULTS).read_bytes(), type=Run)
