"""An embedded PostgreSQL: its own `initdb` and `postgres`, on the loopback only, with a password."""

import shutil
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from hookseal.embedded.folders import Account, for_servers, load_or_create_password, state_folder, write_private
from hookseal.embedded.process import Process, Program
from hookseal.embedded.server import BUNDLED, HOST, Server, make_accessible, ports, postgres_tree, serve
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.postgres.connect import connect

_USER: Final = "hookseal"
_DATABASE: Final = "hookseal"
_CONNECT_SECONDS: Final = 2.0
_INITDB_SECONDS: Final = 60.0
# Fast shutdown, then immediate, then a kill, which alone leaves shared memory behind.
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
# Immediate shutdown, since that also kills children that do not react, for instance stopped ones.
_DEATH_SIGNAL: Final = signal.SIGQUIT
_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "dynamic_shared_memory_type": "mmap",  # files in its own folder, removed with it
    "log_error_verbosity": "terse",  # a DETAIL line contains row data
    "log_min_error_statement": "panic",  # and a STATEMENT line contains values
    "timezone": "UTC",
}
_BUILTIN_LOCALE: Final = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")  # before 17 there is none
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Postgres:
    tree: Path
    state: Path
    log: Path
    account: Account | None
    password: str = field(repr=False)
    settings: dict[str, str]

    @property
    def name(self) -> str:
        return "PostgreSQL"

    @property
    def data(self) -> Path:
        return self.state / "data"

    def program(self, port: int) -> Program:
        settings = self.settings | {"port": str(port)}
        flags = (flag for name, value in settings.items() for flag in ("-c", f"{name}={value}"))
        return self.run("postgres", "-D", str(self.data), *flags)

    def run(self, name: str, *arguments: str) -> Program:
        return Program(
            command=(str(self.tree / "bin" / name), *arguments),
            folder=self.state,
            log=self.log,
            account=self.account,
            stop_signals=_STOP_SIGNALS,
            death_signal=_DEATH_SIGNAL,
        )

    def url(self, port: int) -> str:
        return f"postgresql://{_USER}:{self.password}@{HOST}:{port}/{_DATABASE}"

    async def answers(self, port: int) -> bool:
        try:
            connection = await self.connect(port)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def connect(self, port: int) -> "asyncpg.Connection[asyncpg.Record]":
        return await connect(
            host=HOST,
            port=port,
            user=_USER,
            password=self.password,
            database="postgres",
            ssl=False,
            timeout=_CONNECT_SECONDS,
        )


@asynccontextmanager
async def postgres(
    folder: Path, *, port: int | None = None, durable: bool = True, tree: Path | None = None
) -> AsyncIterator[Server]:
    """Run PostgreSQL with its state under the folder; a later run finds the data of an earlier one.

    Its database and its superuser are both called `hookseal`. Unless `durable`, a power failure may destroy the data.
    `tree` is the folder with the `bin` of another PostgreSQL, for instance an older one. Raises `Unavailable` if it is
    not installed or does not start.
    """
    async with _postgres(folder, ports(port), durable=durable, tree=tree or postgres_tree()) as server:
        yield server


@asynccontextmanager
async def _postgres(folder: Path, candidates: Iterable[int], *, durable: bool, tree: Path) -> AsyncIterator[Server]:
    account = for_servers()
    state = state_folder(folder, "postgres", account)
    with make_accessible(tree, account) as usable_tree:
        part = _Postgres(
            tree=usable_tree,
            state=state,
            log=folder / "postgres.log",
            account=account,
            password=load_or_create_password(folder / "postgres.password"),
            settings=_SETTINGS if durable else _SETTINGS | _NOT_DURABLE,
        )
        if not part.data.exists():
            await _initialise(part)
        async with serve(part, candidates, clock=SystemClock()) as server:
            await _ensure_database(part, server.port)
            yield server


async def _initialise(part: _Postgres) -> None:
    """Create the data folder completely or not at all: it is renamed to its final name at the end."""
    unfinished, password_file = part.state / "unfinished", part.state / "password"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_private(password_file, part.password, part.account)
    try:
        initdb = Process(
            part.run(
                "initdb",
                *("-D", str(unfinished), "-U", _USER, f"--pwfile={password_file}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", *_BUILTIN_LOCALE * (part.tree.name == BUNDLED)),
                "--no-sync",
            )
        )
        if not await initdb.finish(_INITDB_SECONDS):
            raise Unavailable(
                f"embedded PostgreSQL cannot create its data folder; the end of its log:\n{initdb.last_lines()}"
            )
        unfinished.rename(part.data)
    finally:
        password_file.unlink(missing_ok=True)


async def _ensure_database(part: _Postgres, port: int) -> None:
    connection = await part.connect(port)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", _DATABASE):
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
    finally:
        await connection.close()
