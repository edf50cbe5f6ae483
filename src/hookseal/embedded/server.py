"""A server that answers: started on a free port of the loopback, ready when it really answers, ended after use."""

import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from hookseal.embedded.process import Process, Program
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 30.0
_LOOK_EVERY_SECONDS: Final = 0.02
_PORTS_TO_TRY: Final = 5
_BUSY: Final = "Address already in use"


class Part(Protocol):
    """What is particular to one kind of server."""

    @property
    def name(self) -> str:
        """Its name for people."""
        ...

    def program(self, port: int) -> Program:
        """Return what to run to have it on that port."""
        ...

    def url(self, port: int) -> str:
        """Return how clients reach it, password included."""
        ...

    async def answers(self, port: int) -> bool:
        """Tell whether it, and no other, answers on that port."""
        ...


class Server:
    """A running server. Its url holds its password, and is not shown."""

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

    def freeze(self) -> None:
        """Make it and its children stand still until `thaw`: it answers nothing and keeps its sockets."""
        self._process.freeze()

    def thaw(self) -> None:
        """Let it go on where it stood."""
        self._process.thaw()


def ports(wanted: int | None) -> Iterator[int]:
    """Yield the ports to try: the one that is wanted, or a few that were free just now."""
    if wanted is not None:
        yield wanted
        return
    for _ in range(_PORTS_TO_TRY):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        yield port


@asynccontextmanager
async def serve(part: Part, candidates: Iterable[int], *, clock: Clock) -> AsyncIterator[Server]:
    """Run the part on the first of these ports that nobody else has taken; it has ended afterwards.

    Raises `Unavailable`, with the end of its log, if it ends at once or does not answer in time.
    """
    said = ""
    for port in candidates:
        process = Process(part.program(port))
        try:
            if await _is_ready(part, port, process, clock=clock):
                yield Server(name=part.name, url=part.url(port), port=port, process=process)
                return
        finally:
            await process.stop()
        said = process.last_lines()
        if _BUSY not in said:
            break
    raise Unavailable(f"embedded {part.name} does not start; it said last:\n{said}")


async def _is_ready(part: Part, port: int, process: Process, *, clock: Clock) -> bool:
    deadline = clock.monotonic() + _START_SECONDS
    while process.is_running and clock.monotonic() < deadline:
        if await part.answers(port):
            return True
        await clock.sleep(_LOOK_EVERY_SECONDS)
    return False
