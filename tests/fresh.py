"""A PostgreSQL of a test's own: a copy of one that was made once in this process, which costs less than making it."""

import asyncio
import atexit
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.schema.upgrade import upgrade

_MADE: Final[dict[bool, Path]] = {}
_HELD: Final = ExitStack()
atexit.register(_HELD.close)


@asynccontextmanager
async def fresh_postgres(*, migrated: bool) -> AsyncIterator[Server]:
    """Yield a server that no other test uses: its database is migrated, or no migration has seen the server."""
    if migrated not in _MADE:
        _MADE[migrated] = await _make(migrated=migrated)
    with scratch(for_servers()) as folder:
        await _copy(_MADE[migrated], folder)
        async with postgres(folder, durable=False) as server:
            yield server


async def _make(*, migrated: bool) -> Path:
    folder = _HELD.enter_context(scratch(for_servers()))
    async with postgres(folder, durable=False) as server:
        if migrated:
            await upgrade(server.url)
    return folder


async def _copy(source: Path, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", folder)  # with owners and modes
    assert 0 == await process.wait()
