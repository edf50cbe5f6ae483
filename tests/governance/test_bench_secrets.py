"""The benchmark of the secret path with a tiny load."""

import asyncpg
import pytest

from tools.bench_secrets.comparisons import ENDPOINTS, Load, comparisons
from tools.bench_secrets.endpoints import installed
from tools.bench_secrets.timing import Comparison, measured
from tools.governance.benchmarks import BENCHMARKS

pytestmark = pytest.mark.req("OPS-07", part="first-form")


async def test_every_bound_is_measured_beside_its_baseline(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """A run on a real PostgreSQL has a figure for each bound of PERF-06, with equally many rounds of both sides."""
    installation = await installed(pool)
    found = await measured(await comparisons(installation, Load(open=2, sign=2, fetch=2)), rounds=3)

    assert BENCHMARKS["PERF-06"].at_most_us.keys() <= found.keys()
    assert {(3, 3)} == {(len(one.rounds_us), len(one.baseline_rounds_us)) for one in found.values()}


async def test_resolved_secrets_come_from_the_cache(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """After one pass over all endpoints, both secrets come from the cache and the store is not read."""
    installation = await installed(pool)
    signing = {
        comparison.name: comparison for comparison in await comparisons(installation, Load(open=1, sign=1, fetch=1))
    }
    statistics = installation.unlocked.service.statistics

    await signing["resolve-and-sign"].ours(ENDPOINTS)
    first = statistics()
    await signing["resolve-and-sign"].ours(ENDPOINTS)

    assert (0, 2 * ENDPOINTS) == (first.hits, first.misses)
    assert (2 * ENDPOINTS, 2 * ENDPOINTS) == (statistics().hits, statistics().misses)


async def test_both_sides_take_turns_and_the_warm_up_is_not_counted() -> None:
    """Each round runs hookseal and then the baseline of every comparison; the first round is left out."""
    turns: list[tuple[str, int]] = []

    def one(name: str, *took: float) -> Comparison:
        ours, bare = iter(took), iter(took)

        async def first(operations: int) -> float:
            turns.append((name, operations))
            return next(ours)

        async def second(operations: int) -> float:
            turns.append((f"bare {name}", operations))
            return next(bare) / 2

        return Comparison(name=name, ours=first, baseline=second, operations=7)

    found = await measured([one("a", 900.0, 1.0, 3.0, 2.0), one("b", 900.0, 4.0, 4.0, 5.0)], rounds=3)

    assert [("a", 7), ("bare a", 7), ("b", 7), ("bare b", 7)] * 4 == turns
    assert (2.0, 1.0, 2.0, (1.0, 3.0, 2.0)) == (
        found["a"].us,
        found["a"].baseline_us,
        found["a"].ratio,
        found["a"].rounds_us,
    )
    assert 4.0 == found["b"].us
