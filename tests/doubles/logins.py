"""Database roles with a login that exist during a test and have only the rights of their groups."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from hookseal.postgres.pool import Pool

_NUMBERS = count(1)


@asynccontextmanager
async def login(pool: Pool, database_url: str, *groups: str, suffix: str = "") -> AsyncIterator[tuple[str, str]]:
    """Yield the name of a role that is a member of these groups, and the URL with its login."""
    database = await pool.fetchval("SELECT current_database()")
    role = f"hookseal_test_{database[-20:]}_{next(_NUMBERS)}{suffix}"
    quoted = await pool.fetchval("SELECT quote_ident($1)", role)
    await pool.execute(f"CREATE ROLE {quoted} LOGIN PASSWORD 'p'")
    try:
        for group in groups:
            await pool.execute(f"GRANT {group} TO {quoted}")
        yield role, f"postgresql://{role}:p@{database_url.partition('@')[2]}"
    finally:
        await pool.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")
