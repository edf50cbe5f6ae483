"""Servers that can be restarted on the same port with the same data."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

from hookseal.embedded.folders import for_servers, scratch, state_folder, write_private
from hookseal.embedded.postgres import postgres
from hookseal.embedded.process import Process, Program
from hookseal.embedded.server import Server, make_accessible, postgres_tree
from hookseal.embedded.valkey import valkey
from tests.cli.listeners import reserved
from tests.worker.waiting import PATIENCE_SECONDS, eventually


class Kind(Protocol):
    """Runs a server of one kind during a block, with its state in a folder."""

    def __call__(
        self, folder: Path, *, port: int | None = None, durable: bool = True
    ) -> AbstractAsyncContextManager[Server]: ...


class Restartable:
    """A server that may end and be started again, on one folder. `server` is the one that runs, or ran last."""

    server: Server

    def __init__(self, kind: Kind, folder: Path, stack: AsyncExitStack, *, port: int) -> None:
        self._kind = kind
        self._port = port
        self._folder = folder
        self._stack = stack

    async def start(self, *, durable: bool) -> None:
        self.server = await self._stack.enter_async_context(self._kind(self._folder, port=self._port, durable=durable))

    async def end(self, number: signal.Signals) -> None:
        os.kill(self.server.pid, number)
        await eventually(lambda: not self.server._process.is_running)


@asynccontextmanager
async def restartable(kind: Kind, *, durable: bool) -> AsyncIterator[Restartable]:
    """Yield a running server that can be ended and started again; afterwards neither process nor data remain."""
    # The port stays reserved while the server is down, so that no other test gets it.
    with reserved() as kept, scratch(for_servers()) as folder:
        async with AsyncExitStack() as stack:
            made = Restartable(kind, folder, stack, port=kept.getsockname()[1])
            await made.start(durable=durable)
            yield made


# A streaming standby of a PostgreSQL, made by pg_basebackup, and a replica of a Valkey: both can be promoted.


@asynccontextmanager
async def standby(primary_url: str) -> AsyncIterator[Server]:
    """Yield a standby that streams from the primary and has the same logins; nothing remains of it afterwards."""
    account = for_servers()
    with scratch(account) as folder, make_accessible(postgres_tree(), account) as tree:
        state = state_folder(folder, "postgres", account)
        write_private(folder / "postgres.password", urlsplit(primary_url).password or "")
        copying = Process(
            Program(
                command=(
                    *(str(tree / "bin" / "pg_basebackup"), "-d", primary_url, "-D", str(state / "data")),
                    *("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"),
                ),
                folder=state,
                log=folder / "copying.log",
                account=account,
                stop_signals=(signal.SIGTERM, signal.SIGKILL),
                death_signal=signal.SIGKILL,
            )
        )
        assert await copying.finish(PATIENCE_SECONDS), copying.last_lines()
        async with postgres(folder) as server:
            yield server


async def make_replication_synchronous(primary: Server) -> None:
    """Return when every commit on the primary waits for the standby."""
    connection = await asyncpg.connect(primary.url)
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        await eventually(
            lambda: connection.fetchval("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"),
        )
    finally:
        await connection.close()


async def promote(server: Server) -> None:
    """Return when the standby has become a primary."""
    connection = await asyncpg.connect(server.url)
    try:
        assert await connection.fetchval("SELECT pg_promote()")
    finally:
        await connection.close()


@asynccontextmanager
async def standby_of_redis(primary_url: str) -> AsyncIterator[Server]:
    """Yield a replica that has all data of the primary and the same password; nothing remains of it afterwards."""
    primary = urlsplit(primary_url)
    with scratch(for_servers()) as folder:
        write_private(folder / "valkey.password", primary.password or "")
        async with valkey(folder) as server, Redis.from_url(server.url) as client:
            await client.config_set("masterauth", primary.password or "")
            await client.replicaof(str(primary.hostname), str(primary.port))

            async def is_in_step() -> bool:
                return bool((await client.info("replication"))["master_link_status"] == "up")

            await eventually(is_in_step)
            yield server


async def promote_redis(url: str) -> None:
    async with Redis.from_url(url) as client:
        await client.replicaof("NO", "ONE")
