"""The job of every contender: sign from memory with HMAC, POST, and read the answer."""

import asyncio
import base64
import hmac
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from tools.bench import bodies

ORDER: Final = "HOOKSEAL_BENCH_ORDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The parameters of this process, which the benchmark passes in a file that the environment names.

    Deliveries go to the addresses in turn. `authority` is a file, and empty if they are reached without TLS. `is_warm`:
    one more goes to each of them before the process is ready.
    """

    urls: list[str]
    postgres_url: str
    redis_url: str
    deliveries: int
    concurrency: int
    body_bytes: int
    authority: str
    is_warm: bool

    @property
    def body(self) -> str:
        """The body of every request."""
        return bodies.order(self.body_bytes)

    @property
    def numbers(self) -> range:
        """The numbers of the deliveries."""
        return range(self.deliveries)


def order() -> Order:
    """Return the parameters of this process."""
    return Order(**json.loads(Path(os.environ[ORDER]).read_bytes()))


class Sender:
    """Signs and sends."""

    def __init__(self, ordered: Order) -> None:
        self._urls = cycle(ordered.urls)
        self._trust: ssl.SSLContext | bool = True
        if ordered.authority:
            self._trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as hookseal: the same with every Python
            self._trust.load_verify_locations(ordered.authority)
        self._secret = os.urandom(32)
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> aiohttp.ClientSession:
        """Return the session, which is created at the first call, in the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._trust))
        return self._session

    async def bare(self, body: bytes) -> None:
        """POST without a signature."""
        async with self.open().post(next(self._urls), data=body) as response:
            await response.read()

    async def post(self, delivery: str, body: bytes) -> None:
        """Sign the body as Standard Webhooks does, and POST it."""
        timestamp = int(time.time())
        digest = hmac.digest(self._secret, b"%b.%d.%b" % (delivery.encode(), timestamp, body), "sha256")
        headers = {
            "webhook-id": delivery,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
            "content-type": "application/json",
        }
        async with self.open().post(next(self._urls), data=body, headers=headers) as response:
            await response.read()


def ready() -> None:
    """Report that the worker is ready."""
    print("ready", flush=True)


async def nothing_to_queue(ordered: Order) -> None:
    """Do nothing: there is no queue."""


async def send_all(ordered: Order, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Send one to each address if that is ordered; then, from a line of input on, send everything; and wait for ever.

    Another process writes the line once all are ready, and reads the CPU of this one from outside, until it kills it.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def some(left: Iterator[int]) -> None:
        for _ in left:
            await send()

    async def at_once(number: int) -> None:
        left = iter(range(number))
        await asyncio.gather(*(some(left) for _ in range(ordered.concurrency)))

    await at_once(len(ordered.urls) * ordered.is_warm)
    ready()
    await reader.readline()
    await at_once(ordered.deliveries)
    await asyncio.Event().wait()


Mode = Callable[[Order], Coroutine[Any, Any, None]]


def main(enqueue: Mode, work: Mode) -> None:
    """Queue the jobs and end, or work until killed, depending on the first argument."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    uvloop.run({"enqueue": enqueue, "work": work}[sys.argv[1]](order()))
