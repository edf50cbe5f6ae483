"""Moves an endpoint's pointer: where requests go and which secrets sign them, under a MAC and a generation."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from hookseal.ground.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDenied
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.ref import SecretRef, endpoint_secret_name

_SQL: Final = statements("hookseal.secrets", "pointer.sql")


async def locked(connection: Connection, *, tenant: TenantId, endpoint_id: EndpointId) -> Pointer:
    """Return the pointer, which nobody else moves and no claim reads until the caller's transaction ends.

    Raises `NotFound` if the tenant has no such endpoint, and `SecretUnavailable`.
    """
    with outages_translated():
        row = await connection.fetchrow(_SQL["lock"], tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    return Pointer(**row)


async def moved(connection: Connection, integrity: IntegrityKey, found: Pointer, **changes: Any) -> Pointer:
    """Store the locked pointer with these fields changed, one generation on and under a new MAC; return it.

    Raises `Conflict` if the tenant has another endpoint with a changed url, and `SecretUnavailable`.
    """
    unsigned = replace(found, **changes, generation=found.generation + 1)
    pointer = replace(unsigned, mac=integrity.mac(unsigned), mac_key_id=integrity.key_id)
    provider = None if pointer.secret_ref is None else SecretRef.parse(pointer.secret_ref).provider.value
    try:
        with outages_translated():
            await connection.execute(
                _SQL["move"],
                pointer.tenant_id,
                pointer.endpoint_id,
                pointer.url,
                pointer.scheme,
                pointer.algorithm,
                pointer.secret_ref,
                pointer.previous_secret_ref,
                pointer.previous_secret_expires_at,
                pointer.previous_scheme,
                pointer.previous_algorithm,
                pointer.lead,
                pointer.generation,
                pointer.mac,
                pointer.mac_key_id,
                provider,
            )
    except asyncpg.UniqueViolationError:
        raise Conflict("the tenant already has an endpoint with this url", field="url") from None
    return pointer


async def first(
    connection: Connection,
    integrity: IntegrityKey,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    ref: SecretRef,
    scheme: str,
) -> Pointer:
    """Point the endpoint at its first secret, in the caller's transaction, and return the pointer.

    Raises `SecretDenied` if the secret is another tenant's or another endpoint's, `NotFound` if there is
    no such endpoint, `Conflict` if it ever had a secret, and `SecretUnavailable`.
    """
    require_own(ref, tenant=tenant, endpoint_id=endpoint_id)
    found = await locked(connection, tenant=tenant, endpoint_id=endpoint_id)
    if found.secret_ref is not None or found.previous_secret_ref is not None or found.generation != 0:
        raise Conflict("the endpoint has a secret already: rotate it", field="endpoint")
    return await moved(connection, integrity, found, secret_ref=str(ref), scheme=scheme)


async def moment(connection: Connection, seconds: float) -> datetime:
    """Return when, by the database's clock, so many seconds from the start of the transaction are over."""
    with outages_translated():
        at: datetime = await connection.fetchval(_SQL["moment"], float(seconds))
    return at


def require_own(ref: SecretRef, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return only if the secret is the signing secret of that endpoint of that tenant. Raises `SecretDenied`."""
    if ref.tenant != tenant:
        raise SecretDenied("the secret belongs to another tenant than the endpoint")
    if ref.name != endpoint_secret_name(endpoint_id):
        raise SecretDenied("the secret is not the signing secret of this endpoint")
