"""One pass over all records of a key: by the real operation, and by the same statements without a key."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hookseal.operations.key.keys import finish_rewrap, rewrap_batch
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import statements
from hookseal.secrets.core.envelope import HEAD_BYTES
from hookseal.secrets.key.rewrap import BATCH, BEGINNING, Cursor

_SQL: Final = statements("hookseal.secrets.key", "rewrap.sql")


async def rewrap(operator: Operator, key_id: str) -> int:
    """Re-wrap every record of that key under the active one, as `hookseal key rewrap` does, and return their number.

    Raises `RuntimeError` if one is left.
    """
    moved = 0
    for wait in (False, True):
        after: Cursor | None = BEGINNING
        while after is not None:
            batch = await rewrap_batch(operator, key_id, after, wait=wait)
            if batch is None:
                break
            moved, after = moved + batch.moved, batch.last
    left = (await finish_rewrap(operator, key_id)).records
    if left:
        raise RuntimeError(f"{left} records were left under the old key")
    return moved


async def write_alone(connection: Connection, key_id: str, to: str) -> int:
    """Read and write the same rows by the same statements, with random heads, and return their number.

    Each batch is rolled back: PostgreSQL has done all the work, and the records are unchanged.
    """
    written = 0
    after: Cursor | None = BEGINNING
    while after is not None:
        async with _rolled_back(connection):
            rows = await connection.fetch(_SQL["skip_locked"], key_id, *after, BATCH, HEAD_BYTES)
            columns = [[row[name] for row in rows] for name in ("tenant_id", "name", "version", "head")]
            heads = [os.urandom(HEAD_BYTES) for _ in rows]
            await connection.execute(_SQL["write"], to, *columns, heads, HEAD_BYTES)
        written += len(rows)
        last = rows[-1] if len(rows) == BATCH else None
        after = None if last is None else (last["tenant_id"], last["name"], last["version"])
    return written


@asynccontextmanager
async def _rolled_back(connection: Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
