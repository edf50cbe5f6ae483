"""A part of an open transaction: if it fails, it undoes itself and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

import asyncpg

from hookseal.errors import Conflict, HooksealError, Malformed, Unavailable
from hookseal.postgres.connect import SEARCH_PATH
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import of_the_caller

# What asyncpg makes of the values in savepoint.sql; of a UUID it makes a class of its own.
_PLAIN: Final[dict[str, object]] = {
    "timestamptz": datetime(2000, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    "date": date(2000, 1, 2),
    "uuid": UUID("0189a5d0-ac96-774b-bcce-b302099a8057"),
    "interval": timedelta(hours=26, minutes=3, seconds=4),
    "numeric": Decimal("12.5"),
    "bytea": b"\x00\xff",
    "bool": True,
    "int2": 1,
    "int4": 2,
    "int8": 3,
    "float4": 0.5,
    "float8": 1.5,
    "text": "a",
    "varchar": "a",
    "name": "a",
    "oid": 4,
}
_SQL: Final = Statements("hookseal.postgres", "savepoint.sql", seconds=None)


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Run the block in the open transaction: an error undoes the block and nothing else.

    Without the savepoint a caller who continues after an error would lose everything: PostgreSQL answers the commit
    of a failed transaction with a rollback, and no client reports that. Raises `Conflict` if the transaction has
    already failed.
    """
    await _run(connection, "begin")
    try:
        yield
    except BaseException:
        with suppress(Unavailable):  # then the transaction is lost as well, and the first error says why
            await _run(connection, "undo")
            await _run(connection, "keep")
        raise
    await _run(connection, "keep")


@asynccontextmanager
async def part_with_our_path(connection: Connection) -> AsyncIterator[None]:
    """Run the block as `savepoint` does, with our search path; the caller's search path is back after the block.

    So no function of another role is called in place of PostgreSQL's own. A lock time-out that the block sets is
    also undone. Raises as `of_the_caller` does.
    """
    with of_the_caller():
        async with savepoint(connection):
            row = await _SQL.row(connection, "settings")
            path, lock_timeout = ("", "0") if row is None else row
            await _SQL.execute(connection, "set", SEARCH_PATH, lock_timeout)
            yield
            await _SQL.execute(connection, "set", path, lock_timeout)


async def require_plain_types(connection: Connection) -> None:
    """Raise `Malformed`, with the type, if the caller gave the connection a codec for a type that we read or write.

    asyncpg then gives and takes other values for that type, which our statements do not expect. The search path must be
    ours.
    """
    try:
        row = await _SQL.row(connection, "types")
        with_codec = [] if row is None else [name for name, plain in _PLAIN.items() if not _is(row[name], plain)]
    except (HooksealError, asyncpg.PostgresError):
        raise
    except Exception:  # noqa: BLE001 -- of the codec
        with_codec = [name for name in _PLAIN if not await _reads_plainly(connection, name)]
    if with_codec:
        raise Malformed(
            f"the connection has a codec of its own for {with_codec[0]} (set_type_codec), so that hookseal would read "
            "and write other values than it means: give another connection, or remove the codec with "
            f"`await connection.reset_type_codec('{with_codec[0]}', schema='pg_catalog')`",
            field="connection",
        )


async def _reads_plainly(connection: Connection, name: str) -> bool:
    one = f"SELECT t.{name} FROM ({_SQL['types']}) AS t"  # noqa: S608 -- a name of ours
    try:
        return _is(await connection.fetchval(one), _PLAIN[name])
    except asyncpg.PostgresError:
        raise
    except Exception:  # noqa: BLE001 -- of the codec
        return False


def _is(value: object, plain: object) -> bool:
    return isinstance(value, type(plain)) and value == plain


async def _run(connection: Connection, name: str) -> None:
    try:
        await _SQL.execute(connection, name)
    except asyncpg.InFailedSQLTransactionError:
        raise Conflict("the transaction has already failed: roll it back first", field="connection") from None
