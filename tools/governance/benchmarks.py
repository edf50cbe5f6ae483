"""The ids that a benchmark or a long suite proves, and their bounds, which are in this code and not in the records.

An id of the group PERF is proven by its record alone. For another id the record proves the figure in it, or the long
form of its faults, and tests prove the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tools.bench.bars import BARS, Bar
from tools.bench.results import Run
from tools.soak.record import BARS as SOAK_BARS
from tools.soak.record import Soak

GROUP: Final = "PERF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The scenarios of a long suite, all of which must run, and the bounds for their total counts."""

    scenarios: tuple[str, ...]
    at_least: Mapping[str, int]
    at_most: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How the record of an id is made, and its bounds: microseconds for each figure, counts for a suite, or bars.

    An id with bars has no record of its own: the stored run of `make bench` is its record, and the stored soak is held
    to its `soak_bars`.
    """

    command: str
    at_most_us: Mapping[str, float] = field(default_factory=dict)
    suite: Suite | None = None
    bars: tuple[Bar[Run], ...] = ()
    soak_bars: tuple[Bar[Soak], ...] = ()

    @property
    def all_bars(self) -> Sequence[Bar[Run] | Bar[Soak]]:
        """The bars of both."""
        return [*self.bars, *self.soak_bars]


BENCH: Final = "make bench"
_FAULTS: Final = "make test-faults ARGS=--record"
_NOTHING_LOST: Final = {"lost": 0, "unexplained": 0, "wrong": 0}
_NOTHING_TWICE: Final = {**_NOTHING_LOST, "duplicates": 0, "unknown": 0}


def _suite(*scenarios: str, deliveries: int, at_most: Mapping[str, int]) -> Benchmark:
    bounds = {"deliveries": deliveries, "faults": len(scenarios)}
    return Benchmark(command=_FAULTS, suite=Suite(scenarios=scenarios, at_least=bounds, at_most=at_most))


def _bench(*names: str) -> dict[str, Benchmark]:
    return {name: Benchmark(command=BENCH, bars=tuple(bar for bar in BARS if bar.id == name)) for name in names}


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
        at_most_us={"rewrap": 100.0},  # 10,000 records in a second
    ),
    "PERF-06": Benchmark(
        command="make bench-secrets ARGS=--record",
        at_most_us={"open": 25.0, "resolve-and-sign": 30.0, "fetch-and-open": 500.0},
    ),
    **_bench("PERF-01", "PERF-02", "PERF-03", "PERF-04", "PERF-05", "PERF-08"),
    "PERF-07": Benchmark(
        command="make bench soak", bars=tuple(bar for bar in BARS if bar.id == "PERF-07"), soak_bars=SOAK_BARS
    ),
}
