"""Opens all resources of a worker, checks that they fit together, and closes them in reverse order."""

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import asyncpg

from hookseal.config.settings import Environment, Settings
from hookseal.dispatcher.core.endpoint_health import AttemptCounts, FailingEndpoints
from hookseal.dispatcher.core.ports import Parts, Transport
from hookseal.dispatcher.store.ledger import AuditDisabled, PostgresLedger
from hookseal.errors import ConfigError, SecretError, StaleRow, Unavailable, with_advice
from hookseal.ground.batches import MAX_RUNNING
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId, plural
from hookseal.ground.pointer import Pointer
from hookseal.ground.version import VERSION
from hookseal.operations import sending
from hookseal.operations.endpoint.endpoints import audit_gone
from hookseal.operations.operator import Operator
from hookseal.operations.unlocking import outside
from hookseal.postgres import opening
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Connection, connected
from hookseal.postgres.schema import fingerprint, revision, roles
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import translate_redis_errors
from hookseal.secrets import migrate_secrets
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.resolve.service import Report
from hookseal.worker import unlocking
from hookseal.worker.audit_reports import DenialReports, StaleReports
from hookseal.worker.claims import KnownClaims, LostClaims
from hookseal.worker.heartbeat import Heartbeat, Presence
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.recorder import Circuit, PersistentLedger
from hookseal.worker.tracing import traced, tracer_provider
from hookseal.worker.unlocking import warm_up_batching

CONNECT_SECONDS = 3.0  # so that a start without PostgreSQL or Redis fails within five seconds
_CLOSE_SECONDS = 1.0
_CONNECTIONS = 7
_BATCHING_CONNECTIONS = 1 + MAX_RUNNING  # one claim, and the batches of outcomes that may run at once
_PROBING_CONNECTIONS = 2
CONNECTIONS = _CONNECTIONS + _BATCHING_CONNECTIONS + _PROBING_CONNECTIONS + 1  # of a process; one listens, if it may
_NAME = "hookseal-worker"

_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of a worker.

    `batching` is a small pool just for batches of claims and outcomes: PostgreSQL needs less CPU if statements use the
    same few connections again and again. `probing` is one just for the probes, so that they do not wait under load.
    """

    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    batching: "asyncpg.Pool[asyncpg.Record]"
    probing: "asyncpg.Pool[asyncpg.Record]"
    bell: Bell
    ledger: PostgresLedger
    persistent: PersistentLedger
    circuit: Circuit
    lost_claims: LostClaims
    stale: StaleReports
    denials: DenialReports
    keyring: KeyRing | None
    unlocked: Unlocked
    heartbeat: Heartbeat
    meter: WorkerMeter
    failing: FailingEndpoints
    counts: AttemptCounts
    parts: Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruments:
    """The clock, the circuit, the metrics, the failing endpoints, the counts of attempts and the log of a worker."""

    clock: Clock
    circuit: Circuit
    meter: WorkerMeter
    failing: FailingEndpoints
    counts: AttemptCounts
    log: Any
    success_log: Any


@asynccontextmanager
async def opened(settings: Settings, clock: Clock, log: Any) -> AsyncIterator[Resources]:
    """Open and check all resources; they are closed when the block ends.

    Raises `Unavailable` within five seconds. Raises `ConfigError` if schema, keys or time-outs do not fit or, in
    production, if an endpoint has a plaintext secret that is not migrated. Raises `Refused` if an untrusted role may
    create objects in the schema.
    """
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{random.SystemRandom().getrandbits(32):08x}"
    async with _connections(settings) as (pool, batching, probing, ringing, stores):
        await _require_schema(settings, pool, log)
        unlocked = await unlocking.unlocked(settings, pool, stores, clock=clock, log=log)
        instruments = _instruments(worker_id, clock, log)
        stale, denials = _reports(pool, unlocked, worker_id, instruments=instruments, log=log)
        ledger = PostgresLedger(
            pool,
            worker=worker_id,
            lease_seconds=settings.worker.lease_seconds,
            batching=batching,
            audit=_auditing(unlocked, worker_id),
        )
        lost_claims = LostClaims(ledger, lease_seconds=settings.worker.lease_seconds, clock=clock, log=log)
        presence = _presence(settings, worker_id, unlocked)
        heartbeat = Heartbeat(probing, presence, circuit=instruments.circuit, clock=clock, log=log)
        async with (
            tracer_provider(settings, service="hookseal-worker", instance=worker_id, log=instruments.log) as provider,
            heartbeat.present(),
            sending.transport(settings.egress, clock) as transport,
        ):
            # From now on a command that adds an endpoint, changes master keys or upgrades the schema sees this worker.
            await revision.require(pool)  # an upgrade may have ended before
            await require_time(settings, ledger)
            await _warm_up(batching)
            await unlocking.require_keys(pool, unlocked.keyring)
            claims = KnownClaims(ledger, new_token=lambda: str(uuid.uuid4()), lost=lost_claims.add)
            persistent = PersistentLedger(
                ledger,
                clock=clock,
                circuit=instruments.circuit,
                stored=instruments.counts.add,
                measured=instruments.meter.recorded,
            )
            parts = _parts(settings, transport, unlocked, claims=claims, ledger=persistent, instruments=instruments)
            ringing.answered = instruments.meter.redis_answered
            yield Resources(
                worker_id=worker_id,
                pool=pool,
                batching=batching,
                probing=probing,
                bell=ringing,
                ledger=ledger,
                persistent=persistent,
                circuit=instruments.circuit,
                lost_claims=lost_claims,
                stale=stale,
                denials=denials,
                keyring=unlocked.keyring,
                unlocked=unlocked,
                heartbeat=heartbeat,
                meter=instruments.meter,
                failing=instruments.failing,
                counts=instruments.counts,
                parts=traced(parts, provider),
            )


def _instruments(worker_id: str, clock: Clock, log: Any) -> _Instruments:
    return _Instruments(
        clock=clock,
        circuit=Circuit(clock),
        meter=WorkerMeter(),
        failing=FailingEndpoints(clock),
        counts=AttemptCounts(),
        log=log.bind(worker_id=worker_id),
        success_log=log.bind(),
    )


def _parts(
    settings: Settings,
    transport: Transport,
    unlocked: Unlocked,
    *,
    claims: KnownClaims,
    ledger: PersistentLedger,
    instruments: _Instruments,
) -> Parts:
    return Parts(
        claims=claims,
        ledger=ledger,
        transport=transport,
        signers=unlocked.service,
        clock=instruments.clock,
        jitter=random.Random().random,  # noqa: S311 -- it spreads retries, and nobody gains from guessing it
        allow_http=settings.egress.allow_http,
        user_agent=f"hookseal/{VERSION}",
        longest_seconds=settings.worker.longest_request_seconds,
        may_begin=lambda: not instruments.circuit.is_open,
        successes_per_line=settings.log.successes_per_line,
        meter=instruments.meter,
        health=instruments.failing,
        log=instruments.log,
        success_log=instruments.success_log,
    )


def _reports(
    pool: _Pool, unlocked: Unlocked, worker_id: str, *, instruments: _Instruments, log: Any
) -> tuple[StaleReports, DenialReports]:
    clock, meter = instruments.clock, instruments.meter
    stale = StaleReports(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
    denials = DenialReports(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
    unlocked.service.report_to(_reporting(stale, denials))
    return stale, denials


def _reporting(stale: StaleReports, denials: DenialReports) -> Report:
    def report(pointer: Pointer, error: SecretError) -> None:
        denials.add(pointer, error)
        if isinstance(error, StaleRow):
            stale.add(pointer, with_advice(error))

    return report


def _auditing(unlocked: Unlocked, worker_id: str) -> AuditDisabled:
    async def audit(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
        operator = Operator(connection=connection, unlocked=unlocked, who=f"worker/{worker_id}")
        await audit_gone(operator, tenant, endpoint_id, reason)

    return audit


async def listener(settings: Settings) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection outside the pools, directly to PostgreSQL. Raises `Unavailable` if that fails."""
    database = settings.listen_database or settings.database
    try:
        return await opening.opened(database, name=_NAME, seconds=CONNECT_SECONDS, command_timeout=CONNECT_SECONDS)
    except ConfigError as error:  # the worker also runs without it
        problem = with_advice(error)
    raise Unavailable(problem)


@asynccontextmanager
async def _connections(settings: Settings) -> AsyncIterator[tuple[_Pool, _Pool, _Pool, Bell, Outside]]:
    async with (
        _pool(settings, size=_CONNECTIONS) as pool,
        _pool(settings, size=_BATCHING_CONNECTIONS) as batching,
        _pool(settings, size=_PROBING_CONNECTIONS) as probing,
        _bell(settings) as ringing,
        outside(settings, partial(connected, pool)) as stores,
    ):
        yield pool, batching, probing, ringing, stores


def _presence(settings: Settings, worker_id: str, unlocked: Unlocked) -> Presence:
    ring = unlocked.keyring
    return Presence(
        worker_id=worker_id,
        version=VERSION,
        drain_seconds=settings.worker.drain_seconds,
        lease_seconds=settings.worker.lease_seconds,
        key_ids=() if ring is None else tuple(key.key_id for key in ring.keys),
        providers=sorted(unlocked.store.providers),
    )


def _pool(settings: Settings, *, size: int) -> AbstractAsyncContextManager[_Pool]:
    return opening.pool(
        settings.database,
        size=size,
        name=_NAME,
        seconds=CONNECT_SECONDS,
        close_seconds=_CLOSE_SECONDS,
        make=partial(connection_pool, plans_once=True),
    )


@asynccontextmanager
async def _bell(settings: Settings) -> AsyncIterator[Bell]:
    ringing = bell(settings.redis.current_url, settings.worker.queue)
    try:
        await _require_answer(ringing, settings)
        yield ringing
    finally:
        await ringing.close()


async def _require_answer(ringing: Bell, settings: Settings) -> None:
    with translate_redis_errors(address=settings.redis.address, variable=settings.redis.variable):
        async with asyncio.timeout(CONNECT_SECONDS):
            await ringing.redis.ping()


async def _require_schema(settings: Settings, pool: _Pool, log: Any) -> None:
    await revision.require(pool)
    await roles.refuse(pool)
    await fingerprint.require(pool)
    await _require_migrated(settings, pool, log)


async def _require_migrated(settings: Settings, pool: _Pool, log: Any) -> None:
    """Raise `ConfigError` if an endpoint has a plaintext secret only; outside production, just log that."""
    count = await migrate_secrets.count_unmigrated(pool)
    if not count:
        return
    problem = (
        f"{plural(count, 'endpoint has', 'endpoints have')} a plaintext secret of an older system and no sealed one, "
        "which signing needs: run `hookseal migrate-secrets` (docs/migration.md)"
    )
    if settings.environment is Environment.PRODUCTION:
        raise ConfigError(problem)
    log.warning("secrets.unmigrated", endpoints=count, reason=problem)


async def _warm_up(batching: _Pool) -> None:
    with suppress(Unavailable):  # if few connections are available, the first deliveries open theirs
        await warm_up_batching(batching)


async def require_time(settings: Settings, ledger: PostgresLedger) -> None:
    """Raise `ConfigError` if a request to an enabled endpoint may take longer than a stop waits for it."""
    longest = await ledger.longest_timeout_ms()
    missing = longest / 1000 - settings.worker.longest_request_seconds
    if missing > 0:
        raise ConfigError(
            f"an enabled endpoint has a time-out of {longest} ms: HOOKSEAL_DRAIN_SECONDS must be at least "
            f"{settings.worker.drain_seconds + ceil(missing)}, so that a request in flight can end before a stop does"
        )
