"""The benchmark of the migration with a tiny load."""

from dataclasses import replace

import pytest

from tools.bench_migration.__main__ import Found, measured

pytestmark = pytest.mark.req("OPS-07", part="first-form")

FOUND = Found(
    rows=100_000,
    tenants=100,
    lanes=4,
    seconds=119.0,
    rows_per_second=840.3,
    baseline_rows_per_second=(1000.0, 1000.0),
    ratio=0.84,
    early_mb=100.0,
    end_mb=101.0,
)


async def test_rate_and_memory_are_measured_beside_the_baseline() -> None:
    """A run on a real PostgreSQL migrates every row between two rounds of the baseline."""
    found = await measured(rows=20, tenants=3, lanes=2, baseline_rows=5)

    assert (20, 3, 2) == (found.rows, found.tenants, found.lanes)
    assert min(found.rows_per_second, *found.baseline_rows_per_second, found.ratio, found.early_mb) > 0


def test_a_missed_bound_is_reported() -> None:
    """The bounds are two minutes for 100,000 rows, and ten megabytes more than after the first 10,000."""
    assert [] == FOUND.missed
    assert ["it took 121.0 s, 120.0 s are allowed"] == replace(FOUND, seconds=121.0).missed
    assert ["it took 13.0 s, 12.0 s are allowed"] == replace(FOUND, rows=10_000, seconds=13.0).missed
    assert ["memory grew by 11.0 MB from row 10000 on, 10.0 MB are allowed"] == replace(FOUND, end_mb=111.0).missed
