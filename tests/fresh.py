"""A PostgreSQL for one test: a copy of one that this process made once, which is cheaper than making it."""

import asyncio
import atexit
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.postgres.schema.upgrade import upgrade
from tests.memory import servers_state

_MADE: Final[dict[bool, Path]] = {}
_HELD: Final = ExitStack()
atexit.register(_HELD.close)


@asynccontextmanager
async def fresh_postgres(*, migrated: bool) -> AsyncIterator[Server]:
    """Yield a server that no other test uses, either with a migrated database or never migrated."""
    with servers_state() as folder:
        await initialised(folder, migrated=migrated)
        async with postgres(folder, durable=False) as server:
            yield server


async def initialised(folder: Path, *, migrated: bool = False) -> None:
    """Put the state of a server that has run before into the folder, so that one that starts there need not make it."""
    if migrated not in _MADE:
        _MADE[migrated] = await _make(migrated=migrated)
    await _copy(_MADE[migrated], folder)


async def _make(*, migrated: bool) -> Path:
    folder = _HELD.enter_context(servers_state())
    async with postgres(folder, durable=False) as server:
        if migrated:
            await upgrade(server.url)
    return folder


async def _copy(source: Path, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", folder)  # keeps owners and modes
    assert 0 == await process.wait()
