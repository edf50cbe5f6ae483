"""`make bench-keys`: what it costs to seal every record under another master key, while a worker delivers.

The rounds re-wrap the same records back and forth between two master keys. The records are secrets of endpoints that do
not exist, each identified by its number.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple

import aiohttp
import uvloop

from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.errors import SecretError
from hookseal.ground.ids import TenantId
from hookseal.operations.key.keys import finish_rewrap, promote_key, rewrap_batch
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Connection, Pool
from hookseal.postgres.statements import statements
from hookseal.queue.bell import Bell, bell
from hookseal.secrets.core.envelope import HEAD_BYTES, open_sealed, seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext
from hookseal.secrets.key.rewrap import BATCH, BEGINNING, Cursor
from tools.governance.evidence import Figure, figure, misses, place, record_of, write
from tools.harness import (
    Site,
    add_endpoints,
    all_recorded,
    endpoint,
    environment_of,
    hookseal_workers,
    operator_of,
    site,
)
from tools.records import ROOT, table

PROVES: Final = "SEC-05"
_ENDPOINTS: Final = 32
_TENANT: Final = TenantId("steady")
_SQL: Final = statements("hookseal.secrets.key", "rewrap.sql")
_COLUMNS: Final = ("tenant_id", "name", "version", "provider", "purpose", "scheme", "sealed", "wrapped_by")
_PREFIX: Final = "webhook-endpoint-01890a5d-ac96-774b-bcce-"
_SEALED: Final = "SELECT tenant_id, name, sealed FROM hookseal.secret_records WHERE starts_with(name, $1)"
_COUNT: Final = "SELECT count(*) FROM hookseal.secret_records WHERE key_id = $1"
_FAILURES: Final = re.compile(r"^hookseal_secret_failures_total\S* (\S+)$", re.MULTILINE)
_NOT_AT_ONCE: Final = """
SELECT count(*) FROM hookseal.deliveries AS d
WHERE d.state <> 'delivered' OR d.attempts <> 1 OR d.waiting_for IS NOT NULL
"""
_WHILE: Final = """
SELECT count(*) AS deliveries, percentile_cont(0.5) WITHIN GROUP (ORDER BY took.ms) AS p50_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY took.ms) AS p99_ms
  FROM hookseal.events AS e
  JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id
  JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id
 CROSS JOIN LATERAL
       (SELECT 1000 * extract(epoch FROM a.started_at - e.occurred_at)::float8 + a.duration_ms AS ms) AS took
 WHERE e.occurred_at BETWEEN $1 AND $2
"""


class Load(NamedTuple):
    """The number of records and of rounds, and the deliveries meanwhile."""

    records: int
    rounds: int
    deliveries_per_second: float
    quiet_seconds: float


class Period(NamedTuple):
    """A period, by the clock of the database, and how long it took by ours."""

    begin: datetime
    end: datetime
    took: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The deliveries that were published in a period: how many a second, and how long each took."""

    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One round: seconds of a re-wrap and of its baseline, and the deliveries during it and during a quiet time."""

    seconds: float
    baseline_seconds: float
    meanwhile: Stream
    quiet: Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a run. `left` counts records under the old key, `unopened` those that no longer decrypt."""

    laps: tuple[Lap, ...]
    failures: int
    left: int
    unopened: int


async def measured(load: Load) -> Found:
    """Return the result of that many rounds; no process and no file is left."""
    async with site(next_key=True) as here:
        ring, url = here.installation.keyring, here.installation.database_url
        environment = environment_of(here.installation, here.receiver)
        environment["SECRETS_CACHE_TTL_SECONDS"] = "0"  # so every delivery opens its secret, which is re-wrapped
        async with here.observer(url) as connection, connection_pool(url, size=2) as pool:
            await subscribe(connection, here)
            await keep(connection, ring, load.records)
            ringing, periods = bell(here.installation.redis_url), []
            async with hookseal_workers(environment, here.worker_log) as running:
                async with _streaming(pool, ringing, load.deliveries_per_second):
                    for number in range(load.rounds + 1):
                        print(
                            f"  round {number} of {load.rounds} ..." if number else "  warming up ...", file=sys.stderr
                        )
                        operator = await operator_of(connection, ring)
                        periods.append(await _lap(operator, *_turned(ring, number), load))
                await all_recorded(connection)
                log = here.worker_log.read_text(encoding="utf-8")
                failures = await _failures(connection, f"{running.health_url}/metrics", log)
            await ringing.close()
            old, new = _turned(ring, load.rounds)
            return Found(
                laps=tuple([await _measured(connection, *one) for one in periods[1:]]),
                failures=failures,
                left=await under(connection, old.key_id),
                unopened=load.records - await opened(connection, KeyRing(new)),
            )


def _turned(ring: KeyRing, number: int) -> tuple[MasterKey, MasterKey]:
    """Return the keys from and to which that round re-wraps, alternating."""
    first, second = ring.keys
    return (second, first) if number % 2 else (first, second)


async def _lap(operator: Operator, old: MasterKey, new: MasterKey, load: Load) -> tuple[Period, Period, Period]:
    await promote_key(operator, new.key_id)
    connection = operator.connection
    await connection.execute("VACUUM ANALYZE hookseal.secret_records")
    bare = await _timed(connection, lambda: write_alone(connection, old.key_id, new.key_id), load.records)
    await connection.execute("VACUUM ANALYZE hookseal.secret_records")
    quiet = await _timed(connection, lambda: asyncio.sleep(load.quiet_seconds, load.records), load.records)
    return bare, quiet, await _timed(connection, lambda: rewrap(operator, old.key_id), load.records)


async def _timed(connection: Connection, lap: Callable[[], Awaitable[int]], least: int) -> Period:
    begin, started = await connection.fetchval("SELECT clock_timestamp()"), perf_counter()
    rows = await lap()
    took = perf_counter() - started
    if rows < least:
        raise RuntimeError(f"{rows} of {least} records were touched")
    return Period(begin, await connection.fetchval("SELECT clock_timestamp()"), took)


async def _measured(connection: Connection, bare: Period, quiet: Period, rewrapping: Period) -> Lap:
    return Lap(
        seconds=rewrapping.took,
        baseline_seconds=bare.took,
        meanwhile=await _stream(connection, rewrapping),
        quiet=await _stream(connection, quiet),
    )


async def rewrap(operator: Operator, key_id: str) -> int:
    """Re-wrap every record of that key under the active one, as `hookseal key rewrap` does, and return their number.

    Raises `RuntimeError` if one is left.
    """
    moved = 0
    for wait in (False, True):
        after: Cursor | None = BEGINNING
        while after is not None:
            batch = await rewrap_batch(operator, key_id, after, wait=wait)
            if batch is None:
                break
            moved, after = moved + batch.moved, batch.last
    left = (await finish_rewrap(operator, key_id)).records
    if left:
        raise RuntimeError(f"records left under the old key: {left}")
    return moved


async def write_alone(connection: Connection, key_id: str, to: str) -> int:
    """Read and write the same rows by the same statements, with random heads, and return their number.

    Each batch is rolled back: PostgreSQL has done all the work, and the records are unchanged.
    """
    written = 0
    after: Cursor | None = BEGINNING
    while after is not None:
        transaction = connection.transaction()
        await transaction.start()
        try:
            rows = await connection.fetch(_SQL["skip_locked"], key_id, *after, BATCH, HEAD_BYTES)
            columns = [[row[name] for row in rows] for name in ("tenant_id", "name", "version", "head")]
            heads = [os.urandom(HEAD_BYTES) for _ in rows]
            await connection.execute(_SQL["write"], to, *columns, heads, HEAD_BYTES)
        finally:
            await transaction.rollback()
        written += len(rows)
        last = rows[-1] if len(rows) == BATCH else None
        after = None if last is None else (last["tenant_id"], last["name"], last["version"])
    return written


async def keep(connection: Connection, ring: KeyRing, number: int) -> None:
    """Store that many records under the active key of the ring."""
    rows = []
    for count in range(number):
        context = _context(f"bench-{count % 100:02}", f"{_PREFIX}{count:012x}")
        named = (context.tenant, context.name, context.version, "db", context.purpose.value, "standard")
        rows.append((*named, seal(ring, _secret(count), context), [ring.sealing.key_id]))
    await connection.copy_records_to_table(
        "secret_records", schema_name="hookseal", columns=list(_COLUMNS), records=rows
    )
    await connection.execute("ANALYZE hookseal.secret_records")


async def under(connection: Connection, key_id: str) -> int:
    """Return the number of records under that key."""
    return int(await connection.fetchval(_COUNT, key_id))


async def opened(connection: Connection, ring: KeyRing) -> int:
    """Return the number of records that decrypt to their original secret."""
    return sum([_opens(ring, *row) for row in await connection.fetch(_SEALED, _PREFIX)])


def _opens(ring: KeyRing, tenant: str, name: str, sealed: bytes) -> bool:
    try:
        return open_sealed(ring, sealed, _context(tenant, name)) == _secret(int(name.removeprefix(_PREFIX), 16))
    except SecretError:
        return False


def _context(tenant: str, name: str) -> SecretContext:
    return SecretContext(tenant=TenantId(tenant), name=name, version=1, purpose=Purpose.WEBHOOK_SIGNING)


def _secret(number: int) -> SecretMaterial:
    return SecretMaterial(b"whsec_" + hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:44].encode())


# A steady stream of deliveries by a real worker.


async def subscribe(connection: Connection, here: Site) -> None:
    """Add the endpoints, each for its own event type."""
    url = here.receiver.url()
    new = (endpoint(_TENANT, f"{url}{number}", f"steady.n{number}") for number in range(_ENDPOINTS))
    await add_endpoints(connection, here.installation.keyring, new)


@asynccontextmanager
async def _streaming(pool: Pool, ringing: Bell, per_second: float) -> AsyncIterator[None]:
    """Publish that many events a second for the length of the block, for one endpoint after the other."""
    over = asyncio.Event()

    async def flow() -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while not over.is_set():
            event = NewEvent(tenant_id=_TENANT, event_type=f"steady.n{number % _ENDPOINTS}")
            await ringing.ring((await publish_json(pool, event, "{}")).deliveries)
            number += 1
            due += 1 / per_second
            await asyncio.sleep(max(0.0, due - loop.time()))

    publishing = asyncio.create_task(flow())
    try:
        yield
    finally:
        over.set()
        await publishing


async def _stream(connection: Connection, of: Period) -> Stream:
    """Return the results of the events published in that period; all zero if there were none."""
    [row] = await connection.fetch(_WHILE, of.begin, of.end)
    rate = row["deliveries"] / (of.end - of.begin).total_seconds()
    return Stream(
        per_second=round(rate, 1), p50_ms=round(row["p50_ms"] or 0.0, 2), p99_ms=round(row["p99_ms"] or 0.0, 2)
    )


async def _failures(connection: Connection, metrics_url: str, log: str) -> int:
    """Return how often a secret was not available: by the worker's metrics, its log, and failed or held deliveries."""
    async with aiohttp.ClientSession() as session, session.get(metrics_url) as response:
        refused = sum(float(value) for value in _FAILURES.findall(await response.text()))
    return int(refused) + log.count('"delivery.waiting"') + int(await connection.fetchval(_NOT_AT_ONCE))


def figures_of(laps: Sequence[Lap], records: int) -> dict[str, Figure]:
    """Return the microseconds a record with those of its rows alone, and a delivery with those of a quiet time."""
    each = 1e6 / records
    return {
        "rewrap": figure([lap.seconds * each for lap in laps], [lap.baseline_seconds * each for lap in laps]),
        "delivery": figure([lap.meanwhile.p50_ms * 1e3 for lap in laps], [lap.quiet.p50_ms * 1e3 for lap in laps]),
    }


def missed(found: Found, figures: dict[str, Figure]) -> list[str]:
    """Return what the run did not meet: a bound, a delivery, or a record."""
    wanted = (
        (found.failures, "secrets not had, or deliveries not made at once"),
        (found.left, "records left under the old key"),
        (found.unopened, "records that do not open to what they were"),
    )
    return [*misses(PROVES, figures), *(f"{what}: {number}" for number, what in wanted if number)]


def shown(found: Found, figures: dict[str, Figure]) -> str:
    """Return the figures as two tables."""
    row, rates = figures["rewrap"], ("per_second", "p50_ms", "p99_ms")
    streams = {
        "while re-wrapping": [lap.meanwhile for lap in found.laps],
        "otherwise": [lap.quiet for lap in found.laps],
    }
    rewrapped = (
        ("re-wrapped", f"{1e6 / row.us:,.0f}", f"{row.us:.1f}"),
        ("the same UPDATE, random heads, no cryptography", f"{1e6 / row.baseline_us:,.0f}", f"{row.baseline_us:.1f}"),
    )
    delivered = [
        (name, *(f"{median(getattr(each, rate) for each in all_):.1f}" for rate in rates))
        for name, all_ in streams.items()
    ]
    failed = f"failed {found.failures}, left under the old key {found.left}, not to be opened {found.unopened}"
    return "\n\n".join(
        (
            table(("", "rows/s", "us a row"), rewrapped),
            table(("", "deliveries/s", "p50 ms", "p99 ms"), delivered),
            failed,
        )
    )


def main(arguments: list[str]) -> int:
    """Run `make bench-keys`; return 0 if every bound is met and nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-keys", description=__doc__)
    parser.add_argument("--records", type=int, default=50_000, help="records to re-wrap (50000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, after a warm-up round (5)")
    parser.add_argument("--deliveries", type=float, default=50.0, help="deliveries a second during the re-wraps (50)")
    parser.add_argument("--quiet-seconds", type=float, default=3.0, help="seconds of each round without a re-wrap (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--record", action="store_true", help=f"write the record {place(PROVES)}")
    asked = parser.parse_args(arguments)
    found = uvloop.run(measured(Load(asked.records, asked.rounds, asked.deliveries, asked.quiet_seconds)))
    figures = figures_of(found.laps, asked.records)
    problems = missed(found, figures)
    if asked.record and not (found.failures or found.left or found.unopened):
        write(ROOT, record_of(ROOT, PROVES, figures))
    print(json.dumps(asdict(found) | {"missed": problems}) if asked.json else shown(found, figures))
    for line in problems:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
