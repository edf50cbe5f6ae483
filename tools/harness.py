"""The harness of every measurement: servers, receiver, workers, deliveries, and the CPU that each part takes."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from redis.asyncio import Redis

from hookseal.demo.installation import Installation, install, with_next_key
from hookseal.demo.process import Start, start_worker, worker_process
from hookseal.dispatcher.core.endpoint_settings import EndpointSettings
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import postgres_tree
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
API, CALLER = "api", "caller"
KB: Final = 1_024
EVENT: Final = "bench.tick"  # the type of events that every endpoint subscribes to
_HOSTS: Final = 100  # 127.0.0.1 to 127.0.0.100, in one certificate of usual size
_PORTS: Final = 100  # with TLS
_DRAIN_SECONDS: Final = 25
_LINE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# One line for each statement, whichever protocol it came by; the text of one with several lines goes on without this.
_STATEMENT: Final = re.compile(rb"LOG:  (?:statement|execute [^:]+): (?!BEGIN|COMMIT|ROLLBACK)", re.IGNORECASE)
_PUBLISH: Final = """
SELECT tenant, p.endpoint_id::text, p.delivery_id::text
  FROM hookseal.uuid7() AS round, generate_series(1, $2::int) AS n, unnest($1::text[]) AS tenant,
       LATERAL hookseal.publish_raw(tenant, $4, $3, format('%s-%s', round, n), rings => true) AS p
"""
_STORE: Final = """
SELECT count(*)
  FROM hookseal.uuid7() AS round, generate_series(1, $2::int) AS n, unnest($1::text[]) AS tenant,
       LATERAL hookseal.publish_raw(tenant, $4, $3, format('%s-%s', round, n)) AS p
"""
_MADE: Final = "SELECT count(*) FROM hookseal.endpoints WHERE tenant_id = ANY ($1)"
# One to an endpoint that fails is never finished while it is measured.
_UNFINISHED: Final = """
SELECT EXISTS (SELECT FROM hookseal.deliveries AS d WHERE d.state IN ('pending', 'sending') AND NOT EXISTS (
    SELECT FROM hookseal.endpoints AS e WHERE e.id = d.endpoint_id AND e.url LIKE '%/fail/%'))
"""

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
    resumed: int
    seconds: float
    milliseconds: list[float]


class Receiver(NamedTuple):
    """The receiver, controlled over HTTP. The first of its ports is without TLS.

    `authority` is the file of its CA certificate.
    """

    ports: tuple[int, ...]
    authority: Path
    pid: int
    session: aiohttp.ClientSession

    def url(self, *, secure: bool = False, does: int | str = 0, name: str = "", place: int = 0) -> str:
        """Return an address that answers after that many milliseconds, or does what `tools.sink` calls so.

        With TLS, each of 10,000 places has a host and a port that no other one has together.
        """
        scheme, port = ("https", self.ports[1 + place // _HOSTS]) if secure else ("http", self.ports[0])
        return f"{scheme}://{_host(place)}:{port}/{does}/{name}"

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
        shown.write_bytes(certificates.issued(*map(_host, range(_HOSTS)), by=vouching).both)
        async with (
            module("tools.sink", str(shown), str(_PORTS), environment=os.environ, log_file=log_file) as process,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session,
        ):
            ports = tuple(map(int, (await line(process, log_file)).split()))
            yield Receiver(ports, authority, process.pid, session)


def _host(place: int) -> str:
    return f"127.0.0.{1 + place % _HOSTS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The endpoints of a case: `each` of every one of so many tenants. By default all is as installed.

    The receiver does the same to all of them, but for `failing` of 100, to which it answers 500. `own`: each is at a
    place of its own, with TLS; otherwise they share the connections to one.
    """

    tenants: int = 1
    each: int = 1
    does: int | str = 0
    secure: bool = False
    own: bool = False
    failing: int = 0
    limit: int | None = None
    timeout_ms: int = 5_000

    @property
    def number(self) -> int:
        """The number of endpoints."""
        return self.tenants * self.each

    @property
    def answering(self) -> int:
        """The number of those that do not fail."""
        return sum(number % 100 >= self.failing for number in range(self.number))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tenants, which no other kind of endpoints has."""
        kind = f"{self.tenants}x{self.each}-{self.does}-{self.failing}-{self.limit}-{self.timeout_ms}"
        tls = "-tls" * self.secure + "-own" * self.own
        return tuple(f"{kind}{tls}-{number}" for number in range(self.tenants))

    @property
    def targets(self) -> list[tuple[str, str]]:
        """For each endpoint its tenant and the type of events that are only for it; tenants take turns."""
        return [(tenant, event_of(number)) for number in range(self.each) for tenant in self.names]

    def events(self, deliveries: int) -> int:
        """Return how many events each tenant must get, so that there are at least so many deliveries."""
        return -(-deliveries // self.number)

    def urls(self, receiver: Receiver) -> tuple[str, ...]:
        """Return the address of each, tenants taking turns."""
        numbers = range(self.number)
        return tuple(
            receiver.url(
                secure=self.secure,
                does="fail" if number % 100 < self.failing else self.does,
                name=str(number),
                place=number if self.own else 0,
            )
            for number in numbers
        )

    def new(self, receiver: Receiver) -> Iterator[NewEndpoint]:
        """Yield each endpoint. It gets events of the type `EVENT`, and those of a type that is its own."""
        for number, url in enumerate(self.urls(receiver)):
            tenant, types = self.names[number % self.tenants], (EVENT, event_of(number // self.tenants))
            settings = EndpointSettings(concurrency=self.limit, timeout_ms=self.timeout_ms)
            yield NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=types, settings=settings)


def event_of(number: int) -> str:
    """Return the type of events that only the endpoint of that number, of each tenant, subscribes to."""
    return f"bench.{number}"


# The servers of a run, and a new database for every round, so that no round affects another.


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Which servers are run: with fsync or without, the oldest PostgreSQL that is here, so many milliseconds away.

    `away_ms` is the time that a byte takes from a worker to PostgreSQL, and back.
    """

    durable: bool = False
    oldest: bool = False
    away_ms: float = 0.0


def oldest_postgresql() -> Path:
    """Return the folder of PostgreSQL 15 of Debian, or else of the 16 that the pinned wheel contains, too."""
    of_debian = Path("/usr/lib/postgresql/15")
    return of_debian if (of_debian / "bin" / "initdb").is_file() else postgres_tree().with_name("pginstall")


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
    away_port: int | None  # that of the PostgreSQL for workers, producers and contenders, if it is further away

    def reached(self, database_url: str) -> str:
        """Return the url by which that database is reached, except by the measurement itself."""
        parts = urlsplit(database_url)
        place = parts.netloc.rpartition(":")[0] + f":{self.away_port or parts.port}"
        return parts._replace(netloc=place).geturl()

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
            reached = self.reached(url)
            settings = self.installation.settings | {"DATABASE_URL": reached, "REDIS_URL": redis_url}
            yield replace(self.installation, database_url=reached, redis_url=redis_url, settings=settings), observer

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

    @asynccontextmanager
    async def with_endpoints(
        self, *kinds: Endpoints, number: int = 0
    ) -> AsyncIterator[tuple[Installation, Connection]]:
        """Provide the same, with these endpoints, which every later database has, too."""
        for endpoints in kinds:
            await self._add(endpoints)
        async with self.fresh(number) as made:
            yield made

    async def _add(self, endpoints: Endpoints) -> None:
        """Add these endpoints to the installation, except for those that are there, also after a call that ended."""
        async with self.observer(self.installation.database_url) as connection:
            made = await connection.fetchval(_MADE, list(endpoints.names))
            new = islice(endpoints.new(self.receiver), made, None)
            await add_endpoints(connection, self.installation.keyring, new)

    async def _execute(self, statement: str) -> None:
        async with self.observer(sibling(self.stack.postgres.url, "postgres")) as connection:
            await connection.execute(statement)


@asynccontextmanager
async def site(servers: Servers = Servers(), *, next_key: bool = False) -> AsyncIterator[Site]:
    """Run the servers for the length of the block, in a temporary folder, which is then removed.

    With `next_key` the installation has a second master key.
    """
    tree = oldest_postgresql() if servers.oldest else None
    with scratch(for_servers()) as folder:
        async with (
            stack(folder, durable=servers.durable, tree=tree) as both,
            receiving() as receiver,
            _away(both.postgres.port, servers.away_ms, folder / "away.log") as away_port,
        ):
            installation = await install(both, folder)
            if next_key:
                installation = await with_next_key(installation, folder)
            connection = await connect(installation.database_url)
            try:
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
                away_port=away_port,
            )


@asynccontextmanager
async def _away(port: int, milliseconds: float, log_file: Path) -> AsyncIterator[int | None]:
    """Provide a port that is so far away from that one, for the length of the block; None if it is not away."""
    if not milliseconds:
        yield None
        return
    arguments = ("tools.away", str(port), str(milliseconds))
    async with module(*arguments, environment=os.environ, log_file=log_file) as process:
        yield int(await line(process, log_file))


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


# Deliveries that are published before a worker starts, and awaited until each is recorded.


class Queued(NamedTuple):
    """Waiting deliveries, and the bytes of WAL that PostgreSQL wrote to store them."""

    rings: tuple[Ring, ...]
    wal_bytes: int


async def published(connection: Connection, tenants: Sequence[str], events: int, body_bytes: int = KB) -> Queued:
    """Publish so many events for each tenant by SQL, each for all of its endpoints; tenants take turns."""
    before = await _wal(connection)
    rows = await connection.fetch(_PUBLISH, tenants, events, order(body_bytes).encode(), EVENT)
    wal_bytes = await _wal(connection) - before
    rings = (
        Ring(tenant_id=TenantId(tenant), endpoint_id=EndpointId(of), delivery_id=DeliveryId(id_))
        for tenant, of, id_ in rows
    )
    return Queued(tuple(rings), wal_bytes)


async def stored_only(connection: Connection, tenants: Sequence[str], events: int) -> int:
    """Do the same with events of 1 KB and without a ring, and return the number of deliveries."""
    return int(await connection.fetchval(_STORE, tenants, events, order(KB).encode(), EVENT))


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
