"""PostgreSQL servers with a database of their own, and the commands of docs/restore.md as written."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from hookseal.embedded.server import Server
from hookseal.ground.clock import SystemClock
from hookseal.operations.endpoint.endpoints import AddedEndpoint, delete_endpoint
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.receiver import VerificationError, verify
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.cli.shell import Shell
from tests.doubles.stored import Installation, keyring
from tests.fresh import fresh_postgres
from tests.worker import world as worlds
from tests.worker.environment import environment
from tests.worker.world import Received, World

_PAGE = Path(__file__).parents[2] / "docs" / "restore.md"


def documented(heading: str) -> list[str]:
    """Return the commands under this heading, in order; fail if there is no such heading or command."""
    text = _PAGE.read_text(encoding="utf-8")
    [section] = [part for part in text.split("\n#") if part.lstrip("#").startswith(f" {heading}\n")]
    found = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert found, f"no command under {heading}"
    return found


# A separate PostgreSQL server with a database `app` and its logins.

DATABASE = "app"
OWNER, WORKER, PRODUCER = "app", "delivers", "sells"
_PASSWORD = "hunter2"  # of servers that run for one test
_LOGINS = {OWNER: "CREATEROLE", WORKER: "", PRODUCER: ""}


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and how its roles connect to it."""

    server: Server

    def url(self, login: str | None = None, database: str = DATABASE) -> str:
        """Return the url of a database for that login, or the superuser, with the password."""
        parts = urlsplit(self.server.url)
        who = parts.netloc if login is None else f"{login}:{_PASSWORD}@{parts.hostname}:{parts.port}"
        return parts._replace(netloc=who, path=f"/{database}").geturl()

    def bare_url(self, login: str | None = None, database: str = DATABASE) -> str:
        parts = urlsplit(self.url(login, database))
        return parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}").geturl()

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        connection = await asyncpg.connect(self.url(database=database), timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def set_passwords(self, *, make: bool) -> None:
        """Set every login's password, and create the logins first if `make` is true."""
        verb = "CREATE" if make else "ALTER"
        await self.execute(*(f"{verb} ROLE {name} LOGIN {may} PASSWORD '{_PASSWORD}'" for name, may in _LOGINS.items()))

    def store_passwords(self, shell: Shell) -> None:
        """Store the passwords of this server for the programs of PostgreSQL."""
        for url in (self.url(), *map(self.url, _LOGINS)):
            parts = urlsplit(url)
            shell.know(str(parts.hostname), int(parts.port or 0), str(parts.username), str(parts.password))


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Yield an empty server."""
    async with fresh_postgres(migrated=False) as server:
        yield Site(server)


@asynccontextmanager
async def begun(at: Site, redis_url: str, folder: Path) -> AsyncIterator[World]:
    """Yield an installation in the database `app` of a new server, begun by its owner."""
    await at.set_passwords(make=True)
    await at.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    await upgrade(at.url(OWNER))
    await at.execute(f"GRANT hookseal_worker TO {WORKER}")
    async with asyncpg.create_pool(at.url(OWNER), min_size=1, max_size=4) as pool:
        yield await worlds.world(pool, at.url(OWNER), redis_url, folder)


@asynccontextmanager
async def restored(at: Site, redis_url: str, folder: Path) -> AsyncIterator[World]:
    """Yield the installation that was restored to that database."""
    async with asyncpg.create_pool(at.url(OWNER), min_size=1, max_size=4) as pool:
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, keyring()))
        yield World(installation=installation, database_url=at.url(OWNER), redis_url=redis_url, folder=folder)


async def deleted(world: World, added: AddedEndpoint) -> None:
    await world.installation.act(delete_endpoint, added.pointer.tenant_id, added.pointer.endpoint_id)


def secret_of(made: AddedEndpoint | RotationResult) -> str:
    assert made.secret is not None
    return made.secret.reveal().decode()


def is_signed_with(got: Received, secret: str) -> bool:
    """Return whether the request has a current signature of that secret."""
    try:
        verify(got.body, got.headers, [secret], now=SystemClock().now())
    except VerificationError:
        return False
    return True


def shell(folder: Path, redis_url: str, **variables: str) -> Shell:
    """Return a shell with the settings of hookseal except `DATABASE_URL`, and with these variables."""
    return Shell(folder, environment("", redis_url) | variables)
