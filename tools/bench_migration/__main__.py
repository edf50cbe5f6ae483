"""Migrates that many rows in a PostgreSQL of its own, and prints rate and memory with the baseline of the same run."""

import argparse
import base64
import json
import os
import resource
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Final

import asyncpg
import uvloop

from hookseal.cli.shared.operating import NEEDS, operating
from hookseal.cli.shared.parallel import LANES, side_by_side
from hookseal.config.load import load
from hookseal.config.settings import Settings
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.operations.key.keys import begin
from hookseal.operations.migrate_secrets import migrate_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connect
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.secrets import migrate_secrets
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tools.bench_migration.bare import bare

SECONDS_FOR_100_000: Final = 120.0
MOST_GROWTH_MB: Final = 10.0
EARLY: Final = 10_000
_INSERT: Final = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
SELECT $1 || n % $2, gen_random_uuid(), 'https://bench.example/' || $1 || n, '{*}',
       encode(sha256(n::text::bytea), 'hex')
FROM generate_series(1, $3) AS n
"""

Work = Callable[[Operator, PlaintextEndpoint], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The results: rows a second, of the baseline before and after, too, and resident memory at two moments."""

    rows: int
    tenants: int
    lanes: int
    seconds: float
    rows_per_second: float
    baseline_rows_per_second: tuple[float, float]
    ratio: float
    early_mb: float
    end_mb: float

    @property
    def missed(self) -> list[str]:
        """Return the bounds that were missed."""
        allowed = SECONDS_FOR_100_000 * self.rows / 100_000
        lines = [f"it took {self.seconds:.1f} s, {allowed:.1f} s are allowed"] if self.seconds > allowed else []
        grown = self.end_mb - self.early_mb
        if grown > MOST_GROWTH_MB:
            lines.append(f"memory grew by {grown:.1f} MB from row {EARLY} on, {MOST_GROWTH_MB} MB are allowed")
        return lines


async def measured(*, rows: int, tenants: int, lanes: int, baseline_rows: int) -> Found:
    """Migrate that many rows, between two rounds of the baseline."""
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as server:
            await upgrade(server.url)
            key = base64.b64encode(os.urandom(32)).decode()
            variables = {
                "HOOKSEAL_ENV": "development",
                "DATABASE_URL": server.url,
                "SECRETS_PROVIDER": "db",
                "SECRETS_MASTER_KEY": key,
            }
            settings = load(variables, needs=NEEDS)
            connection = await connect(server.url)
            master_key = settings.secrets.master_key
            assert master_key is not None  # noqa: S101 -- it was given
            await begin(connection, KeyRing(master_key), "bench", os.urandom)
            bench = _Bench(settings, connection, tenants=tenants, lanes=lanes)
            found = await bench.found(rows, baseline_rows)
            await connection.close()
            return found


class _Bench:
    def __init__(
        self, settings: Settings, connection: "asyncpg.Connection[asyncpg.Record]", *, tenants: int, lanes: int
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._tenants = tenants
        self._lanes = lanes
        self._done = 0
        self._early_mb = 0.0

    async def found(self, rows: int, baseline_rows: int) -> Found:
        before = await self._timed("b", baseline_rows, bare)
        self._done = 0
        seconds = await self._timed("t", rows, migrate_endpoint)
        early_mb, end_mb = self._early_mb or _resident_mb(), _resident_mb()
        after = await self._timed("c", baseline_rows, bare)
        rate, bare_rates = rows / seconds, (baseline_rows / before, baseline_rows / after)
        return Found(
            rows=rows,
            tenants=self._tenants,
            lanes=self._lanes,
            seconds=round(seconds, 2),
            rows_per_second=round(rate, 1),
            baseline_rows_per_second=(round(bare_rates[0], 1), round(bare_rates[1], 1)),
            ratio=round(rate / (sum(bare_rates) / 2), 3),
            early_mb=round(early_mb, 1),
            end_mb=round(end_mb, 1),
        )

    async def _timed(self, prefix: str, rows: int, work: Work) -> float:
        """Return the seconds of the work on that many new rows, which are then removed."""
        await self._connection.execute("DELETE FROM hookseal.endpoints")
        await self._connection.execute(_INSERT, prefix, self._tenants, rows)

        async def one(operator: Operator, held: PlaintextEndpoint) -> None:
            await work(operator, held)
            self._done += 1
            if self._done == EARLY:
                self._early_mb = _resident_mb()
            if self._done % EARLY == 0:
                print(f"  {prefix}: {self._done} rows ...", file=sys.stderr, flush=True)

        async with operating(self._settings) as operator:
            started = perf_counter()
            items: AsyncGenerator[PlaintextEndpoint, None] = migrate_secrets.iterate(operator.connection)
            await side_by_side(self._settings, operator, items, one, lanes=self._lanes)
            return perf_counter() - started


def _resident_mb() -> float:
    """Return the largest memory of this process so far, PostgreSQL not counted."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
    return most / (1 << 20) if sys.platform == "darwin" else most / (1 << 10)


def table(found: Found) -> str:
    """Return the figures as a table."""
    before, after = found.baseline_rows_per_second
    return "\n".join(
        (
            f"rows          {found.rows} of {found.tenants} tenants, {found.lanes} side by side",
            f"migrated      {found.seconds:.1f} s, {found.rows_per_second:.0f} rows/s, each row in a transaction",
            f"baseline      {before:.0f} and {after:.0f} rows/s: the same statements, before and after",
            f"ratio         {found.ratio:.2f}",
            f"memory        {found.early_mb:.1f} MB at row {EARLY}, {found.end_mb:.1f} MB at the end",
        )
    )


def main(arguments: list[str]) -> int:
    """Run `make bench-migration`; return 0 if every bound is met, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-migration", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--lanes", type=int, default=LANES)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    asked = parser.parse_args(arguments)
    baseline_rows = max(asked.rows // 10, 1)
    found = uvloop.run(measured(rows=asked.rows, tenants=asked.tenants, lanes=asked.lanes, baseline_rows=baseline_rows))
    print(json.dumps(asdict(found) | {"missed": found.missed}) if asked.json else table(found))
    for line in found.missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if found.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
