"""The SQL roles that the schema grants to. They belong to the server, not to the database."""

from typing import Final

import asyncpg

from hookseal.errors import Refused
from hookseal.postgres.pool import Executor

ROLES: Final = (
    "hookseal_publisher",  # owns the publishing functions; nobody is a member
    "hookseal_producer",
    "hookseal_worker",
    "hookseal_operator",
    "hookseal_readonly",
    "hookseal_api",
    "hookseal_api_publisher",
    "hookseal_reveal",
    "hookseal_backup",
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


# A member of the owner, as every superuser is, can replace everything in the schema anyway.
_TO_RUN: Final = """
SELECT format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.nspname,
              CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END) AS statement
  FROM pg_namespace AS n
 CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
  LEFT JOIN pg_roles AS r ON r.oid = a.grantee
 WHERE n.nspname IN ('hookseal', 'pg_catalog') AND a.privilege_type = 'CREATE'
   AND pg_has_role(r.oid, n.nspowner, 'MEMBER') IS NOT TRUE
 UNION
SELECT format('DROP ROUTINE %s;', p.oid::regprocedure)
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_roles AS r ON r.oid = p.proowner
 WHERE n.nspname IN ('hookseal', 'pg_catalog') AND NOT pg_has_role(p.proowner, n.nspowner, 'MEMBER')
   AND (n.nspname, r.rolname) <> ('hookseal', 'hookseal_publisher')
 ORDER BY statement
"""
# A check or a generated column is bound when it is created, with the search path of that session.
_BOUND: Final = """
WITH ours AS (
    SELECT 'pg_constraint'::regclass AS kind, oid FROM pg_constraint WHERE connamespace = 'hookseal'::regnamespace
     UNION ALL
    SELECT 'pg_attrdef'::regclass, d.oid
      FROM pg_attrdef AS d
      JOIN pg_class AS c ON c.oid = d.adrelid AND c.relnamespace = 'hookseal'::regnamespace
)
SELECT DISTINCT format('%s uses %s', pg_describe_object(d.classid, d.objid, 0),
                       pg_describe_object(d.refclassid, d.refobjid, 0)) AS found
  FROM ours
  JOIN pg_depend AS d ON d.classid = ours.kind AND d.objid = ours.oid
  LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
  LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
 WHERE coalesce(p.pronamespace, o.oprnamespace) NOT IN ('hookseal'::regnamespace, 'pg_catalog'::regnamespace)
 ORDER BY found
"""


async def refuse(executor: Executor) -> None:
    """Raise `Refused`, with the statements to run, if an untrusted role may add functions to the two schemas, or has.

    Owners, members of their roles and superusers are not untrusted.
    """
    statements = [row["statement"] for row in await executor.fetch(_TO_RUN)]
    if statements:
        raise Refused(
            "another role may create functions where hookseal finds those that it calls, or has: hookseal would run "
            "them with its own rights. Have the owner of the schema run, then try again:"
            + "".join(f"\n  {statement}" for statement in statements)
        )


async def refuse_bound(executor: Executor) -> None:
    """Raise `Refused` if a check or generated column of ours calls a function outside the two schemas.

    One that was created by hand, with another search path, may be bound to a function of another role.
    """
    bound = [row["found"] for row in await executor.fetch(_BOUND)]
    if bound:
        raise Refused(
            "a function of another schema stands in the tables of hookseal: it was found in place of PostgreSQL's own "
            "when they were made, and runs with the rights of the role that writes. Treat it as a break-in "
            "(docs/threat-model.md, A17), and have the owner replace" + "".join(f"\n  {each}" for each in bound)
        )


_WRONG_OWNER: Final = """
    SELECT p.oid::regprocedure::text AS name,
           CASE WHEN p.proname = 'send_example' THEN 'hookseal_operator, hookseal_api'
                WHEN p.prorettype <> 'trigger'::regtype THEN 'hookseal_producer' END AS callers
    FROM pg_proc AS p
    WHERE p.pronamespace = 'hookseal'::regnamespace
      AND p.proname IN ('publish', 'publish_raw', 'publish_many', 'publish_event', 'publish_events', 'send_example',
                        'report_endpoint', 'report_exhausted', 'report_expiring', 'forget_notices')
      AND p.proowner <> 'hookseal_publisher'::regrole
"""
_RESTORE: Final = """
    ALTER FUNCTION {name} OWNER TO hookseal_publisher;
    REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC
"""
_GRANT: Final = "GRANT EXECUTE ON FUNCTION {name} TO {callers}, CURRENT_USER"


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
            if each["callers"] is not None:
                await connection.execute(_GRANT.format(**each))
        await connection.execute("REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher")
