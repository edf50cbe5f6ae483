"""Unlocks the secrets at the start of a worker, and opens the connections that the first deliveries will need."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from hookseal.config.settings import Settings
from hookseal.dispatcher.store import lanes, ledger
from hookseal.ground.clock import Clock
from hookseal.operations import sending
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool, transaction
from hookseal.postgres.translate import translated
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import active_key
from hookseal.secrets.key.stores import Outside, arrange_keyring
from hookseal.worker.periodic import Periodic


async def unlocked(settings: Settings, pool: Pool, outside: Outside, *, clock: Clock, log: Any) -> Unlocked:
    """Return the unlocked secrets of the worker, read through its cache. Raises as `unlock` does."""
    if settings.secrets.provider is Provider.DEV:
        log.warning("secrets.in_memory", reason="SECRETS_PROVIDER is dev: every secret is lost when this process ends")
    secrets = await unlock(
        pool,
        settings.secrets.provider,
        settings.secrets.keyring,
        cache=settings.secrets.cache,
        clock=clock,
        trust=sending.trust(settings.egress),
        outside=outside,
    )
    if secrets.stores is not None and secrets.stores.unreachable:
        log.warning(
            "secrets.unreachable",
            providers=sorted(secrets.stores.unreachable),
            reason="secrets in use are kept by providers that this worker has no settings for: their deliveries wait",
        )
    return secrets


async def require_keys(pool: Pool, ring: KeyRing | None) -> None:
    """Raise if the key ring does not fit, after waiting for key changes that began before this worker was visible."""
    if ring is None:
        return
    with translated():
        async with transaction(pool) as connection:
            await active_key.lock_shared(connection)
            await arrange_keyring(connection, ring)


OF_THE_POOL: Final = 3  # connections: for a look of the outbox, for lanes, and for what is recorded alone
FIRST_SECONDS: Final = 1.0  # after the start
AGAIN_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 0.5  # to open connections


class WarmUp:
    """Keeps connections of two pools open and warm: all of `batching`, and as many of `pool` as a burst needs."""

    def __init__(self, pool: Pool, batching: Pool, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._batching = batching
        self.loop = Periodic("warm_up", self.once, first=FIRST_SECONDS, every=AGAIN_SECONDS, clock=clock, log=log)

    async def once(self) -> None:
        """Warm them up. Raises `Unavailable`."""
        await warm_up_batching(self._batching)
        await _warm_up(self._pool, [ledger.plan, lanes.plan], connections=OF_THE_POOL)


async def warm_up_batching(pool: Pool) -> None:
    """Open all connections of this pool, and plan the statements of batches on each. Raises `Unavailable`."""
    await _warm_up(pool, [ledger.plan_batches], connections=pool.get_max_size())


async def _warm_up(pool: Pool, plans: Sequence[Callable[[Connection], Awaitable[None]]], *, connections: int) -> None:
    """Open connections until there are so many, or `LONGEST_SECONDS` have passed, and make these plans on each.

    It waits for none that is in use: that one plans what it runs. Until its statements are planned, no other caller has
    a connection. Raises `Unavailable`.
    """
    with translated():
        async with AsyncExitStack() as opened:
            each = list["PoolConnectionProxy[asyncpg.Record]"]()
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_SECONDS):  # others may need those that it has
                    while len(each) < connections and (pool.get_idle_size() or pool.get_size() < pool.get_max_size()):
                        each.append(await opened.enter_async_context(pool.acquire(timeout=ANSWER_SECONDS)))
            for connection in each:
                for plan in plans:
                    await plan(connection)
                await pool.release(connection, timeout=ANSWER_SECONDS)  # that at the end of the block does nothing
