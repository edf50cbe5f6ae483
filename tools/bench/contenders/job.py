"""The job of every contender: sign from memory with HMAC, POST, and read the answer."""

import base64
import hmac
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import uvloop

from tools.bench import bodies

ORDER: Final = "HOOKSEAL_BENCH_ORDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The parameters of this process, which the benchmark passes in the environment.

    `authority` is a file, and empty if the receiver is reached without TLS. `kept`: connections are reused.
    """

    url: str
    postgres_url: str
    redis_url: str
    deliveries: int
    concurrency: int
    body_bytes: int
    authority: str
    kept: bool

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
    return Order(**json.loads(os.environ[ORDER]))


class Sender:
    """Signs and sends, on reused connections if `kept`."""

    def __init__(self, ordered: Order) -> None:
        self._url = ordered.url
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
        async with self.open().post(self._url, data=body) as response:
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
        async with self.open().post(self._url, data=body, headers=headers) as response:
            await response.read()


def ready() -> None:
    """Report that the worker is ready."""
    print("ready", flush=True)


Mode = Callable[[Order], Coroutine[Any, Any, None]]


def main(enqueue: Mode, work: Mode) -> None:
    """Queue the jobs and end, or work until killed, depending on the first argument."""
    uvloop.run({"enqueue": enqueue, "work": work}[sys.argv[1]](order()))
