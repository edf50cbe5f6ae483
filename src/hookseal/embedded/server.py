"""A running server: started on a free port of the loopback, ready when it answers, ended after use."""

import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from hookseal.embedded.process import Process, Program
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable

HOST: Final = "127.0.0.1"
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
