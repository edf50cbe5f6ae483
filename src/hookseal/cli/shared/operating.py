"""What the three commands for many endpoints need that `Admin` has no methods for yet: an operator on one connection.

They are `import-endpoints`, `migrate-secrets` and `secret move`, which work over several connections.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from hookseal.cli.context import operator_name
from hookseal.cli.shared.runtime import connect, require_schema, run
from hookseal.config.settings import Settings
from hookseal.operations.operator import Operator
from hookseal.operations.unlocking import outside, require_lasting, unlock_for_changes
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.key.stores import Outside

T = TypeVar("T")


@asynccontextmanager
async def operating(settings: Settings, keyring: KeyRing | None = None) -> AsyncIterator[Operator]:
    """Give an operator with one connection and the secrets unlocked, until the block ends.

    They are unlocked with the keyring, by default that of the settings. Raises `Refused` with the provider `dev`, whose
    keys last as long as one process, `Unavailable`, and `ConfigError` if the schema or the keys do not fit.
    """
    require_lasting(settings.secrets)
    async with connect(settings.database) as connection, outside_of(settings) as found:
        await require_schema(connection)
        unlocked = await unlock_for_changes(connection, settings, keyring, outside=found)
        yield Operator(connection=connection, unlocked=unlocked, who=operator_name())


def outside_of(settings: Settings) -> AbstractAsyncContextManager[Outside]:
    """Give what stores outside PostgreSQL need; all connections to them are closed when the block ends."""
    return outside(settings, lambda: connect(settings.database))


def operate(
    settings: Settings,
    work: Callable[[Operator], Awaitable[T]],
    *,
    keyring: KeyRing | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Call `work` with an operator and return its result. Raises as `operating` does, and what `work` raises."""

    async def work_once() -> T:
        async with operating(settings, keyring) as operator:
            return await work(operator)

    return run(work_once(), loop_factory=loop_factory)
