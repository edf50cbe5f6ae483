"""One round of each contender: the same number of requests of the same size to the same receiver."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
from arq.connections import ArqRedis
from redis.asyncio.connection import ConnectionPool

from hookseal.demo.installation import Installation
from hookseal.demo.process import worker_process
from hookseal.dispatcher.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.queue.bell import bell
from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.schema.connect import connect
from tests.doubles import certificates
from tools.bench.stock import QUEUE

TENANT: Final = "bench"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PATIENCE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much one round sends."""

    requests: int
    concurrency: int
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a round cost: seconds from the first request to the last, and CPU seconds of the contender's process."""

    requests: int
    connections: int
    seconds: float
    cpu_seconds: float

    @property
    def connections_per_1000(self) -> float:
        """Connections that were made for a thousand requests: as many handshakes, behind TLS."""
        return self.connections * 1000 / self.requests

    @property
    def per_second(self) -> float:
        """Requests in a second."""
        return self.requests / self.seconds

    @property
    def microseconds(self) -> float:
        """Microseconds of CPU of the contender for one request."""
        return self.cpu_seconds * 1e6 / self.requests


class Sink:
    """The receiver, asked over HTTP. `secure_url` is the same one behind TLS, with a certificate of `authority`."""

    def __init__(self, url: str, secure_url: str, authority: Path, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.secure_url = secure_url
        self.authority = authority
        self._session = session

    async def forget(self) -> None:
        """Count from nought."""
        async with self._session.delete(self.url):
            pass

    async def all_of(self, requests: int) -> tuple[float, int]:
        """Return the seconds from the first request to the last, and the connections, once so many have come."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                async with self._session.get(self.url) as response:
                    told = await response.json()
                if told["requests"] >= requests:
                    return float(told["seconds"]), int(told["connections"])
                await asyncio.sleep(_LOOK_SECONDS)


def _certificates(folder: Path) -> tuple[Path, Path]:
    authority, shown = folder / "authority.pem", folder / "shown.pem"
    vouching = certificates.authority()
    authority.write_text(vouching.pem, encoding="ascii")
    shown.write_bytes(certificates.issued("127.0.0.1", by=vouching).both)
    return authority, shown


@asynccontextmanager
async def sinking() -> AsyncIterator[Sink]:
    """Give a receiver that runs in a process of its own for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="hookseal-bench-tls-") as name:
        authority, shown = _certificates(Path(name))
        process = await _python("tools.bench.sink", str(shown), stdin=asyncio.subprocess.PIPE)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                plain, secure = map(int, (await _line(process)).split())
                yield Sink(f"http://127.0.0.1:{plain}/", f"https://127.0.0.1:{secure}/", authority, session)
        finally:
            process.kill()
            await process.wait()


async def bare(sink: Sink, load: Load) -> Cost:
    """Send with a bare loop of aiohttp."""
    await sink.forget()
    arguments = (sink.url, str(load.requests), str(load.concurrency), str(load.body_bytes))
    process = await _python("tools.bench.bare", *arguments)
    told = json.loads(await _line(process))
    await process.wait()
    seconds, connections = await sink.all_of(load.requests)
    return Cost(requests=load.requests, connections=connections, seconds=seconds, cpu_seconds=told["cpu_seconds"])


async def transport(sink: Sink, load: Load, *, secure: bool, kept: bool) -> Cost:
    """Send with our transport alone: in the clear or behind TLS, on kept connections or each on its own."""
    await sink.forget()
    sizes = (str(load.requests), str(load.concurrency), str(load.body_bytes))
    url = sink.secure_url if secure else sink.url
    process = await _python("tools.bench.transport", url, str(sink.authority), *sizes, "kept" if kept else "anew")
    told = json.loads(await _line(process))
    await process.wait()
    seconds, connections = await sink.all_of(load.requests)
    return Cost(requests=load.requests, connections=connections, seconds=seconds, cpu_seconds=told["cpu_seconds"])


async def stock(sink: Sink, load: Load, redis_url: str) -> Cost:
    """Send with arq's own worker; the jobs are queued before it starts."""
    await sink.forget()
    body = b"x" * load.body_bytes
    pool = ConnectionPool.from_url(redis_url)
    async with ArqRedis(pool, job_serializer=job_serializer, job_deserializer=job_deserializer) as redis:
        for number in range(load.requests):
            await redis.enqueue_job("post", f"msg_{number}", body, _queue_name=QUEUE)
    process = await _python("tools.bench.stock", sink.url, redis_url, str(load.concurrency))
    try:
        await _line(process)
        before = _cpu_seconds(process.pid)
        seconds, connections = await sink.all_of(load.requests)
        cpu_seconds = _cpu_seconds(process.pid) - before
        return Cost(requests=load.requests, connections=connections, seconds=seconds, cpu_seconds=cpu_seconds)
    finally:
        process.kill()  # it has nothing to hand over
        await process.wait()


async def ours(sink: Sink, load: Load, installation: Installation, folder: Path) -> Cost:
    """Send with a hookseal worker; the deliveries are published and rung before it starts, and recorded at the end."""
    await sink.forget()
    connection = await connect(installation.database_url)
    try:
        rings = await _published(connection, load)
        ringing = bell(installation.redis_url)
        await ringing.ring(rings)
        await ringing.close()
        environment = installation.environment(os.environ) | {
            "HOOKSEAL_CONCURRENCY": str(load.concurrency),
            "HOOKSEAL_LOG_LEVEL": "info",
        }
        async with worker_process(environment, folder / "bench.log") as worker:
            before = _cpu_seconds(worker.ready["pid"])
            seconds, connections = await sink.all_of(load.requests)
            await _recorded(connection)
            cpu_seconds = _cpu_seconds(worker.ready["pid"]) - before
            return Cost(requests=load.requests, connections=connections, seconds=seconds, cpu_seconds=cpu_seconds)
    finally:
        await connection.close()


async def _published(connection: "asyncpg.Connection[asyncpg.Record]", load: Load) -> list[Ring]:
    rows = await connection.fetch(
        "SELECT p.delivery_id::text, p.endpoint_id::text FROM generate_series(1, $1) AS n, hookseal.uuid7() AS round,"
        " LATERAL hookseal.publish_raw('bench', 'bench.tick', $2, format('%s-%s', round, n)) AS p",
        load.requests,
        b"x" * load.body_bytes,
    )
    return [
        Ring(tenant_id=TenantId(TENANT), endpoint_id=EndpointId(row[1]), delivery_id=DeliveryId(row[0])) for row in rows
    ]


async def _recorded(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await connection.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state <> 'delivered'"):  # noqa: ASYNC110 -- a table tells nobody when it changes
            await asyncio.sleep(_LOOK_SECONDS)


async def _python(
    module: str, *arguments: str, stdin: int | None = None, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdin=stdin, stdout=asyncio.subprocess.PIPE, env=environment
    )


async def _line(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        raise RuntimeError("the process has no standard output")
    async with asyncio.timeout(_PATIENCE_SECONDS):
        return await process.stdout.readline()


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process so far, all threads, user and system (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
