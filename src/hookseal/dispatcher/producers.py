"""Who may publish for whom: rows of `producers`, and the membership in the group role that may call publish."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from hookseal.dispatcher.database import translated
from hookseal.ground.errors import Malformed, NotFound, Refused
from hookseal.ground.ids import TenantId, tenant_id
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection, Executor
from hookseal.schema.roles import ROLES

EVERY_TENANT: Final = TenantId("*")
_SQL: Final = statements("hookseal.dispatcher", "producers.sql")
_MAX_ROLE_BYTES: Final = 63  # PostgreSQL's own limit of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The right of a role to publish for a tenant; `changed` tells whether it was not so before."""

    role: str
    tenant_id: TenantId
    granted_at: datetime
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A right that was taken away. `statement` is what somebody else has yet to run, None if nothing is left to do."""

    role: str
    tenant_id: TenantId
    statement: str | None


def role_name(text: str) -> str:
    """Return the name of a role, of 1 to 63 bytes. Raises `Malformed`, and `Refused` for one of our group roles."""
    if not text.isprintable() or not 1 <= len(text.encode()) <= _MAX_ROLE_BYTES:
        raise Malformed(f"role must be 1 to {_MAX_ROLE_BYTES} bytes of printable characters", field="role")
    if text in ROLES:
        raise Refused(
            f"{text} is a group role of hookseal itself: name the role that your producer logs in as", field="role"
        )
    return text


def producer_tenant(text: str) -> TenantId:
    """Return the tenant that a producer may publish for; `*` is every tenant. Raises `Malformed`."""
    return EVERY_TENANT if text == EVERY_TENANT else tenant_id(text)


async def grant(connection: Connection, role: str, tenant: TenantId) -> Granted:
    """Let the role publish for the tenant, in the caller's transaction. Twice is as once.

    A row that was for another role of this name, which was dropped, gives no right: replacing it is a change.
    Raises `NotFound` if there is no such role, `Refused` with the statement to run where this role may not
    grant the membership, `Unavailable`.
    """
    with translated():
        await connection.execute(_SQL["one_at_a_time"])
        if not await connection.fetchval(_SQL["role_exists"], role):
            raise NotFound("PostgreSQL has no role of this name", field="role")
        joined = await _joined(connection, role)
        await connection.execute(_SQL["forget_stale"], tenant, role)
        added = await connection.fetchval(_SQL["add"], tenant, role)
        at: datetime = await connection.fetchval(_SQL["granted_at"], tenant, role)
    return Granted(role=role, tenant_id=tenant, granted_at=at, changed=joined or added is not None)


async def revoke(connection: Connection, role: str, tenant: TenantId) -> Revoked:
    """Take the role's right to publish for the tenant, in the caller's transaction; with its last one the membership.

    The row is what counts: where this role may not revoke the membership, the right is gone all the same.
    Raises `NotFound` if the role has no such right, `Unavailable`.
    """
    with translated():
        await connection.execute(_SQL["one_at_a_time"])
        if await connection.fetchval(_SQL["remove"], tenant, role) is None:
            raise NotFound("the role has no right to publish for this tenant", field="role")
        statement = None if await connection.fetchval(_SQL["has_other"], role) else await _left(connection, role)
    return Revoked(role=role, tenant_id=tenant, statement=statement)


async def every(executor: Executor, *, role: str | None, tenant: TenantId | None) -> list[dict[str, Any]]:
    """Return who may publish for whom, by tenant and role; what is `stale` was for a role that was dropped since.

    Raises `Unavailable`.
    """
    with translated():
        return [dict(row) for row in await executor.fetch(_SQL["every"], tenant, role)]


async def _joined(connection: Connection, role: str) -> bool:
    """Make the role a member of the producers; return False if it was. Raises `Refused`."""
    if await connection.fetchval(_SQL["is_member"], role):
        return False
    statement: str = await connection.fetchval(_SQL["grant_statement"], role)
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        raise Refused(
            f"this database role may not grant it: let one that may run\n  {statement};", field="role"
        ) from None
    return True


async def _left(connection: Connection, role: str) -> str | None:
    """Take the role out of the producers; return the statement that is left to run if this role may not."""
    if not await connection.fetchval(_SQL["is_member"], role):
        return None
    statement: str = await connection.fetchval(_SQL["revoke_statement"], role)
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return statement
    return statement if await connection.fetchval(_SQL["is_member"], role) else None
