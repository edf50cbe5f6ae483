"""Copies of tables, from which a test puts every row back as it was."""

from hookseal.postgres.pool import Connection, Executor

_COLUMNS = (
    "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
    " WHERE attrelid = $1::text::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
)


async def keep(source: Executor, *tables: str) -> None:
    for table in tables:
        await source.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM hookseal.{table}")  # noqa: S608 -- a name of ours


async def put_back(connection: Connection, *tables: str) -> None:
    """Replace the rows of these tables by their copies; no trigger and no foreign key refuses it."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in tables:
            columns = await connection.fetchval(_COLUMNS, f"hookseal.{table}")
            await connection.execute(
                f"DELETE FROM hookseal.{table};"  # noqa: S608 -- names of ours
                f" INSERT INTO hookseal.{table} ({columns}) SELECT {columns} FROM kept_{table}"
            )
        await connection.execute("SET LOCAL session_replication_role = origin")
