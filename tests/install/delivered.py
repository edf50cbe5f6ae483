"""Publishes an event and waits until a worker has delivered it, where only the package and its extra `cli` are.

Its arguments are the urls of a migrated database and of an empty Redis, and a folder. Each ring goes through Redis: it
fails if the outbox or the sweep had to ring.
"""

import asyncio
import base64
import os
import re
import sys
from http.client import HTTPConnection
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from hookseal import Admin, Publisher
from hookseal.demo.process import worker_process

WHO = "the tests"
EVENTS = 3


class Receiver:
    """Answers each request with 204. `arrived` is set once there was one for each event."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._requests = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(0 if size is None else int(size[1]))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        self._requests += 1
        if self._requests == EVENTS:
            self.arrived.set()


async def deliver(settings: dict[str, str], url: str, log: Path, arrived: asyncio.Event) -> tuple[list[str], str]:
    """Publish events, and return the states of their deliveries once the worker has ended, and its metrics.

    `arrived` is set when the receiver has all of them. A worker that ends records what it has sent.
    """
    async with (
        Admin.connect(environ=settings) as admin,
        Publisher.connect(settings["DATABASE_URL"], settings["REDIS_URL"]) as publisher,
    ):
        await admin.keys.initialise(actor=WHO)
        await admin.endpoints.add(tenant_id="acme", url=url, event_types=["*"], actor=WHO)
        async with worker_process(os.environ | settings, log) as worker:
            for number in range(EVENTS):
                await publisher.publish(tenant_id="acme", event_type="a.b", data={"number": number})
            await asyncio.wait_for(arrived.wait(), 60)
            metrics = await asyncio.to_thread(measured, urlsplit(worker.ready["health_url"]).netloc)
        page = await admin.deliveries.list(tenant_id="acme")
    return [str(each.state) for each in page.items], metrics


def measured(address: str) -> str:
    """Return the metrics of the worker with this address."""
    asked = HTTPConnection(address)
    asked.request("GET", "/metrics")
    return asked.getresponse().read().decode()


async def main(database_url: str, redis_url: str, folder: Path) -> None:
    key = folder / "master.key"
    key.touch(0o600)
    key.write_bytes(base64.b64encode(os.urandom(32)))
    receiver = Receiver()
    async with await asyncio.start_server(receiver.answer, "127.0.0.1", 0) as server:
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SECRETS_PROVIDER": "db",
            "SECRETS_MASTER_KEY_FILE": str(key),
            "HOOKSEAL_ENV": "development",
            "HOOKSEAL_ALLOW_HTTP": "true",
            "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
            "HOOKSEAL_HEALTH_PORT": "0",
        }
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        states, metrics = await deliver(settings, url, folder / "worker.log", receiver.arrived)
    rung_again = [line for line in metrics.splitlines() if re.match(r"hookseal_rings_total\S* (?!0(\.0)?$)", line)]
    log = (folder / "worker.log").read_text(encoding="utf-8")
    if find_spec("arq") or states != ["delivered"] * EVENTS or rung_again or "engine.restarted" in log:
        sys.exit(f"arq: {find_spec('arq')}, states: {states}, rung again: {rung_again}, the log:\n{log}")
    sys.stdout.write(f"redis {version('redis')}: {len(states)} delivered\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
