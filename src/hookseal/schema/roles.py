"""The SQL roles that the schema grants to. They belong to the server, not to the database."""

from typing import Final

import asyncpg

from hookseal.ground.errors import Refused

ROLES: Final = ("hookseal_publisher", "hookseal_producer")


async def ensure(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make every role that is absent, without login; afterwards all of them exist.

    Raises `Refused`, with the statements to run, where the migrating role may not create roles.
    """
    present = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    missing = [role for role in ROLES if role not in present]
    try:
        for role in missing:
            await _create(connection, role)
    except asyncpg.InsufficientPrivilegeError:
        statements = "\n".join(f"  CREATE ROLE {role} NOLOGIN;" for role in missing)
        raise Refused(
            "this database role may not create roles: let one that may run these statements "
            f"(and grant them to this role with admin option), then try again:\n{statements}"
        ) from None


async def _create(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # another migration on the same server made it at the same time
