"""The record of a soak: what was measured, every few seconds, and what follows from it. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tools.bench.bars import Bar
from tools.bench.results import Machine

RECORD: Final = "docs/proof/soak.json"
MOST_GROWTH: Final = 1.2
MOST_SLOWER: Final = 1.5
MOST_MEMORY: Final = 1.05
COMMAND: Final = "make soak"
WHOLE: Final = 2_000_000
WARM_UP: Final = 2  # retentions: until then nothing has left, or vacuum has not come by
THIRDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state at one moment; the claims are those since the sample before, and `worker_mb` is resident memory.

    `late_seconds` is for how long the oldest finished delivery has been kept beyond the retention.
    """

    seconds: float
    delivered: int
    removed: int
    size_mb: float
    stored: int
    dead_rows: int
    vacuums: int
    late_seconds: float
    claims: int
    claim_p50_ms: float
    claim_p99_ms: float
    worker_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """One soak: its commit (`is_dirty`: with uncommitted changes), its time (UTC), its machine, and its samples.

    `keep_seconds` is how long a day of the retention lasted, which was one day.
    """

    commit: str
    is_dirty: bool
    date: str
    command: str
    keep_seconds: int
    per_second: int
    machine: Machine
    samples: tuple[Sample, ...]

    @property
    def last(self) -> Sample:
        """The last sample."""
        return self.samples[-1]

    @property
    def warm(self) -> tuple[Sample, ...]:
        """The samples after the first two retentions."""
        return tuple(each for each in self.samples if each.seconds >= WARM_UP * self.keep_seconds)

    @property
    def growth(self) -> float:
        """The largest size in the last third of the soak, divided by the largest in the third before."""
        _, before, after = _thirds(self.warm)
        return max(each.size_mb for each in after) / max(each.size_mb for each in before)

    @property
    def slowdown(self) -> float:
        """The median of the p99 of claims in the last third, divided by that in the first third."""
        first, _, after = _thirds(self.warm)
        return _p99(after) / _p99(first)

    @property
    def memory_growth(self) -> float:
        """The largest memory of the worker in the last third, divided by the largest in the first third."""
        first, _, after = _thirds(self.warm)
        return max(each.worker_mb for each in after) / max(each.worker_mb for each in first)

    @property
    def delivered_per_second(self) -> float:
        """Deliveries a second, over the whole soak."""
        return self.last.delivered / self.last.seconds

    @property
    def removed_per_second(self) -> float:
        """The highest rate at which deliveries were removed between two samples."""
        return max(
            ((after.removed - before.removed) / (after.seconds - before.seconds))
            for before, after in pairwise(self.samples)
        )


def problems(soak: Soak) -> list[str]:
    """Return which bounds the soak did not meet."""
    if len(soak.warm) < THIRDS:
        return [f"it ended before {WARM_UP} retentions and {THIRDS} samples: give it more deliveries"]
    found = []
    if soak.growth > MOST_GROWTH:
        found.append(f"the database grew {soak.growth:.2f}x from the second to the last third, bound {MOST_GROWTH}x")
    if soak.slowdown > MOST_SLOWER:
        found.append(f"the p99 of claims became {soak.slowdown:.2f}x of what it was, bound {MOST_SLOWER}x")
    if soak.memory_growth > MOST_MEMORY:
        found.append(f"the worker's memory became {soak.memory_growth:.3f}x of what it was, bound {MOST_MEMORY}x")
    return found


def _of_whole(value: Callable[[Soak], float]) -> Callable[[Soak], float | None]:
    return lambda soak: value(soak) if _is_whole(soak) else None


def _is_whole(soak: Soak) -> bool:
    return soak.command == COMMAND and len(soak.warm) >= THIRDS and all(each.worker_mb > 0 for each in soak.samples)


# PERF-07 of docs/requirements.md: the stored soak is held to it. The last sample is up to 20 seconds before the end.
BARS: Final[tuple[Bar[Soak], ...]] = (
    Bar(
        id="PERF-07",
        what="length of the soak",
        gate=60,
        unit="minutes",
        value=_of_whole(lambda soak: soak.last.seconds / 60),
        is_least=True,
    ),
    Bar(
        id="PERF-07",
        what="number of deliveries in the soak",
        gate=0.99 * WHOLE,
        unit="",
        value=_of_whole(lambda soak: soak.last.delivered),
        is_least=True,
    ),
    Bar(
        id="PERF-07",
        what="memory in the soak, last third to the first",
        gate=MOST_MEMORY,
        unit="x",
        value=_of_whole(lambda soak: soak.memory_growth),
    ),
)


def written(soak: Soak) -> bytes:
    """Return the soak in its stored form."""
    return msgspec.json.format(msgspec.json.encode(soak), indent=1) + b"\n"


def read(root: Path) -> Soak:
    """Return the stored soak. Raises `msgspec.DecodeError` if it has another form."""
    return msgspec.json.decode((root / RECORD).read_bytes(), type=Soak)


def _thirds(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample], Sequence[Sample]]:
    third = len(samples) // THIRDS
    return samples[:third], samples[third:-third], samples[-third:]


def _p99(samples: Sequence[Sample]) -> float:
    return median(each.claim_p99_ms for each in samples if each.claims)
