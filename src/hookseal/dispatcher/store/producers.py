"""The rights to publish: rows of `producers`, and membership in the group role that may call the publish functions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from hookseal.errors import Malformed, NotFound, Refused
from hookseal.ground.ids import EVERY_TENANT, TenantId, tenant_id
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.schema.roles import ROLES
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated

_SQL: Final = Statements("hookseal.dispatcher.store", "producers.sql", seconds=None)
_MAX_ROLE_BYTES: Final = 63  # the limit of PostgreSQL for names


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The right of a role to publish for a tenant; `changed` says whether the role did not have it before."""

    role: str
    tenant_id: TenantId
    granted_at: datetime
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A right that was revoked. `statement` is SQL that another role must still run, None if nothing is left to do.

    `still_for_every_tenant` says that the role may publish for this tenant nevertheless: it may for every one.
    """

    role: str
    tenant_id: TenantId
    statement: str | None
    still_for_every_tenant: bool


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
    """Let the role publish for the tenant, in the caller's transaction. Granting twice changes nothing.

    The row of a dropped role with the same name gives no right; it is replaced, which counts as a change. Raises
    `NotFound` if there is no such role, `Refused` with the statement to run if the current role may not grant the
    membership, `Unavailable`.
    """
    with translated():
        await _SQL.execute(connection, "one_at_a_time")
        if not await _SQL.value(connection, "role_exists", role):
            raise NotFound("PostgreSQL has no role of this name: first run `CREATE ROLE name LOGIN`", field="role")
        joined = await _add_member(connection, role)
        await _SQL.execute(connection, "forget_stale", tenant, role)
        added = await _SQL.value(connection, "add", tenant, role)
        at: datetime = await _SQL.value(connection, "granted_at", tenant, role)
    return Granted(role=role, tenant_id=tenant, granted_at=at, changed=joined or added is not None)


async def revoke(connection: Connection, role: str, tenant: TenantId) -> Revoked:
    """Revoke the role's right to publish for the tenant, in the caller's transaction.

    If it was the last right of the role, the membership is revoked as well. If the current role may not do that, the
    right is revoked nevertheless, because publishing needs the row.
    Raises `NotFound` if the role has no such right, `Unavailable`.
    """
    with translated():
        await _SQL.execute(connection, "one_at_a_time")
        if await _SQL.value(connection, "remove", tenant, role) is None:
            raise NotFound("the role has no right to publish for this tenant", field="role")
        has_other = await _SQL.value(connection, "has_other", role)
        statement = None if has_other else await _remove_member(connection, role)
        has_every = has_other and await _SQL.value(connection, "has_every", role)
    return Revoked(role=role, tenant_id=tenant, statement=statement, still_for_every_tenant=has_every)


async def every(executor: Executor, *, role: str | None, tenant: TenantId | None) -> list[dict[str, Any]]:
    """Return the rights by tenant and role. A right is `stale` if its role was dropped.

    Raises `Unavailable`.
    """
    return [dict(row) for row in await _SQL.rows(executor, "every", tenant, role)]


async def _add_member(connection: Connection, role: str) -> bool:
    """Make the role a member of the producers; return False if it already was one. Raises `Refused`."""
    if await _SQL.value(connection, "is_member", role):
        return False
    statement: str = await _SQL.value(connection, "grant_statement", role)
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        raise Refused(
            f"this database role may not grant the membership: with a role that may, run\n  {statement};", field="role"
        ) from None
    return True


async def _remove_member(connection: Connection, role: str) -> str | None:
    """Remove the role from the producers; return the statement to run if the current role may not do that."""
    if not await _SQL.value(connection, "is_member", role):
        return None
    statement: str = await _SQL.value(connection, "revoke_statement", role)
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return statement
    return statement if await _SQL.value(connection, "is_member", role) else None
