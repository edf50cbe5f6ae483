"""A client of the HTTP API in its own process: calls it as ordered, and prints what that cost.

It sends requests that are made once, and reads of an answer only its status and its length, so that it takes a small
part of the CPU that the server takes.
"""

import asyncio
import json
import os
import re
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

from tools.records import percentile

ORDER: Final = "HOOKSEAL_BENCH_CALL"
NUMBER: Final = "{number}"  # in a path or a body: the number of the request
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_STATUS: Final = slice(9, 12)  # of the head of an answer
_GOOD: Final = range(200, 300)
_SLOW_BYTES: Final = 1_000  # of a body that comes byte by byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, with a JSON text as its body if it has one, of a visitor with a cookie or of the token."""

    method: str
    path: str
    body: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to call, how, and for how long, after `warm_up` requests of each.

    `way` is `full-speed`: that many connections, each of which sends the first request again and again; `at-a-rate`:
    it is sent `per_second`, each when it is due; `in-turn`: every request `times` times, one after the other; `slow`:
    that many connections, each of which sends the body of the first request byte by byte, one a second.
    """

    way: str
    url: str
    token: str
    requests: dict[str, dict[str, Any]]
    seconds: float = 0.0
    connections: int = 1
    per_second: float = 0.0
    times: int = 0
    warm_up: int = 0


class Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._read = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the request that waits fail."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Note the status once the whole answer is here."""
        read = self._read
        read += data
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(read, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(read) < whole:
            return
        status = int(read[_STATUS])
        del read[:whole]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    async def call(self, request: bytes) -> int:
        """Send the request, and return the status of the answer. Raises `OSError`."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def send(self, data: bytes) -> None:
        """Send a part of a request."""
        self._transport.write(data)


class Caller:
    """Makes the requests of an order, and counts what came back."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._host, _, port = urlsplit(order.url).netloc.rpartition(":")
        self._port = int(port)
        self._sent = 0
        self.requests = {name: Request(**each) for name, each in order.requests.items()}
        self._same = {
            name: self.text(each) for name, each in self.requests.items() if NUMBER not in each.path + each.body
        }
        self.failed = 0
        self.milliseconds: dict[str, list[float]] = {name: [] for name in self.requests}

    async def open(self) -> Connection:
        """Open a connection."""
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    def text(self, request: Request, length: int | None = None) -> bytes:
        """Return the bytes of a request, whose number is the next one; `length` is that of a body that comes later."""
        self._sent += 1
        path, body = (text.replace(NUMBER, str(self._sent)) for text in (request.path, request.body))
        size = len(body.encode()) if length is None else length
        about = f"content-type: application/json\r\ncontent-length: {size}\r\n" if size else ""
        who = f"cookie: {request.cookie}" if request.cookie else f"authorization: Bearer {self._order.token}"
        return (
            f"{request.method} {path} HTTP/1.1\r\nhost: {self._host}\r\n{who}\r\n"
            f"{about}\r\n{body if length is None else ''}"
        ).encode()

    async def one(self, connection: Connection, name: str) -> None:
        """Send one request, and note how long its answer took."""
        text = self._same.get(name) or self.text(self.requests[name])
        begun = time.monotonic()
        try:
            status = await connection.call(text)
        except OSError:
            status = 0
        self.milliseconds[name].append((time.monotonic() - begun) * 1e3)
        self.failed += status not in _GOOD

    async def at_full_speed(self) -> None:
        """Send the first request on each connection, again and again."""
        name, until = next(iter(self.requests)), time.monotonic() + self._order.seconds

        async def some(connection: Connection) -> None:
            while time.monotonic() < until:
                await self.one(connection, name)

        opened = [await self.open() for _ in range(self._order.connections)]
        await asyncio.gather(*map(some, opened))

    async def at_a_rate(self) -> None:
        """Send the first request when it is due, on a connection that is free."""
        name, order = next(iter(self.requests)), self._order
        free = deque([await self.open() for _ in range(order.connections)])

        async def one() -> None:
            connection = free.popleft() if free else await self.open()
            await self.one(connection, name)
            free.append(connection)

        start = time.monotonic()
        async with asyncio.TaskGroup() as calling:
            for number in range(int(order.seconds * order.per_second)):
                await asyncio.sleep(max(0.0, start + number / order.per_second - time.monotonic()))
                calling.create_task(one())

    async def in_turn(self) -> None:
        """Send each request many times, one after the other; requests of different kinds take turns."""
        connection = await self.open()
        for _ in range(self._order.times):
            for name in self.requests:
                await self.one(connection, name)

    async def slowly(self) -> None:
        """Begin the first request on each connection, say so, and send a byte of each body a second."""
        head = self.text(next(iter(self.requests.values())), length=_SLOW_BYTES)
        opened = [await self.open() for _ in range(self._order.connections)]
        for connection in opened:
            connection.send(head)
        print("begun", flush=True)
        for _ in range(int(self._order.seconds)):
            for connection in opened:
                connection.send(b" ")
            await asyncio.sleep(1.0)

    async def warmed_up(self) -> None:
        """Send each request a few times, which do not count."""
        connection = await self.open()
        for name in self.requests:
            for _ in range(self._order.warm_up):
                await self.one(connection, name)
            self.milliseconds[name].clear()


_WAYS: Final[dict[str, Callable[[Caller], Awaitable[None]]]] = {
    "full-speed": Caller.at_full_speed,
    "at-a-rate": Caller.at_a_rate,
    "in-turn": Caller.in_turn,
    "slow": Caller.slowly,
}


async def main(order: Order) -> None:
    """Call, and print what it cost."""
    caller = Caller(order)
    await caller.warmed_up()
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    await _WAYS[order.way](caller)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "seconds": seconds,
        "failed": caller.failed,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "calls": {
            name: {"number": len(each), "p50_ms": percentile(each, 0.5), "p99_ms": percentile(each, 0.99)}
            for name, each in caller.milliseconds.items()
            if each
        },
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Order(**json.loads(os.environ[ORDER]))))
