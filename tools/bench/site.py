"""The servers of a run, and a new database for every round, so that no round affects another."""

import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
from redis.asyncio import Redis

from hookseal.config.variables import Variables
from hookseal.demo.installation import Installation, install
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.stack import Stack, stack
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connect
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from tests.servers import sibling
from tools.bench.cpu import parent_of
from tools.bench.plan import LIMIT
from tools.bench.receiver import Receiver, receiving

TENANT: Final = "bench"
SLOW: Final = "slow"
HELD: Final = "held"
HUNG: Final = "hung"
SECURE: Final = "secure"
MANY: Final = "many"
WIDE: Final = "-wide"  # of the name of a tenant whose endpoint has the limit of `plan.LIMIT`
SLOW_MS: Final = 50
HELD_MS: Final = 4_000  # a worker begins 500 requests in 1.7 s while none is answered yet
HUNG_MS: Final = 60_000
_TIMEOUT_MS: Final = 20_000  # no request to a receiver that hangs ends in the seconds in which it is measured
ENDPOINTS: Final = 1_000
_DRAIN_SECONDS: Final = 25
_TEMPLATE: Final = "hookseal"
_FRESH: Final = "bench_round"
# One line for each statement, whichever protocol it came by; the text of one with several lines goes on without this.
_STATEMENT: Final = re.compile(rb"LOG:  (?:statement|execute [^:]+): (?!BEGIN|COMMIT|ROLLBACK)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A PostgreSQL, a Valkey, a receiver, and an installation whose database is cloned for every round."""

    stack: Stack
    folder: Path
    receiver: Receiver
    installation: Installation
    postgresql_pid: int
    redis_pid: int

    @asynccontextmanager
    async def fresh(self, number: int = 0) -> AsyncIterator[Installation]:
        """Provide a new installation with endpoints only and an empty Redis for the length of the block.

        Several may exist side by side if each has another number, from 0 to 15.
        """
        async with self.database(_TEMPLATE, number) as url:
            redis_url = self._redis_url(number)
            settings = self.installation.settings | {"DATABASE_URL": url, "REDIS_URL": redis_url}
            yield replace(self.installation, database_url=url, redis_url=redis_url, settings=settings)

    @asynccontextmanager
    async def database(self, template: str = "template1", number: int = 0) -> AsyncIterator[str]:
        """Provide the url of a new database, and empty the Redis of that number, for the length of the block."""
        name = f"{_FRESH}_{number}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
        async with Redis.from_url(self._redis_url(number)) as client:
            await client.flushdb()
        try:
            yield sibling(self.stack.postgres.url, name)
        finally:
            await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def observer(self, database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Provide a connection of the benchmark's own, whose statements are not counted."""
        connection = await connect(database_url)
        try:
            await connection.execute("SET log_statement = 'none'")
            yield connection
        finally:
            await connection.close()

    async def log_statements(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Log every statement in this database from the next connection on, so that `statements` can count them."""
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE \"{database}\" SET log_statement = 'all'")

    def statements(self) -> int:
        """Return the number of logged statements so far, without BEGIN and COMMIT."""
        return len(_STATEMENT.findall((self.folder / "postgres.log").read_bytes()))

    async def redis_commands(self) -> int:
        """Return the number of commands that Redis has run so far, without this one."""
        async with Redis.from_url(self.stack.valkey.url) as client:
            stats = await client.info("commandstats")
        ours = {"info", "hello", "auth", "select", "client|setinfo", "client|setname"}
        return sum(int(stat["calls"]) for name, stat in stats.items() if name.removeprefix("cmdstat_") not in ours)

    async def versions(self) -> tuple[str, str]:
        """Return the versions of PostgreSQL and of the Redis server."""
        async with self.observer(self.installation.database_url) as connection:
            postgresql = str(await connection.fetchval("SHOW server_version")).split()[0]
        async with Redis.from_url(self.stack.valkey.url) as client:
            server = await client.info("server")
        valkey = server.get("valkey_version")
        return postgresql, f"Valkey {valkey}" if valkey else f"Redis {server['redis_version']}"

    async def add_many(self) -> None:
        """Add the missing endpoints of the tenant with many endpoints, for every later database."""
        connection = await connect(self.installation.database_url)
        try:
            made = await connection.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE tenant_id = $1", MANY)
            addresses = (self.receiver.url(name=str(number)) for number in range(made, ENDPOINTS))
            await _endpoints(connection, self.installation, (_endpoint(MANY, url) for url in addresses))
        finally:
            await connection.close()

    def _redis_url(self, number: int) -> str:
        return sibling(self.stack.valkey.url, str(number))

    async def _execute(self, statement: str) -> None:
        connection = await connect(sibling(self.stack.postgres.url, "postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def site(*, durable: bool = False) -> AsyncIterator[Site]:
    """Run the servers for the length of the block, in a temporary folder, which is then removed.

    Unless `durable`, PostgreSQL writes without fsync, since the disks of benchmark machines differ too much.
    """
    with scratch(for_servers()) as folder:
        async with stack(folder, durable=durable) as both, receiving() as receiver:
            installation = await install(both, folder)
            connection = await connect(installation.database_url)
            try:
                await _endpoints(connection, installation, _new(receiver))
                postgresql_pid = parent_of(connection.get_server_pid())
            finally:
                await connection.close()
            async with Redis.from_url(both.valkey.url) as client:
                redis_pid = int((await client.info("server"))["process_id"])
            yield Site(
                stack=both,
                folder=folder,
                receiver=receiver,
                installation=installation,
                postgresql_pid=postgresql_pid,
                redis_pid=redis_pid,
            )


def environment_of(
    installation: Installation, receiver: Receiver, concurrency: int | None = None, /, **more: str
) -> dict[str, str]:
    """Return the environment of a worker of that installation; without `concurrency` it has the default."""
    own = {} if concurrency is None else {"HOOKSEAL_CONCURRENCY": str(concurrency)}
    ours = {"HOOKSEAL_EGRESS_CA_FILE": str(receiver.authority), **own, **more}
    return installation.environment(os.environ) | ours


def differing(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings `HOOKSEAL_*` of a worker that differ from their defaults; empty if not to be shown."""
    fields = {str(each.alias): each for each in Variables.model_fields.values()}
    return {
        name: value if fields[name].repr else ""
        for name, value in environment.items()
        if name.startswith("HOOKSEAL_") and name in fields and str(fields[name].default).lower() != value
    }


async def _endpoints(
    connection: "asyncpg.Connection[asyncpg.Record]", installation: Installation, endpoints: Iterable[NewEndpoint]
) -> None:
    unlocked = await unlock(connection, Provider.DB, installation.keyring)
    operator = Operator(connection=connection, unlocked=unlocked, who="bench")
    for new in endpoints:
        await add_endpoint(operator, new, None, own_drain_seconds=_DRAIN_SECONDS)


def _new(receiver: Receiver) -> Iterable[NewEndpoint]:
    places = {TENANT: receiver.url(), SLOW: receiver.url(delay_ms=SLOW_MS), SECURE: receiver.url(secure=True)}
    for tenant, url in places.items():
        yield _endpoint(tenant, url)
        yield replace(_endpoint(tenant + WIDE, url), concurrency=LIMIT)
    for tenant, delay_ms in {HELD: HELD_MS, HUNG: HUNG_MS}.items():
        waiting = _endpoint(tenant + WIDE, receiver.url(delay_ms=delay_ms))
        yield replace(waiting, concurrency=LIMIT, timeout_ms=_TIMEOUT_MS)


def _endpoint(tenant: str, url: str) -> NewEndpoint:
    return NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=("*",))
