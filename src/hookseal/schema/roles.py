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
_HANDS_ON: Final = "GRANT hookseal_producer TO hookseal_operator WITH ADMIN OPTION"  # for `producer grant`
_MAY_HAND_ON: Final = """
    SELECT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = 'hookseal_producer'::regrole AND member = 'hookseal_operator'::regrole AND admin_option)
"""
_TRIES: Final = 5


async def ensure(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make every role that is absent, without login; afterwards all exist, and operators may make producers.

    Raises `Refused`, with the statements to run, where the migrating role may not create roles.
    """
    present = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    missing = [role for role in ROLES if role not in present]
    try:
        for role in missing:
            await _create(connection, role)
        await _let_operators_hand_on(connection)
    except asyncpg.InsufficientPrivilegeError:
        made = [f"CREATE ROLE {role} NOLOGIN" for role in missing]
        statements = "".join(f"\n  {each};" for each in (*made, _HANDS_ON, await grant_of_all(connection)))
        raise Refused(
            "this database role may not create the roles of hookseal or hand them on: "
            f"a superuser must run these statements, then try again:{statements}"
        ) from None


async def grant_of_all(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    """Return the statement that lets the role of this connection hand on every role."""
    me: str = await connection.fetchval("SELECT quote_ident(current_user)")
    return f"GRANT {', '.join(ROLES)} TO {me} WITH ADMIN OPTION"


async def _create(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # another migration on the same server made it at the same time


async def _let_operators_hand_on(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for _ in range(_TRIES):
        if await connection.fetchval(_MAY_HAND_ON):
            return
        try:
            async with connection.transaction():
                await connection.execute(_HANDS_ON)
        except (asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            pass  # another migration on the same server granted it at the same time
