"""The port of the probes: accepts a bounded number of connections, each for a short time."""

import asyncio
from collections import OrderedDict, defaultdict
from typing import Any, Final

from aiohttp import web

MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0  # to ask, and to be answered: a check takes a second
_WAITING: Final = 64  # connections that the system queues until they are accepted
_SHUTDOWN_SECONDS: Final = 1.0


class ProbePort:
    """Answers each connection once, within ten seconds, and 64 at a time.

    One more closes the oldest connection of the address that has most: a client that opens many cannot shut out others.
    """

    def __init__(self, *, most: int = MOST_CONNECTIONS, seconds: float = CONNECTION_SECONDS) -> None:
        self._most = most
        self.seconds = seconds
        self._open: defaultdict[str, OrderedDict[_Connection, None]] = defaultdict(OrderedDict)
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def serve(self, application: web.Application, host: str, port: int) -> tuple[str, int]:
        """Listen until `close`, and return the address and port. Raises `OSError`."""
        application.on_response_prepare.append(_once)
        self._runner = runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(runner.server, port=self, loop=loop, access_log=None),
                host,
                port,
                backlog=_WAITING,
            )
        except OSError:
            await self.close()
            raise
        bound: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return bound

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def entered(self, connection: "_Connection") -> None:
        """Count a connection that was opened, and close another one if there are too many."""
        self._open[connection.address][connection] = None
        if len(self) > self._most:
            crowd = max(self._open.values(), key=len)
            next(iter(crowd)).end()

    def left(self, connection: "_Connection") -> None:
        """Stop counting a connection that has closed, or is about to."""
        here = self._open.get(connection.address)
        if here is not None and connection in here:
            del here[connection]
            if not here:
                del self._open[connection.address]


class _Connection(web.RequestHandler):
    """A connection that is counted and has a time limit."""

    def __init__(self, manager: Any, *, port: ProbePort, **options: Any) -> None:
        super().__init__(manager, **options)
        self._port = port
        self._end: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start its time limit."""
        super().connection_made(transport)
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._end = asyncio.get_running_loop().call_later(self._port.seconds, self.end)
        self._port.entered(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection."""
        self._port.left(self)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def end(self) -> None:
        """Close the connection at once."""
        self._port.left(self)
        if self.transport is not None:
            self.transport.abort()


async def _once(_request: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"
