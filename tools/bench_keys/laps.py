"""One lap over all records of a key: by the real operation, and the same without a key in it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hookseal.ground.sql import statements
from hookseal.operations.operator import Operator
from hookseal.operations.rewrap import finish_rewrap, rewrap_batch
from hookseal.schema.database import Connection
from hookseal.secrets.envelope import HEAD_BYTES
from hookseal.secrets.rewrap import BATCH, BEGINNING, Place

_SQL: Final = statements("hookseal.secrets", "rewrap.sql")


async def rewrap(operator: Operator, key_id: str) -> int:
    """Seal every record of that key under the active one, as `hookseal key rewrap` does; return how many moved.

    Raises `RuntimeError` if one was left.
    """
    moved = 0
    for wait in (False, True):
        after: Place | None = BEGINNING
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
    """Read and write the same rows by the same statements, with random heads; return how many.

    Each batch is rolled back: PostgreSQL has done all the work, and the records are what they were.
    """
    written = 0
    after: Place | None = BEGINNING
    while after is not None:
        async with _rolled_back(connection):
            rows = await connection.fetch(_SQL["free"], key_id, *after, BATCH, HEAD_BYTES)
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
