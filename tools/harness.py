"""The harness of every measurement: servers, receiver, workers, deliveries, and the CPU that each part takes."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import aiohttp
from redis.asyncio import Redis

from hookseal.demo.installation import Installation, install, with_next_key
from hookseal.demo.process import Start, start_worker, worker_process
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.stack import Stack, stack
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connect
from hookseal.postgres.pool import Connection
from hookseal.queue.bell import bell
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from tests.doubles import certificates
from tests.servers import sibling
from tools.bench.bodies import order
from tools.records import ROOT, Machine, machine

WORKER, POSTGRESQL, REDIS, RECEIVER, PRODUCER = "worker", "postgresql", "redis", "receiver", "producer"
KB: Final = 1_024
TENANT: Final = "bench"
SLOW: Final = "slow"
HELD: Final = "held"
HUNG: Final = "hung"
SECURE: Final = "secure"
MANY: Final = "many"
WIDE: Final = "-wide"  # of the name of a tenant whose endpoint has the limit below
LIMIT: Final = 1_000
ENDPOINTS: Final = 1_000  # of the tenant with many
SLOW_MS: Final = 50
_HELD_MS: Final = 4_000  # a worker begins 500 requests in 1.7 s while none is answered yet
_HUNG_MS: Final = 60_000
_TIMEOUT_MS: Final = 20_000  # no request to a receiver that hangs ends in the seconds in which it is measured
_DRAIN_SECONDS: Final = 25
_LINE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# One line for each statement, whichever protocol it came by; the text of one with several lines goes on without this.
_STATEMENT: Final = re.compile(rb"LOG:  (?:statement|execute [^:]+): (?!BEGIN|COMMIT|ROLLBACK)", re.IGNORECASE)
_PUBLISH: Final = """
SELECT p.delivery_id::text, p.endpoint_id::text
  FROM generate_series(1, $2::int) AS n, hookseal.uuid7() AS round,
       LATERAL hookseal.publish_raw($1, 'bench.tick', $3, format('%s-%s', round, n), rings => true) AS p
"""
_STORE: Final = """
SELECT count(*)
  FROM generate_series(1, $2::int) AS n,
       LATERAL hookseal.publish_raw($1, 'bench.tick', $3, format('%s-%s', hookseal.uuid7(), n)) AS p
"""
_UNFINISHED: Final = "SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE state IN ('pending', 'sending'))"

OnReady = Callable[[int], Awaitable[None]]


# CPU and memory of processes and all their descendants, as Linux counts them (proc(5)).


class _Process(NamedTuple):
    parent: int
    own_ticks: int
    ended_children_ticks: int


def tree_seconds(pids: Iterable[int], without: Iterable[int] = ()) -> float:
    """Return the CPU seconds so far of these processes and their descendants, also of those that have ended.

    `without` names descendants that are not counted; each must still run at the next call.
    """
    processes, left_out = _processes(), frozenset(without)
    ticks = sum(
        processes[pid].ended_children_ticks + (0 if pid in left_out else processes[pid].own_ticks)
        for pid in _below(pids, processes)
    )
    return ticks / _TICKS


def resident_mb(pids: Iterable[int]) -> float:
    """Return the resident megabytes of these processes and their descendants."""
    return sum(_resident_kb(pid) for pid in _below(pids, _processes())) / KB


def parent_of(pid: int) -> int:
    """Return the parent process. Raises `FileNotFoundError` if the process is gone."""
    return _read(pid).parent


def _below(pids: Iterable[int], processes: dict[int, _Process]) -> Iterator[int]:
    waiting = [pid for pid in pids if pid in processes]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(child for child, process in processes.items() if process.parent == pid)


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(folder.name)] = _read(int(folder.name))
    return found


def _read(pid: int) -> _Process:
    # The name may contain anything, also brackets; the other fields follow the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return _Process(int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]))


def _resident_kb(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return 0


# Processes. The kernel ends each of them with this one, however it ends.


def _ending_with_this_process(death_signal: signal.Signals, *command: str) -> tuple[str, ...]:
    launch = files("hookseal.embedded").joinpath("launch.py").read_text()
    return (sys.executable, "-I", "-S", "-c", launch, str(os.getpid()), str(int(death_signal)), "", *command)


@asynccontextmanager
async def module(
    *arguments: str, environment: Mapping[str, str], log_file: Path, python: Path = Path(sys.executable)
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module with that Python for the length of the block, then kill it; its errors go to the file."""
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *_ending_with_this_process(signal.SIGKILL, str(python), "-m", *arguments),
            cwd=ROOT,
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process, log_file: Path, patience_seconds: float = _LINE_SECONDS) -> str:
    """Return the next line of its output. Raises `RuntimeError` with the end of its log if there is none."""
    if process.stdout is None:
        raise RuntimeError("the process has no standard output")
    async with asyncio.timeout(patience_seconds):
        text = (await process.stdout.readline()).decode()
    if not text:
        raise RuntimeError(f"the process ended: {last_error_line(log_file)}")
    return text


def last_error_line(log_file: Path) -> str:
    """Return the last line of a log that names an error, or else its last line."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    named = [line.lstrip("| ") for line in lines if re.match(r"[|\s]*[\w.]*(Error|Unavailable|Refused)\b", line)]
    return (named or lines or [""])[-1]


class Running(NamedTuple):
    """The process of a worker, or of the parent of several, and the url of its probes."""

    pid: int
    health_url: str

    def kill(self) -> None:
        """Kill it, since a drain would wait for what hangs."""
        os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def hookseal_workers(
    environment: Mapping[str, str], log_file: Path, *, processes: int = 1, on_ready: OnReady | None = None
) -> AsyncIterator[Running]:
    """Run that many worker processes for the length of the block; several are children of one parent."""
    begin: Start = start_worker if processes == 1 else partial(_parent, processes=processes)
    async with worker_process(environment, log_file, start=begin) as worker:
        running = Running(int(worker.ready["pid"]), str(worker.ready.get("health_url", "")))
        if on_ready is not None:
            await on_ready(running.pid)
        yield running


async def _parent(environment: Mapping[str, str], log: BinaryIO, *, processes: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-P", "-m", "hookseal", "worker", "--processes", str(processes))
    return await asyncio.create_subprocess_exec(
        *_ending_with_this_process(signal.SIGTERM, *command),
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


# The receiver.


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What arrived since the last reset; `milliseconds` since publishing, for bodies that contain the time."""

    requests: int
    connections: int
    seconds: float
    milliseconds: list[float]


class Receiver(NamedTuple):
    """The receiver, controlled over HTTP. `authority` is the file of its CA certificate."""

    ports: tuple[int, int]
    authority: Path
    pid: int
    session: aiohttp.ClientSession

    def url(self, *, secure: bool = False, does: int | str = 0, name: str = "") -> str:
        """Return an address that answers after that many milliseconds, or does what `tools.sink` calls so."""
        scheme, port = ("https", self.ports[1]) if secure else ("http", self.ports[0])
        return f"{scheme}://127.0.0.1:{port}/{does}/{name}"

    async def forget(self) -> None:
        """Reset the counts."""
        async with self.session.delete(self.url()):
            pass

    async def counted(self) -> Count:
        """Return the counts."""
        async with self.session.get(self.url()) as response:
            return Count(**await response.json())

    async def all_of(self, requests: int, patience_seconds: float) -> Count:
        """Return the counts once that many requests have arrived. Raises `TimeoutError`."""
        async with asyncio.timeout(patience_seconds):
            while (count := await self.counted()).requests < requests:  # noqa: ASYNC110 -- it is another process
                await asyncio.sleep(_LOOK_SECONDS)
        return count


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver in its own process for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="hookseal-bench-tls-") as name:
        authority, shown, log_file = (Path(name) / each for each in ("authority.pem", "shown.pem", "receiver.log"))
        vouching = certificates.authority()
        authority.write_text(vouching.pem, encoding="ascii")
        shown.write_bytes(certificates.issued("127.0.0.1", by=vouching).both)
        async with (
            module("tools.sink", str(shown), environment=os.environ, log_file=log_file) as process,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session,
        ):
            plain, secure = map(int, (await line(process, log_file)).split())
            yield Receiver((plain, secure), authority, process.pid, session)


# The servers of a run, and a new database for every round, so that no round affects another.


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A PostgreSQL, a Valkey, a receiver, and an installation whose database is cloned for every round."""

    stack: Stack
    folder: Path
    receiver: Receiver
    installation: Installation
    machine: Machine
    postgresql_pid: int
    redis_pid: int

    @property
    def worker_log(self) -> Path:
        """The file for the log of a worker."""
        return self.folder / "worker.log"

    @asynccontextmanager
    async def fresh(self, number: int = 0) -> AsyncIterator[tuple[Installation, Connection]]:
        """Provide a new installation with endpoints only, and an observer of it, for the length of the block.

        Several may exist side by side if each has another number, from 0 to 15.
        """
        async with self.database("hookseal", number) as url, self.observer(url) as observer:
            redis_url = sibling(self.stack.valkey.url, str(number))
            settings = self.installation.settings | {"DATABASE_URL": url, "REDIS_URL": redis_url}
            yield replace(self.installation, database_url=url, redis_url=redis_url, settings=settings), observer

    @asynccontextmanager
    async def database(self, template: str = "template1", number: int = 0) -> AsyncIterator[str]:
        """Provide the url of a new database, and empty the Redis of that number, for the length of the block."""
        name = f"bench_round_{number}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
        async with Redis.from_url(sibling(self.stack.valkey.url, str(number))) as client:
            await client.flushdb()
        try:
            yield sibling(self.stack.postgres.url, name)
        finally:
            await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def observer(self, database_url: str) -> AsyncIterator[Connection]:
        """Provide a connection of the measurement's own, whose statements and CPU are not counted."""
        connection = await connect(database_url)
        try:
            await connection.execute("SET log_statement = 'none'")
            yield connection
        finally:
            await connection.close()

    async def log(self, connection: Connection, *settings: str) -> None:
        """Give this database settings of the log, from the next connection on."""
        database = await connection.fetchval("SELECT current_database()")
        for setting in settings:
            await connection.execute(f'ALTER DATABASE "{database}" SET {setting}')

    def statements(self) -> int:
        """Return the number of logged statements so far, without BEGIN and COMMIT."""
        return len(_STATEMENT.findall((self.folder / "postgres.log").read_bytes()))

    async def redis_commands(self) -> int:
        """Return the number of commands that Redis has run so far, without those of this harness."""
        async with Redis.from_url(self.stack.valkey.url) as client:
            stats = await client.info("commandstats")
        ours = {"info", "hello", "auth", "select", "client|setinfo", "client|setname"}
        return sum(int(stat["calls"]) for name, stat in stats.items() if name.removeprefix("cmdstat_") not in ours)

    async def add_many(self) -> None:
        """Add the missing endpoints of the tenant with many, for every later database."""
        async with self.observer(self.installation.database_url) as connection:
            made = await connection.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE tenant_id = $1", MANY)
            urls = (self.receiver.url(name=str(number)) for number in range(made, ENDPOINTS))
            await add_endpoints(connection, self.installation.keyring, (endpoint(MANY, url) for url in urls))

    async def _execute(self, statement: str) -> None:
        async with self.observer(sibling(self.stack.postgres.url, "postgres")) as connection:
            await connection.execute(statement)


@asynccontextmanager
async def site(*, durable: bool = False, next_key: bool = False) -> AsyncIterator[Site]:
    """Run the servers for the length of the block, in a temporary folder, which is then removed.

    Unless `durable`, PostgreSQL writes without fsync, since the disks of machines differ too much. With `next_key` the
    installation has a second master key.
    """
    with scratch(for_servers()) as folder:
        async with stack(folder, durable=durable) as both, receiving() as receiver:
            installation = await install(both, folder)
            if next_key:
                installation = await with_next_key(installation, folder)
            connection = await connect(installation.database_url)
            try:
                await add_endpoints(connection, installation.keyring, _endpoints(receiver))
                postgresql_pid = parent_of(connection.get_server_pid())
                version = str(await connection.fetchval("SHOW server_version")).split()[0]
            finally:
                await connection.close()
            async with Redis.from_url(both.valkey.url) as client:
                server = await client.info("server")
            valkey = server.get("valkey_version")
            yield Site(
                stack=both,
                folder=folder,
                receiver=receiver,
                installation=installation,
                machine=machine(version, f"Valkey {valkey}" if valkey else f"Redis {server['redis_version']}"),
                postgresql_pid=postgresql_pid,
                redis_pid=int(server["process_id"]),
            )


def environment_of(
    installation: Installation, receiver: Receiver, concurrency: int | None = None, /, **more: str
) -> dict[str, str]:
    """Return the environment of a worker of that installation; without `concurrency` it has the default."""
    own = {} if concurrency is None else {"HOOKSEAL_CONCURRENCY": str(concurrency)}
    return installation.environment(os.environ) | {"HOOKSEAL_EGRESS_CA_FILE": str(receiver.authority), **own, **more}


async def operator_of(connection: Connection, keyring: KeyRing) -> Operator:
    """Return an operator on that connection."""
    return Operator(connection=connection, unlocked=await unlock(connection, Provider.DB, keyring), who="bench")


def endpoint(tenant: str, url: str, event_type: str = "*") -> NewEndpoint:
    """Return an endpoint as installed, for events of that type."""
    return NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=(event_type,))


async def add_endpoints(connection: Connection, keyring: KeyRing, endpoints: Iterable[NewEndpoint]) -> None:
    """Add these endpoints, each with a secret of its own."""
    operator = await operator_of(connection, keyring)
    for new in endpoints:
        await add_endpoint(operator, new, None, own_drain_seconds=_DRAIN_SECONDS)


def _endpoints(receiver: Receiver) -> Iterable[NewEndpoint]:
    places = {TENANT: receiver.url(), SLOW: receiver.url(does=SLOW_MS), SECURE: receiver.url(secure=True)}
    for tenant, url in places.items():
        yield endpoint(tenant, url)
        yield replace(endpoint(tenant + WIDE, url), concurrency=LIMIT)
    for tenant, delay_ms in {HELD: _HELD_MS, HUNG: _HUNG_MS}.items():
        waiting = endpoint(tenant + WIDE, receiver.url(does=delay_ms))
        yield replace(waiting, concurrency=LIMIT, timeout_ms=_TIMEOUT_MS)


# Deliveries that are published before a worker starts, and awaited until each is recorded.


class Queued(NamedTuple):
    """Waiting deliveries, and the bytes of WAL that PostgreSQL wrote to store them."""

    rings: tuple[Ring, ...]
    wal_bytes: int


async def published(connection: Connection, tenant: str, deliveries: int, body_bytes: int = KB) -> Queued:
    """Publish by SQL until that many deliveries wait; a tenant with many endpoints needs one event for all of them."""
    events = -(-deliveries // ENDPOINTS) if tenant == MANY else deliveries
    before = await _wal(connection)
    rows = await connection.fetch(_PUBLISH, tenant, events, order(body_bytes).encode())
    wal_bytes = await _wal(connection) - before
    rings = (
        Ring(tenant_id=TenantId(tenant), endpoint_id=EndpointId(row[1]), delivery_id=DeliveryId(row[0])) for row in rows
    )
    return Queued(tuple(rings), wal_bytes)


async def stored_only(connection: Connection, tenant: str, events: int) -> int:
    """Publish that many events of 1 KB by SQL without a ring, and return the number of deliveries."""
    return int(await connection.fetchval(_STORE, tenant, events, order(KB).encode()))


async def rung(redis_url: str, queued: Queued) -> None:
    """Ring all of them, as the Publisher does after each event."""
    ringing = bell(redis_url)
    try:
        await ringing.ring(queued.rings)
    finally:
        await ringing.close()


async def all_recorded(connection: Connection, patience_seconds: float = 60.0) -> None:
    """Return once no delivery is pending or being sent. Raises `TimeoutError`."""
    async with asyncio.timeout(patience_seconds):
        while await connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 -- a table tells nobody when it changes
            await asyncio.sleep(_LOOK_SECONDS)


async def _wal(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


# The cost of a period.


class Reading(NamedTuple):
    """CPU seconds of each part, bytes of WAL and commands of Redis so far, or in a period."""

    cpu: dict[str, float]
    wal_bytes: float
    redis_commands: float

    def until(self, later: "Reading") -> "Reading":
        """Return the difference between the two readings."""
        cpu = {part: later.cpu[part] - seconds for part, seconds in self.cpu.items()}
        return Reading(cpu, later.wal_bytes - self.wal_bytes, later.redis_commands - self.redis_commands)


class Meter:
    """Reads the counters for some workers. The observer's connection to PostgreSQL is not counted."""

    def __init__(self, here: Site, observer: Connection, *workers: int) -> None:
        self._site = here
        self._observer = observer
        self._workers = list(workers)
        self._at_ready: dict[str, float] = {}
        self._early = 0

    async def ready(self, worker: int) -> None:
        """Count that worker from now on, and the servers from the first worker on, without the cost of its start."""
        self._workers.append(worker)
        own = tree_seconds([worker])
        self._at_ready = {**self.cpu(), **self._at_ready, WORKER: self._at_ready.get(WORKER, 0.0) + own}

    async def parent_ready(self, worker: int) -> None:
        """Do the same for a parent, which reports once all of its processes are ready: some have delivered by then."""
        await self.ready(worker)
        self._early = (await self._site.receiver.counted()).requests

    async def since_ready(self, before: Reading, deliveries: int) -> Reading:
        """Return the cost of that many deliveries; the CPU is extrapolated from that since the workers were ready."""
        found = before._replace(cpu=self._at_ready).until(await self.read())
        share = deliveries / max(1, deliveries - self._early)
        return found._replace(cpu={part: seconds * share for part, seconds in found.cpu.items()})

    async def read(self) -> Reading:
        """Return the current values of all counters."""
        return Reading(self.cpu(), await _wal(self._observer), await self._site.redis_commands())

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        return {
            WORKER: tree_seconds(self._workers),
            POSTGRESQL: tree_seconds([self._site.postgresql_pid], without=[self._observer.get_server_pid()]),
            REDIS: tree_seconds([self._site.redis_pid]),
            RECEIVER: tree_seconds([self._site.receiver.pid]),
        }
