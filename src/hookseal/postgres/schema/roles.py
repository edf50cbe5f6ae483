"""The SQL roles that the schema grants to. They belong to the server, not to the database."""

from typing import Final

import asyncpg

from hookseal.ground.errors import Refused

ROLES: Final = (
    "hookseal_publisher",  # owns the publishing functions; nobody is a member
    "hookseal_producer",
    "hookseal_worker",
    "hookseal_operator",
    "hookseal_readonly",
)
_GRANT_PRODUCER: Final = "GRANT hookseal_producer TO hookseal_operator WITH ADMIN OPTION"  # for `producer grant`
_MAY_GRANT_PRODUCER: Final = """
    SELECT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = 'hookseal_producer'::regrole AND member = 'hookseal_operator'::regrole AND admin_option)
"""
_TRIES: Final = 5


async def ensure(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Create every missing role, without login, and let operators grant `hookseal_producer`.

    Raises `Refused`, with the statements to run, if the migrating role may not create roles.
    """
    present = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    missing = [role for role in ROLES if role not in present]
    try:
        for role in missing:
            await _create(connection, role)
        await _let_operators_grant(connection)
    except asyncpg.InsufficientPrivilegeError:
        created = [f"CREATE ROLE {role} NOLOGIN" for role in missing]
        statements = "".join(f"\n  {each};" for each in (*created, _GRANT_PRODUCER, await grant_of_all(connection)))
        raise Refused(
            "this database role may not create the roles of hookseal or hand them on: "
            f"a superuser must run these statements, then try again:{statements}"
        ) from None


async def grant_of_all(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    """Return the statement that lets the role of this connection grant every role of hookseal."""
    me: str = await connection.fetchval("SELECT quote_ident(current_user)")
    return f"GRANT {', '.join(ROLES)} TO {me} WITH ADMIN OPTION"


async def _create(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # another migration on the same server made it at the same time


async def _let_operators_grant(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for _ in range(_TRIES):
        if await connection.fetchval(_MAY_GRANT_PRODUCER):
            return
        try:
            async with connection.transaction():
                await connection.execute(_GRANT_PRODUCER)
        except (asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            pass  # another migration on the same server granted it at the same time
