"""The rounds: the same records back and forth between two master keys, while a worker delivers."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from hookseal.demo.installation import install, with_next_key
from hookseal.demo.process import worker_process
from hookseal.embedded.stack import Stack, temporary_stack
from hookseal.operations.key.keys import promote_key
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Connection, Pool
from hookseal.queue.bell import Bell, bell
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider
from tools.bench.receiver import receiving
from tools.bench_keys import laps, records, steady
from tools.bench_keys.steady import Period, Stream

CONNECTIONS: Final = 4

_Timed = tuple[float, float, Period, Period]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The number of records and of rounds, and the deliveries meanwhile."""

    records: int
    rounds: int
    deliveries_per_second: float
    quiet_seconds: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An installation with two master keys, the first one active, a worker that has both, and a receiver."""

    pool: Pool
    ringing: Bell
    ring: KeyRing
    keys: tuple[MasterKey, MasterKey]
    metrics_url: str
    log: Callable[[], str]

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """Provide an operator with both keys, in the order of the table of keys."""
        async with self.pool.acquire() as connection:
            yield Operator(
                connection=connection, unlocked=await unlock(connection, Provider.DB, self.ring), who="bench"
            )


async def measured(load: Load) -> Found:
    """Return the result of that many rounds; no process and no file is left."""
    async with temporary_stack() as stack, _scene(stack, load) as scene:
        found = []
        async with steady.streaming(scene.pool, scene.ringing, load.deliveries_per_second):
            for number in range(load.rounds + 1):
                print(f"  round {number} of {load.rounds} ..." if number else "  warming up ...", file=sys.stderr)
                found.append(await _lap(scene, number, load))
        await steady.settled(scene.pool)
        old, new = _turned(scene.keys, load.rounds)
        async with scene.pool.acquire() as connection:
            return Found(
                laps=tuple([await _measured(scene.pool, one) for one in found[1:]]),
                failures=await steady.failures(scene.pool, scene.metrics_url, scene.log()),
                left=await records.under(connection, old.key_id),
                unopened=load.records - await records.opened(connection, KeyRing(new)),
            )


def _turned(keys: tuple[MasterKey, MasterKey], number: int) -> tuple[MasterKey, MasterKey]:
    """Return the keys from and to which that round re-wraps, alternating."""
    first, second = keys
    return (second, first) if number % 2 else (first, second)


async def _lap(scene: Scene, number: int, load: Load) -> _Timed:
    old, new = _turned(scene.keys, number)
    async with scene.operator() as operator:
        await promote_key(operator, new.key_id)
        connection = operator.connection
        await connection.execute("VACUUM ANALYZE hookseal.secret_records")
        _, bare = await _timed(connection, lambda: laps.write_alone(connection, old.key_id, new.key_id), load.records)
        await connection.execute("VACUUM ANALYZE hookseal.secret_records")
        quiet, _ = await _timed(connection, lambda: asyncio.sleep(load.quiet_seconds, load.records), load.records)
        meanwhile, took = await _timed(connection, lambda: laps.rewrap(operator, old.key_id), load.records)
    return took, bare, meanwhile, quiet


async def _timed(connection: Connection, lap: Callable[[], Awaitable[int]], least: int) -> tuple[Period, float]:
    begin = await connection.fetchval("SELECT clock_timestamp()")
    started = perf_counter()
    rows = await lap()
    took = perf_counter() - started
    if rows < least:
        raise RuntimeError(f"{rows} of {least} records were touched")
    return Period(begin=begin, end=await connection.fetchval("SELECT clock_timestamp()")), took


async def _measured(pool: Pool, timed: _Timed) -> Lap:
    took, bare, meanwhile, quiet = timed
    return Lap(
        seconds=took,
        baseline_seconds=bare,
        meanwhile=await steady.stream(pool, meanwhile),
        quiet=await steady.stream(pool, quiet),
    )


@asynccontextmanager
async def _scene(stack: Stack, load: Load) -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="hookseal-bench-") as name:
        folder = Path(name)
        installation = await with_next_key(await install(stack, folder), folder)
        ring, log = installation.keyring, folder / "worker.log"
        first, second = ring.keys
        environment = installation.environment(os.environ) | {
            "SECRETS_CACHE_TTL_SECONDS": "0",  # so every delivery opens its secret in the table that is re-wrapped
        }
        ringing = bell(installation.redis_url)
        async with (
            receiving() as receiver,
            connection_pool(installation.database_url, size=CONNECTIONS) as pool,
        ):
            async with pool.acquire() as one:
                unlocked = await unlock(one, Provider.DB, ring)
                await steady.subscribe(Operator(connection=one, unlocked=unlocked, who="bench"), receiver.url())
                await records.keep(one, ring, load.records)
            async with worker_process(environment, log) as worker:
                yield Scene(
                    pool=pool,
                    ringing=ringing,
                    ring=ring,
                    keys=(first, second),
                    metrics_url=f"{worker.ready['health_url']}/metrics",
                    log=lambda: log.read_text(encoding="utf-8"),
                )
        await ringing.close()
