"""Opens every part a worker runs on, checks that they fit together, and closes them in reverse."""

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeAlias

import asyncpg

from hookseal.config.settings import Environment, Settings
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.ports import Parts, Transport
from hookseal.ground.clock import Clock
from hookseal.ground.counted import counted
from hookseal.ground.errors import ConfigError
from hookseal.ground.pointer import Pointer
from hookseal.ground.version import VERSION
from hookseal.operations import sending
from hookseal.queue.bell import Bell, bell
from hookseal.queue.outage import redis_translated
from hookseal.schema import revision, strangers
from hookseal.schema.connect import connect, connection_pool
from hookseal.schema.database import OUTAGES
from hookseal.schema.opening import opening
from hookseal.secrets import active_key, migration
from hookseal.secrets.boot import Unlocked, fitting, unlock
from hookseal.secrets.database import transaction
from hookseal.secrets.errors import SecretError, SecretRolledBack
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.ref import Provider
from hookseal.secrets.service import Report
from hookseal.worker.denials import Denials
from hookseal.worker.findings import Findings
from hookseal.worker.heartbeat import Heartbeat, Presence
from hookseal.worker.ledger import PersistentLedger
from hookseal.worker.lost_claims import LostClaims
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.pause import at_most

CONNECT_SECONDS = 3.0  # a start against a dead dependency ends within five seconds
_CLOSE_SECONDS = 1.0
_CONNECTIONS = 10
_PROBING_CONNECTIONS = 2
_NAME = "hookseal-worker"

_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a worker runs on. `probing` is a small pool for the probes alone: under load they wait for nobody."""

    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    probing: "asyncpg.Pool[asyncpg.Record]"
    bell: Bell
    ledger: PostgresLedger
    lost_claims: LostClaims
    findings: Findings
    denials: Denials
    keyring: KeyRing | None
    unlocked: Unlocked
    heartbeat: Heartbeat
    meter: WorkerMeter
    parts: Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Means:
    """The time of a worker, and what it tells with."""

    clock: Clock
    meter: WorkerMeter
    log: Any


@asynccontextmanager
async def opened(settings: Settings, clock: Clock, log: Any) -> AsyncIterator[Resources]:
    """Give open, checked resources for the length of the block.

    Raises `Unavailable`, within five seconds, and `ConfigError` if schema, keys or time-outs do not fit, or, in
    production, while an endpoint has plaintext that is not migrated, and `Refused` while a stranger may add to the
    schema.
    """
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{random.SystemRandom().getrandbits(32):08x}"
    async with _connections(settings) as (pool, probing, ringing):
        await _require_schema(settings, pool, log)
        ring = settings.secrets.keyring
        unlocked = await _unlocked(settings, pool, ring, clock=clock, log=log)
        means = _Means(clock=clock, meter=(meter := WorkerMeter()), log=log.bind(worker_id=worker_id))
        findings = Findings(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
        denials = Denials(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
        unlocked.service.report_to(_reporting(findings, denials))
        ledger = PostgresLedger(pool, worker=worker_id, lease_seconds=settings.worker.lease_seconds)
        lost_claims = LostClaims(ledger, lease_seconds=settings.worker.lease_seconds, clock=clock, log=log)
        heartbeat = Heartbeat(pool, _presence(settings, worker_id, ring), clock=clock, log=log)
        async with heartbeat.present(), sending.transport(settings.egress, clock) as transport:
            # Whoever adds an endpoint, or changes master keys, from now on sees that we are there, and what we lack.
            await _require_time(settings, ledger)
            if ring is not None:
                await _require_keys(pool, ring)
            persistent = _persistent(settings, ledger, lost_claims, clock)
            yield Resources(
                worker_id=worker_id,
                pool=pool,
                probing=probing,
                bell=ringing,
                ledger=ledger,
                lost_claims=lost_claims,
                findings=findings,
                denials=denials,
                keyring=ring,
                unlocked=unlocked,
                heartbeat=heartbeat,
                meter=meter,
                parts=_parts(settings, transport, unlocked, ledger=persistent, means=means),
            )


def _parts(
    settings: Settings, transport: Transport, unlocked: Unlocked, *, ledger: PersistentLedger, means: _Means
) -> Parts:
    return Parts(
        ledger=ledger,
        transport=transport,
        signers=unlocked.service,
        clock=means.clock,
        jitter=random.SystemRandom().random,
        allow_http=settings.egress.allow_http,
        user_agent=f"hookseal/{VERSION}",
        longest_seconds=settings.worker.longest_request_seconds,
        meter=means.meter,
        log=means.log,
    )


def _reporting(findings: Findings, denials: Denials) -> Report:
    def report(pointer: Pointer, error: SecretError) -> None:
        denials.add(pointer, error)
        if isinstance(error, SecretRolledBack):
            findings.add(pointer, str(error))

    return report


async def _unlocked(settings: Settings, pool: _Pool, ring: KeyRing | None, *, clock: Clock, log: Any) -> Unlocked:
    if settings.secrets.provider is Provider.DEV:
        log.warning("secrets.in_memory", reason="SECRETS_PROVIDER is dev: every secret is lost when this process ends")
    return await unlock(
        pool,
        settings.secrets.provider,
        ring,
        cache=settings.secrets.cache,
        clock=clock,
        trust=sending.trust(settings.egress),
    )


async def _require_keys(pool: _Pool, ring: KeyRing) -> None:
    """Return only if the ring fits for whoever moves a key from now on: those who could not see us yet have ended."""
    async with transaction(pool) as connection:
        await active_key.settled(connection)
        await fitting(connection, ring)


def _persistent(settings: Settings, ledger: PostgresLedger, lost: LostClaims, clock: Clock) -> PersistentLedger:
    return PersistentLedger(
        ledger,
        seconds=settings.worker.lease_seconds / 2,
        clock=clock,
        new_token=lambda: str(uuid.uuid4()),
        lost=lost.add,
    )


async def listener(settings: Settings) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection that is in no pool. Raises what asyncpg raises."""
    return await connect(
        settings.database.url,
        application_name=settings.database.application_name or _NAME,
        timeout=CONNECT_SECONDS,
        command_timeout=CONNECT_SECONDS,
    )


@asynccontextmanager
async def _connections(settings: Settings) -> AsyncIterator[tuple[_Pool, _Pool, Bell]]:
    async with (
        _pool(settings, size=_CONNECTIONS) as pool,
        _pool(settings, size=_PROBING_CONNECTIONS) as probing,
        _bell(settings) as ringing,
    ):
        yield pool, probing, ringing


def _presence(settings: Settings, worker_id: str, ring: KeyRing | None) -> Presence:
    return Presence(
        worker_id=worker_id,
        version=VERSION,
        drain_seconds=settings.worker.drain_seconds,
        lease_seconds=settings.worker.lease_seconds,
        key_ids=() if ring is None else tuple(key.key_id for key in ring.keys),
    )


@asynccontextmanager
async def _pool(settings: Settings, *, size: int) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    with opening(address=settings.database.address, variable=settings.database.variable):
        pool = await connection_pool(
            settings.database.url,
            size=size,
            application_name=settings.database.application_name or _NAME,
            timeout=CONNECT_SECONDS,
            command_timeout=CONNECT_SECONDS,
        )
    try:
        yield pool
    finally:
        await _closed(pool)


async def _closed(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Close every connection, by force if one is still held by what PostgreSQL does not answer."""
    try:
        await at_most(_CLOSE_SECONDS, pool.close())
    except (TimeoutError, *OUTAGES):
        pool.terminate()


@asynccontextmanager
async def _bell(settings: Settings) -> AsyncIterator[Bell]:
    ringing = bell(settings.redis.url, settings.worker.queue)
    try:
        await _require_answer(ringing, settings)
        yield ringing
    finally:
        await ringing.close()


async def _require_answer(ringing: Bell, settings: Settings) -> None:
    with redis_translated(address=settings.redis.address, variable=settings.redis.variable):
        async with asyncio.timeout(CONNECT_SECONDS):
            await ringing.redis.ping()


async def _require_schema(settings: Settings, pool: _Pool, log: Any) -> None:
    await revision.require(pool)
    await strangers.refuse(pool)
    await _require_migrated(settings, pool, log)


async def _require_migrated(settings: Settings, pool: _Pool, log: Any) -> None:
    """Return only if no endpoint waits for its plaintext to be sealed; outside production that is only told."""
    count = await migration.unmigrated(pool)
    if not count:
        return
    problem = (
        f"{counted(count, 'endpoint has', 'endpoints have')} a plaintext secret of an older system and none that is "
        "sealed, with which alone can be signed: run `hookseal migrate-secrets` (docs/migration.md)"
    )
    if settings.environment is Environment.PRODUCTION:
        raise ConfigError(problem)
    log.warning("secrets.unmigrated", endpoints=count, reason=problem)


async def _require_time(settings: Settings, ledger: PostgresLedger) -> None:
    longest = await ledger.longest_timeout_ms()
    lacking = longest / 1000 - settings.worker.longest_request_seconds
    if lacking > 0:
        raise ConfigError(
            f"an enabled endpoint has a time-out of {longest} ms: HOOKSEAL_DRAIN_SECONDS must be at least "
            f"{settings.worker.drain_seconds + ceil(lacking)}, so that a request in flight can end before a stop does"
        )
