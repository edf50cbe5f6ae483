"""A real PgBouncer in front of a test's database, if this machine has one; it listens on the loopback only."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from hookseal.embedded.folders import Account, for_servers, scratch, write_private
from hookseal.embedded.process import Program
from hookseal.embedded.server import HOST, Server, ports, serve
from hookseal.ground.clock import SystemClock

_PLACES: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"  # the directories of packages, besides PATH
# The settings that docs/guide/running.md requires, and so few sessions that transactions share them.
CONFIGURED: Final = {
    "pool_mode": "transaction",
    "ignore_startup_parameters": "search_path",
    "default_pool_size": "3",
}
_ADMIN: Final = "console"
_ADMIN_PASSWORD: Final = "c"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PgBouncer:
    binary: str
    folder: Path
    log: Path
    account: Account | None
    server: str = field(repr=False)
    settings: dict[str, str]

    @property
    def name(self) -> str:
        return "PgBouncer"

    def program(self, port: int) -> Program:
        parts = urlsplit(self.server)
        users = f'"{parts.username}" "{parts.password}"\n"{_ADMIN}" "{_ADMIN_PASSWORD}"\n'
        target = f"{parts.path[1:]} = host={parts.hostname} port={parts.port}"
        settings = self.settings | {"listen_port": str(port)}
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        self._write("users.txt", users)
        self._write("pgbouncer.ini", f"[databases]\n{target}\n[pgbouncer]\n{lines}\n")
        return Program(
            command=(self.binary, str(self.folder / "pgbouncer.ini")),
            folder=self.folder,
            log=self.log,
            account=self.account,
            stop_signals=(signal.SIGQUIT, signal.SIGKILL),  # at once, without waiting for clients
            death_signal=signal.SIGQUIT,
        )

    def url(self, port: int) -> str:
        parts = urlsplit(self.server)
        return parts._replace(netloc=f"{parts.username}:{parts.password}@{HOST}:{port}").geturl()

    async def answers(self, port: int) -> bool:
        try:
            await admin(port, "SHOW VERSION")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def _write(self, name: str, text: str) -> None:
        write_private(self.folder / name, text, self.account)


async def admin(port: int, command: str) -> None:
    connection = await asyncpg.connect(
        host=HOST, port=port, user=_ADMIN, password=_ADMIN_PASSWORD, database="pgbouncer", ssl=False, timeout=5
    )
    try:
        await connection.execute(command)
    finally:
        await connection.close()


@asynccontextmanager
async def pgbouncer(database_url: str, **changes: str) -> AsyncIterator[Server]:
    """Run one in front of that database, with the documented settings and these changes; `""` removes a line.

    The test is skipped if PgBouncer is not installed.
    """
    binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:{_PLACES}")
    if binary is None:
        pytest.skip("PgBouncer is not installed")
    account = for_servers()
    with scratch(account) as folder:
        own = folder / "pgbouncer"
        own.mkdir(mode=0o700)
        if account is not None:
            os.chown(own, account.uid, account.gid)
        settings = CONFIGURED | changes
        part = _PgBouncer(
            binary=binary,
            folder=own,
            log=folder / "pgbouncer.log",
            account=account,
            server=database_url,
            settings={name: value for name, value in settings.items() if value}
            | {
                "listen_addr": HOST,
                "unix_socket_dir": "",
                "auth_type": "scram-sha-256",
                "auth_file": str(own / "users.txt"),
                "admin_users": _ADMIN,
            },
        )
        async with serve(part, ports(None), clock=SystemClock()) as server:
            yield server
