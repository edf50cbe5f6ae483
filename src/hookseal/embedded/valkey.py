"""An embedded Valkey, on the loopback only, with a password."""

import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from hookseal.embedded.folders import Account, for_servers, load_or_create_password, state_folder
from hookseal.embedded.process import Program
from hookseal.embedded.server import HOST, Server, make_accessible, ports, serve, valkey_server
from hookseal.ground.clock import SystemClock

_CONNECT_SECONDS: Final = 2.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Valkey:
    binary: Path
    state: Path
    log: Path
    account: Account | None
    password: str = field(repr=False)
    settings: dict[str, str]

    @property
    def name(self) -> str:
        return "Valkey"

    def program(self, port: int) -> Program:
        settings = self.settings | {"port": str(port), "dir": f'"{self.state}"', "requirepass": self.password}
        return Program(
            command=(str(self.binary), "-"),
            folder=self.state,
            log=self.log,
            account=self.account,
            stop_signals=_STOP_SIGNALS,
            death_signal=signal.SIGTERM,
            # Every user of the machine can read arguments, so the password is not one.
            standard_input="".join(f"{name} {value}\n" for name, value in settings.items()),
        )

    def url(self, port: int) -> str:
        return f"redis://:{self.password}@{HOST}:{port}/0"

    async def answers(self, port: int) -> bool:
        client = Redis.from_url(
            self.url(port), socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS
        )
        try:
            return bool(await client.ping())
        except RedisError:
            return False
        finally:
            await client.aclose()


@asynccontextmanager
async def valkey(
    folder: Path, *, port: int | None = None, durable: bool = True, databases: int = 16
) -> AsyncIterator[Server]:
    """Run Valkey with its state under the folder; if `durable`, a later run finds the data of an earlier one.

    Raises `Unavailable` if it is not installed or does not start.
    """
    settings = _settings(durable=durable, databases=databases)
    async with _valkey(folder, ports(port), settings=settings, binary=valkey_server()) as server:
        yield server


def _settings(*, durable: bool, databases: int) -> dict[str, str]:
    return {
        "bind": HOST,
        "databases": str(databases),
        "appendonly": "yes" if durable else "no",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }


@asynccontextmanager
async def _valkey(
    folder: Path, candidates: Iterable[int], *, settings: dict[str, str], binary: Path
) -> AsyncIterator[Server]:
    account = for_servers()
    state = state_folder(folder, "valkey", account)
    with make_accessible(binary, account) as usable_binary:
        part = _Valkey(
            binary=usable_binary,
            state=state,
            log=folder / "valkey.log",
            account=account,
            password=load_or_create_password(folder / "valkey.password"),
            settings=settings,
        )
        async with serve(part, candidates, clock=SystemClock()) as server:
            yield server
