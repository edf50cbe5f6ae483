"""Opens every part a worker runs on, checks that they fit together, and closes them in reverse."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import asyncpg
from redis.exceptions import AuthenticationError, RedisError

from hookseal import __version__
from hookseal.config.settings import Settings
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.ports import Parts
from hookseal.dispatcher.transport import HttpTransport
from hookseal.ground.clock import Clock
from hookseal.ground.errors import ConfigError, Unavailable
from hookseal.queue.bell import Bell, bell
from hookseal.schema import revision
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.keyring import KeyRing
from hookseal.worker.ledger import PersistentLedger

CONNECT_SECONDS = 3.0  # a start against a dead dependency ends within five seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a worker runs on."""

    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    bell: Bell
    ledger: PostgresLedger
    unlocked: Unlocked
    parts: Parts


@asynccontextmanager
async def opened(settings: Settings, clock: Clock, log: Any) -> AsyncIterator[Resources]:
    """Give open, checked resources for the length of the block.

    Raises `Unavailable` naming the address that does not answer within five seconds, `ConfigError` if
    the schema, the keys or the time-outs do not fit.
    """
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{random.SystemRandom().getrandbits(32):08x}"
    async with _pool(settings) as pool, _bell(settings) as ringing:
        await _require_schema(pool)
        master_key = settings.secrets.master_key
        ring = None if master_key is None else KeyRing(master_key)
        unlocked = await unlock(pool, settings.secrets.provider, ring)
        ledger = PostgresLedger(pool, worker=worker_id, lease_seconds=settings.worker.lease_seconds)
        await _require_time(settings, ledger)
        async with HttpTransport(AddressRules(settings.egress.allow)) as transport:
            persistent = PersistentLedger(ledger, seconds=settings.worker.lease_seconds / 2, clock=clock)
            parts = Parts(
                ledger=persistent,
                transport=transport,
                signers=unlocked.service,
                clock=clock,
                jitter=random.SystemRandom().random,
                allow_http=settings.egress.allow_http,
                user_agent=f"hookseal/{__version__}",
                longest_seconds=settings.worker.longest_request_seconds,
                log=log.bind(worker_id=worker_id),
            )
            yield Resources(worker_id=worker_id, pool=pool, bell=ringing, ledger=ledger, unlocked=unlocked, parts=parts)


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    try:
        pool = await asyncpg.create_pool(
            settings.database.url, min_size=1, max_size=10, timeout=CONNECT_SECONDS, command_timeout=CONNECT_SECONDS
        )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise Unavailable(
            f"PostgreSQL at {settings.database.address} refuses the user, the password or the database "
            f"({type(error).__name__}): correct DATABASE_URL"
        ) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(
            f"PostgreSQL at {settings.database.address} does not answer ({type(error).__name__}): "
            "start it or correct DATABASE_URL"
        ) from None
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def _bell(settings: Settings) -> AsyncIterator[Bell]:
    ringing = bell(settings.redis.url, settings.worker.queue)
    try:
        await _require_answer(ringing, settings)
        yield ringing
    finally:
        await ringing.close()


async def _require_answer(ringing: Bell, settings: Settings) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await ringing.ping()
    except AuthenticationError:
        raise Unavailable(
            f"Redis at {settings.redis.address} refuses the user or the password: correct REDIS_URL"
        ) from None
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"Redis at {settings.redis.address} does not answer ({type(error).__name__}): start it or correct REDIS_URL"
        ) from None


async def _require_schema(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    async with pool.acquire() as connection:
        found = await revision.current(connection)
    if found != revision.EXPECTED:
        is_newer = found is not None and found > revision.EXPECTED
        raise ConfigError(
            f"the database has schema revision {found or 'none'}, this version needs {revision.EXPECTED}: "
            + ("install a newer hookseal" if is_newer else "run `hookseal db upgrade`")
        )


async def _require_time(settings: Settings, ledger: PostgresLedger) -> None:
    longest = await ledger.longest_timeout_ms()
    lacking = longest / 1000 - settings.worker.longest_request_seconds
    if lacking > 0:
        raise ConfigError(
            f"an enabled endpoint has a time-out of {longest} ms: HOOKSEAL_DRAIN_SECONDS must be at least "
            f"{settings.worker.drain_seconds + ceil(lacking)}, so that a request in flight can end before a stop does"
        )
