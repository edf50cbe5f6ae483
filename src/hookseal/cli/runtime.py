"""What every command stands on: its settings, its connection, and foreign errors translated once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeAlias, TypeVar

import asyncpg

from hookseal.config.hardening import harden_process
from hookseal.config.load import EVERYTHING, load
from hookseal.config.settings import Database, Part, Settings
from hookseal.ground import log
from hookseal.ground.errors import HooksealError, Refused, Unavailable
from hookseal.schema import connect as schema_connect
from hookseal.schema import revision
from hookseal.schema.database import OUTAGES
from hookseal.schema.opening import opening

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

T = TypeVar("T")

_CONNECT_SECONDS: Final = 3.0  # with the start of Python, the whole command must have ended within five
_CLOSE_SECONDS: Final = 1.0
# Anything may raise an OSError: only what PostgreSQL's client raises is told of PostgreSQL.
_NOT_NOW: Final = tuple(outage for outage in OUTAGES if outage is not OSError)


def start(needs: frozenset[Part] = EVERYTHING) -> Settings:
    """Return the settings that the command needs, with logs as they say; who holds a key is hardened.

    Raises `ConfigError` with all problems.
    """
    settings = load(needs=needs)
    if Part.SECRETS in needs:
        harden_process()
    log.configure(level=settings.log.level, style=settings.log.style)
    return settings


def run(
    coroutine: Coroutine[object, object, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command to its end and return what it returns. Raises `HooksealError` for what did not answer."""
    with translated(), asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(coroutine)


@asynccontextmanager
async def connect(database: Database) -> AsyncIterator[Connection]:
    """Hold one connection to PostgreSQL.

    Raises `Unavailable` naming its address, within five seconds if it does not answer, and
    `ConfigError` if its url cannot be used.
    """
    connection = await _opened(database)
    try:
        with translated(address=database.address):
            yield connection
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=_CLOSE_SECONDS)
    finally:
        connection.terminate()


async def require_schema(connection: Connection) -> None:
    """Return only if the schema is that of this version. Raises `ConfigError` naming what to do."""
    await revision.require(connection)


@contextmanager
def translated(*, address: str | None = None) -> Iterator[None]:
    """Raise what a foreign error in the block means for the operator; what is a fault of ours passes as it is."""
    try:
        yield
    except Exception as error:
        known = translate(error, address=address)
        if known is None:
            raise
        raise known from None


def translate(error: Exception, *, address: str | None = None) -> HooksealError | None:
    """Return what a foreign error means for the operator, None if it is a fault of ours."""
    name = type(error).__name__
    postgres = f"PostgreSQL at {address}" if address else "PostgreSQL"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return Refused(
            f"{postgres} does not let this role do it ({name}): log in as the owner of the schema, or let it grant "
            "this role hookseal_operator (to change), hookseal_worker (to deliver) or hookseal_readonly (to look)"
        )
    # A ValueError of asyncpg is about an argument, which we gave.
    if isinstance(error, _NOT_NOW) and not isinstance(error, ValueError):
        return Unavailable(f"{postgres} cannot do it now ({name}): try again once it answers")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unavailable(f"{postgres if address else 'the other side'} does not answer ({name}): try again")
    return None


async def _opened(database: Database) -> Connection:
    name = database.application_name or "hookseal"
    with opening(address=database.address, variable=database.variable):
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await schema_connect.connect(database.url, application_name=name)
