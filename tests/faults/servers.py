"""Servers that can be restarted on the same port with the same data."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import Server
from tests.cli.listeners import reserved
from tests.worker.waiting import eventually

PATIENCE_SECONDS = 60.0


class Kind(Protocol):
    """Runs a server of one kind during a block, with its state in a folder."""

    def __call__(
        self, folder: Path, *, port: int | None = None, durable: bool = True
    ) -> AbstractAsyncContextManager[Server]:
        """Run it."""
        ...


class Restartable:
    """A server that may end and be started again, on one folder. `server` is the one that runs, or ran last."""

    server: Server

    def __init__(self, kind: Kind, folder: Path, stack: AsyncExitStack, *, port: int) -> None:
        self._kind = kind
        self._port = port
        self._folder = folder
        self._stack = stack

    async def start(self, *, durable: bool) -> None:
        """Start it, and return when it answers."""
        self.server = await self._stack.enter_async_context(self._kind(self._folder, port=self._port, durable=durable))

    async def end(self, number: signal.Signals) -> None:
        """Send it that signal, and return when it has ended."""
        os.kill(self.server.pid, number)

        async def gone() -> bool:
            return not self.server._process.is_running

        await eventually(gone, within=PATIENCE_SECONDS)


@asynccontextmanager
async def restartable(kind: Kind, *, durable: bool) -> AsyncIterator[Restartable]:
    """Yield a running server that can be ended and started again; afterwards neither process nor data remain."""
    # The port stays reserved while the server is down, so that no other test gets it.
    with reserved() as kept, scratch(for_servers()) as folder:
        async with AsyncExitStack() as stack:
            made = Restartable(kind, folder, stack, port=kept.getsockname()[1])
            await made.start(durable=durable)
            yield made
