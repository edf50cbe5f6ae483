"""Who owns the functions that publish: they run with its rights, so it has the least of all (design 1.4)."""

from typing import Final

import asyncpg

_STRAY: Final = """
    SELECT p.oid::regprocedure::text AS name
    FROM pg_proc AS p
    WHERE p.pronamespace = 'hookseal'::regnamespace AND p.proname IN ('publish', 'publish_raw')
      AND p.proowner <> 'hookseal_publisher'::regrole
"""
_GIVE: Final = """
    ALTER FUNCTION {name} OWNER TO hookseal_publisher;
    REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION {name} TO hookseal_producer, CURRENT_USER
"""


async def give_back(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have `hookseal_publisher` own the functions that publish, which a restore with `--no-owner` gave to another role.

    Raises `asyncpg.InsufficientPrivilegeError` if this role may not.
    """
    async with connection.transaction():
        stray = [row["name"] for row in await connection.fetch(_STRAY)]
        if not stray:
            return
        await connection.execute("GRANT hookseal_publisher TO CURRENT_USER")
        await connection.execute("GRANT USAGE, CREATE ON SCHEMA hookseal TO hookseal_publisher")
        for name in stray:
            await connection.execute(_GIVE.format(name=name))
        await connection.execute("REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher")
