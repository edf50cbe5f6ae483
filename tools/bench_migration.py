"""`make bench-migration`: how fast plaintext secrets are migrated, beside the same statements without a secret."""

import argparse
import base64
import json
import os
import resource
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

import uvloop

from hookseal.admin.session import CommandSession
from hookseal.cli.context import CHANGES
from hookseal.config.load import load
from hookseal.config.settings import Settings
from hookseal.operations.bulk import LANES, side_by_side
from hookseal.operations.key.keys import begin
from hookseal.operations.migrate_secrets import migrate_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.postgres.statements import statements
from hookseal.secrets import migrate_secrets
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import endpoint_secret_name
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tools.harness import site
from tools.records import table

SECONDS_FOR_100_000: Final = 120.0
MOST_GROWTH_MB: Final = 10.0
EARLY: Final = 10_000
_INSERT: Final = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
SELECT $1 || n % $2, gen_random_uuid(), 'https://bench.example/' || $1 || n, '{*}',
       encode(sha256(n::text::bytea), 'hex')
FROM generate_series(1, $3) AS n
"""
_MIGRATION: Final = statements("hookseal.secrets", "migrate_secrets.sql")
_STORE: Final = statements("hookseal.secrets.store", "postgres.sql")
_RECORDS: Final = statements("hookseal.secrets.store", "records.sql")
_POINTER: Final = statements("hookseal.secrets.endpoint", "pointer.sql")
_AUDIT: Final = statements("hookseal.audit", "audit.sql")
_SEALED: Final = os.urandom(290)  # as long as the record of a secret of 64 bytes
_MAC: Final = os.urandom(32)
_ORIGIN: Final = bytes(32)
_IS_OTHER: Final = False  # the secret is not one that only moves
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FACTS: Final = '{"generation":%d,"secret_ref":null,"scheme":"x-webhook","algorithm":"hmac","lead":"previous"}'

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
    async with site() as here, here.database() as url, here.observer(url) as connection:
        await upgrade(url)
        variables = {
            "HOOKSEAL_ENV": "development",
            "DATABASE_URL": url,
            "SECRETS_PROVIDER": "db",
            "SECRETS_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        }
        settings = load(variables, needs=CHANGES)
        master_key = settings.secrets.master_key
        assert master_key is not None  # noqa: S101 -- it was given
        await begin(connection, KeyRing(master_key), "bench", os.urandom)
        before, _ = await _timed(connection, settings, "b", (tenants, baseline_rows, lanes), bare)
        seconds, early_mb = await _timed(connection, settings, "t", (tenants, rows, lanes), migrate_endpoint)
        end_mb = _resident_mb()
        after, _ = await _timed(connection, settings, "c", (tenants, baseline_rows, lanes), bare)
    rate, bare_rates = rows / seconds, (baseline_rows / before, baseline_rows / after)
    return Found(
        rows=rows,
        tenants=tenants,
        lanes=lanes,
        seconds=round(seconds, 2),
        rows_per_second=round(rate, 1),
        baseline_rows_per_second=(round(bare_rates[0], 1), round(bare_rates[1], 1)),
        ratio=round(rate / (sum(bare_rates) / 2), 3),
        early_mb=round(early_mb or end_mb, 1),
        end_mb=round(end_mb, 1),
    )


async def _timed(
    connection: Connection, settings: Settings, prefix: str, size: tuple[int, int, int], work: Work
) -> tuple[float, float]:
    """Return the seconds of the work on new rows of so many tenants, and the memory after the first 10,000."""
    tenants, rows, lanes = size
    await connection.execute("DELETE FROM hookseal.endpoints")
    await connection.execute(_INSERT, prefix, tenants, rows)
    done, early_mb = 0, 0.0

    async def one(operator: Operator, held: PlaintextEndpoint) -> None:
        nonlocal done, early_mb
        await work(operator, held)
        done += 1
        if done == EARLY:
            early_mb = _resident_mb()
        if done % EARLY == 0:
            print(f"  {prefix}: {done} rows ...", file=sys.stderr, flush=True)

    async with AsyncExitStack() as resources:
        session = CommandSession(settings, None, resources)
        async with session.changing_many("bench") as (operator, further):
            started = perf_counter()
            items: AsyncGenerator[PlaintextEndpoint, None] = migrate_secrets.iterate(operator.connection)
            await side_by_side(operator, further, items, one, lanes=lanes)
            return perf_counter() - started, early_mb


async def bare(operator: Operator, held: PlaintextEndpoint) -> None:
    """Run the statements of the migration of this row in the same transaction, without sealing, opening and signing."""
    tenant, endpoint, name = held.tenant_id, held.endpoint_id, endpoint_secret_name(held.endpoint_id)
    ref = f"db:{tenant}:{name}:1"
    async with operator.changing() as connection:
        await connection.fetchrow(_MIGRATION["lock"], tenant, endpoint)
        version = await connection.fetchval(_RECORDS["next_version"], tenant, name)
        await connection.fetchval(
            _STORE["put"], tenant, name, version, "webhook-signing", "x-webhook", _SEALED, "0" * 16
        )
        await connection.fetch(_RECORDS["get"], [tenant], [name], [str(version)], [ref])
        await connection.execute(
            _POINTER["move"], tenant, endpoint, ref, None, None, None, None, 1, _MAC, "1", "db", _IS_OTHER,
        )  # fmt: skip
        [head] = await connection.fetch(_AUDIT["lock_head"], tenant, _ORIGIN)
        await connection.execute(
            _AUDIT["add"], tenant, head["sequence"] + 1, _AT, "bench/bench", "secret.migrated", f"endpoint:{endpoint}",
            _FACTS % 0, _FACTS % 1, None, head["mac"], _MAC, "1", _ORIGIN,
        )  # fmt: skip


def _resident_mb() -> float:
    """Return the largest memory of this process so far, PostgreSQL not counted."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
    return most / (1 << 20) if sys.platform == "darwin" else most / (1 << 10)


def shown(found: Found) -> str:
    """Return the figures as a table."""
    before, after = found.baseline_rows_per_second
    rows = (
        ("rows, tenants, side by side", f"{found.rows}, {found.tenants}, {found.lanes}"),
        ("migrated, each row in a transaction", f"{found.seconds:.1f} s, {found.rows_per_second:.0f} rows/s"),
        ("baseline: the same statements, before and after", f"{before:.0f} and {after:.0f} rows/s"),
        ("ratio", f"{found.ratio:.2f}"),
        (f"memory at row {EARLY}, and at the end", f"{found.early_mb:.1f} and {found.end_mb:.1f} MB"),
    )
    return table(("", "measured"), rows)


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
    print(json.dumps(asdict(found) | {"missed": found.missed}) if asked.json else shown(found))
    for line in found.missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if found.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
