"""How a figure is measured: hookseal and its baseline alternate, with the same number of operations in each round.

Each operation is timed separately and a round returns the median, so that occasional other load on the machine does
not count. The garbage collector runs as in production.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns
from typing import Final

from tools.governance.evidence import Figure, figure

# Does so many operations, and returns the median of their microseconds.
Round = Callable[[int], Awaitable[float]]

_NANOSECONDS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure: our operation, a baseline, and the number of operations of each in a round."""

    name: str
    ours: Round
    baseline: Round
    operations: int


def p50_of(operation: Callable[[int], object]) -> Round:
    """Return a round of the operation, which is called with its number."""

    async def one_round(operations: int) -> float:
        took: list[int] = []
        for number in range(operations):
            started = perf_counter_ns()
            operation(number)
            took.append(perf_counter_ns() - started)
        return median(took) / _NANOSECONDS

    return one_round


def p50_of_awaited(operation: Callable[[int], Awaitable[object]]) -> Round:
    """Return a round of the operation, which is called with its number and awaited."""

    async def one_round(operations: int) -> float:
        took: list[int] = []
        for number in range(operations):
            started = perf_counter_ns()
            await operation(number)
            took.append(perf_counter_ns() - started)
        return median(took) / _NANOSECONDS

    return one_round


async def measured(comparisons: Sequence[Comparison], rounds: int) -> dict[str, Figure]:
    """Return the figure of every comparison. A first round warms up and is not counted."""
    ours: dict[str, list[float]] = {comparison.name: [] for comparison in comparisons}
    baselines: dict[str, list[float]] = {comparison.name: [] for comparison in comparisons}
    for number in range(rounds + 1):
        print(f"  round {number} of {rounds} ..." if number else "  warming up ...", file=sys.stderr, flush=True)
        for comparison in comparisons:
            ours[comparison.name].append(await comparison.ours(comparison.operations))
            baselines[comparison.name].append(await comparison.baseline(comparison.operations))
    return {name: figure(ours[name][1:], baselines[name][1:]) for name in ours}
