"""The owner of the functions that publish. They run with its rights, so it is a role with the fewest rights."""

from typing import Final

import asyncpg

_WRONG_OWNER: Final = """
    SELECT p.oid::regprocedure::text AS name, p.prorettype <> 'trigger'::regtype AS for_producers
    FROM pg_proc AS p
    WHERE p.pronamespace = 'hookseal'::regnamespace
      AND p.proname IN ('publish', 'publish_raw', 'publish_many',
                        'report_endpoint', 'report_exhausted', 'report_expiring', 'forget_notices')
      AND p.proowner <> 'hookseal_publisher'::regrole
"""
_RESTORE: Final = """
    ALTER FUNCTION {name} OWNER TO hookseal_publisher;
    REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC
"""
_GRANT: Final = "GRANT EXECUTE ON FUNCTION {name} TO hookseal_producer, CURRENT_USER"


async def restore_owner(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make `hookseal_publisher` the owner of the functions that publish; a restore with `--no-owner` changes it.

    Raises `asyncpg.InsufficientPrivilegeError` if this role may not do that.
    """
    async with connection.transaction():
        functions = await connection.fetch(_WRONG_OWNER)
        if not functions:
            return
        await connection.execute("GRANT hookseal_publisher TO CURRENT_USER")
        await connection.execute("GRANT USAGE, CREATE ON SCHEMA hookseal TO hookseal_publisher")
        for each in functions:
            await connection.execute(_RESTORE.format(name=each["name"]))
            if each["for_producers"]:
                await connection.execute(_GRANT.format(name=each["name"]))
        await connection.execute("REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher")
