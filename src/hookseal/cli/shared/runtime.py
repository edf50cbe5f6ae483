"""What every command needs: its settings, its connection, and the translation of errors of libraries."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, TypeVar

import asyncpg

from hookseal.cli.shared.starting import begin
from hookseal.config.load import EVERYTHING
from hookseal.config.settings import Database, Part, Settings
from hookseal.postgres import opening
from hookseal.postgres.schema import revision
from hookseal.postgres.translate import for_operator

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

T = TypeVar("T")


def start(needs: frozenset[Part] = EVERYTHING, *, draws_key: bool = False) -> Settings:
    """Return the settings that the command needs; configure logs by them, and protect a process that gets keys.

    A command that draws the master key needs settings without one. Raises `ConfigError` with all problems, and
    `Unavailable` if a KMS must unwrap the master key and does not answer.
    """
    return begin(needs, draws_key=draws_key)


def run(
    coroutine: Coroutine[object, object, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command to its end and return its result. Raises `HooksealError` if a server does not answer."""
    with translated(), asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(coroutine)


@asynccontextmanager
async def connect(database: Database) -> AsyncIterator[Connection]:
    """Give one connection to PostgreSQL, which is closed at the end of the block.

    Raises `Unavailable` naming its address, within five seconds if it does not answer, and
    `ConfigError` if its url cannot be used.
    """
    async with opening.connection(database) as connection:
        with translated(address=database.address):
            yield connection


def reading(settings: Settings, read: Callable[[Connection], Awaitable[T]]) -> T:
    """Call `read` with a connection to a database with the schema of this version, and return its result.

    Raises as `connect` does, and `ConfigError` if the schema does not fit.
    """

    async def read_once() -> T:
        async with connect(settings.database) as connection:
            await require_schema(connection)
            return await read(connection)

    return run(read_once())


async def require_schema(connection: Connection) -> None:
    """Return if the schema is that of this version. Raises `ConfigError` with what to do."""
    await revision.require(connection)


@contextmanager
def translated(*, address: str | None = None) -> Iterator[None]:
    """Translate errors of libraries in the block for the operator; a fault of hookseal passes unchanged."""
    try:
        yield
    except Exception as error:
        translation = for_operator(error, address=address)
        if translation is None:
            raise
        raise translation from None
