"""The ids that a benchmark proves, and what its record is held to. The bounds stand here, never in a record.

What is of the group PERF its record proves alone. Of another id it proves the figure in it, and tests the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

GROUP: Final = "PERF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How the record of an id is made, and how many microseconds each of its figures may be."""

    command: str
    at_most_us: Mapping[str, float]


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "SEC-05": Benchmark(
        command="make bench-keys ARGS=--record",
        at_most_us={"rewrap": 100.0},  # 10,000 records in a second
    ),
    "PERF-06": Benchmark(
        command="make bench-secrets ARGS=--record",
        at_most_us={"open": 25.0, "resolve-and-sign": 30.0, "fetch-and-open": 500.0},
    ),
}
