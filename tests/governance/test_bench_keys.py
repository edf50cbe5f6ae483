"""The benchmark of a re-wrap with a tiny load, and what it reports of a failed one."""

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest

from hookseal.demo.process import worker_process
from hookseal.operations.key.keys import begin, promote_key, stage_key
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from tests import forked
from tools.bench_keys import laps, records
from tools.bench_keys.__main__ import PROVES, figures_of, missed, table
from tools.bench_keys.rounds import Found, Lap, Load, measured
from tools.bench_keys.steady import Period, Stream
from tools.governance.benchmarks import BENCHMARKS

pytestmark = pytest.mark.req("OPS-07", part="first-form")

Pool = asyncpg.Pool
MANY = 600  # more than one batch
LAP = Lap(
    seconds=5.0,
    baseline_seconds=2.0,
    meanwhile=Stream(per_second=50.0, p50_ms=9.0, p99_ms=30.0),
    quiet=Stream(per_second=50.0, p50_ms=6.0, p99_ms=12.0),
)
HELD = Found(laps=(LAP, LAP, LAP), failures=0, left=0, unopened=0)


async def test_a_run_has_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own servers with a real worker: all rounds of both sides exist, nothing failed, all records decrypt."""
    monkeypatch.setattr("tools.bench_keys.rounds.worker_process", partial(worker_process, start=forked.worker))
    load = Load(records=40, rounds=2, deliveries_per_second=40.0, quiet_seconds=0.3)
    before = set(asyncio.all_tasks())
    found = await measured(load)

    assert (2, 0, 0, 0) == (len(found.laps), found.failures, found.left, found.unopened)
    assert all(lap.seconds > 0 < lap.baseline_seconds and lap.quiet.p50_ms > 0 for lap in found.laps)
    figures = figures_of(found.laps, load.records)
    assert BENCHMARKS[PROVES].at_most_us.keys() <= figures.keys()
    assert before == set(asyncio.all_tasks())


async def test_the_baseline_changes_no_row(pool: "Pool[asyncpg.Record]") -> None:
    """The baseline touches every row and changes none; the lap re-wraps each, and all decrypt under the new key."""
    old, new = (MasterKey(SecretMaterial(os.urandom(KEY_BYTES))) for _ in range(2))
    async with pool.acquire() as connection:
        await begin(connection, KeyRing(old), "bench", os.urandom)
        await records.keep(connection, KeyRing(old), MANY)
        unlocked = await unlock(connection, Provider.DB, KeyRing(old))
        await stage_key(Operator(connection=connection, unlocked=unlocked, who="bench"), new)
        unlocked = await unlock(connection, Provider.DB, KeyRing(old, (new,)))
        operator = Operator(connection=connection, unlocked=unlocked, who="bench")
        await promote_key(operator, new.key_id)

        assert MANY + 2 == await laps.write_alone(connection, old.key_id, new.key_id)
        assert (MANY, MANY + 2) == (
            await records.opened(connection, KeyRing(old)),
            await records.under(connection, old.key_id),
        )
        assert MANY + 2 == await laps.rewrap(operator, old.key_id)
        assert (MANY, 0) == (
            await records.opened(connection, KeyRing(new)),
            await records.opened(connection, KeyRing(old)),
        )


async def test_an_altered_record_fails_the_lap(pool: "Pool[asyncpg.Record]") -> None:
    """An altered record does not count as opened, and the lap fails."""
    old, new = (MasterKey(SecretMaterial(os.urandom(KEY_BYTES))) for _ in range(2))
    async with pool.acquire() as connection:
        await begin(connection, KeyRing(old), "bench", os.urandom)
        await records.keep(connection, KeyRing(old), 3)
        await connection.execute(
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 60, get_byte(sealed, 60) # 1)"
            " WHERE tenant_id = 'bench-01'"
        )
        unlocked = await unlock(connection, Provider.DB, KeyRing(old))
        await stage_key(Operator(connection=connection, unlocked=unlocked, who="bench"), new)
        unlocked = await unlock(connection, Provider.DB, KeyRing(old, (new,)))
        operator = Operator(connection=connection, unlocked=unlocked, who="bench")
        await promote_key(operator, new.key_id)
        with pytest.raises(RuntimeError, match="1 records were left under the old key"):
            await laps.rewrap(operator, old.key_id)
        assert 2 == await records.opened(connection, KeyRing(old, (new,)))


def test_rates_are_shown_with_their_baselines() -> None:
    """Rows and deliveries a second are shown with their baselines; a good run misses nothing."""
    figures = figures_of(HELD.laps, 50_000)
    shown = table(HELD, figures).splitlines()
    assert (100.0, 40.0, 2.5) == (figures["rewrap"].us, figures["rewrap"].baseline_us, figures["rewrap"].ratio)
    assert [] == missed(HELD, figures)
    assert "10,000 rows/s" in shown[0]
    assert "25,000 rows/s" in shown[1]
    assert ["while", "re-wrapping", "50.0", "9.0", "30.0"] == shown[3].split()
    assert ["otherwise", "50.0", "6.0", "12.0"] == shown[4].split()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (replace(HELD, laps=(replace(LAP, seconds=5.01),)), "rewrap took 100.2 us, at most 100 us are allowed"),
        (replace(HELD, failures=1), "1 secrets were not had, or deliveries not made at once"),
        (replace(HELD, left=2), "2 records are left under the old key"),
        (replace(HELD, unopened=3), "3 records do not open to what they were"),
    ],
)
def test_a_slow_row_or_a_failure_is_a_miss(found: Found, message: str) -> None:
    """A row that took too long, or any failure, is a miss."""
    assert [message] == missed(found, figures_of(found.laps, 50_000))


def test_a_period_uses_the_databases_clock() -> None:
    """A period is measured by the clock of the database."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert 1.5 == Period(begin=begin, end=begin + timedelta(seconds=1.5)).seconds
