"""Moves an endpoint's pointer: where requests go and which secrets sign them, under a MAC and a generation."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from hookseal.ground.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.schema.database import Connection, Executor
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDenied, SecretTampered
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.ref import SecretRef, endpoint_headers_name, endpoint_secret_name, endpoint_tls_name

HIGHEST_GENERATION: Final = 2**63 - 1

_SQL: Final = statements("hookseal.secrets", "pointer.sql")
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What a new endpoint points at: what signs, how, and its header values and TLS identity if it has any."""

    ref: SecretRef
    scheme: Scheme
    algorithm: Algorithm
    headers: SecretRef | None = None
    tls: SecretRef | None = None


async def locked(connection: Connection, *, tenant: TenantId, endpoint_id: EndpointId) -> Pointer:
    """Return the pointer, which nobody else moves and no claim reads until the caller's transaction ends.

    Raises `NotFound` if the tenant has no such endpoint, and `SecretUnavailable`.
    """
    with outages_translated():
        row = await connection.fetchrow(_SQL["lock"], tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    return Pointer(**row)


async def every(source: Executor, tenant: TenantId | None = None) -> AsyncIterator[Pointer]:
    """Yield the pointer of every endpoint of the tenant, or of all, in their order. Raises `SecretUnavailable`."""
    after = ("", "00000000-0000-0000-0000-000000000000")
    while True:
        with outages_translated():
            rows = await source.fetch(_SQL["page"], tenant, *after, _PAGE)
        for row in rows:
            yield Pointer(**row)
        if len(rows) < _PAGE:
            return
        after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


async def moved(
    connection: Connection, integrity: IntegrityKey, found: Pointer, *, beyond: int = 0, **changes: Any
) -> Pointer:
    """Store the locked pointer with these fields changed, one generation on and under a new MAC; return it.

    The new generation is above `beyond`, too.
    Raises `Conflict` if the tenant has another endpoint with a changed url, `SecretTampered` if no generation is
    above, and `SecretUnavailable`.
    """
    unsigned = replace(found, **changes, generation=_next(max(found.generation, beyond)))
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
                pointer.headers_ref,
                pointer.tls_ref,
            )
    except asyncpg.UniqueViolationError:
        raise Conflict("the tenant already has an endpoint with this url", field="url") from None
    return pointer


def _next(generation: int) -> int:
    if generation >= HIGHEST_GENERATION:
        raise SecretTampered(
            "no generation is above that which the audit log knows, so somebody forged a row of it: "
            "find out who with `hookseal audit verify`, then delete the endpoint and add it again"
        )
    return generation + 1


async def first(
    connection: Connection,
    integrity: IntegrityKey,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    to: First,
) -> Pointer:
    """Point the endpoint at its first secret, and at its header values and TLS identity if it has any; return it.

    All of it in the caller's transaction. Raises `SecretDenied` if any is another tenant's or another
    endpoint's, `NotFound` if there is no such endpoint, `Conflict` if it ever had a secret, or its id was another's
    before, and `SecretUnavailable`.
    """
    require_own(to.ref, tenant=tenant, endpoint_id=endpoint_id)
    if to.headers is not None:
        require_own_headers(to.headers, tenant=tenant, endpoint_id=endpoint_id)
    if to.tls is not None:
        require_own_tls(to.tls, tenant=tenant, endpoint_id=endpoint_id)
    found = await locked(connection, tenant=tenant, endpoint_id=endpoint_id)
    if found.secret_ref is not None or found.previous_secret_ref is not None or found.generation != 0:
        raise Conflict("the endpoint has a secret already: rotate it", field="endpoint")
    if found.audited_generation is not None:  # below it, the row would look as if it had been put back
        raise Conflict(
            "an endpoint of this id was there before: leave the id out, or take another", field="endpoint_id"
        )
    return await moved(
        connection,
        integrity,
        found,
        secret_ref=str(to.ref),
        scheme=to.scheme.value,
        algorithm=to.algorithm.value,
        headers_ref=None if to.headers is None else str(to.headers),
        tls_ref=None if to.tls is None else str(to.tls),
    )


def generation_after(*known: int | None) -> int:
    """Return a generation above all of these, any of which may be forged: the highest there is above that one."""
    return min(max(generation or 0 for generation in known), HIGHEST_GENERATION - 1) + 1


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


def require_own_headers(ref: SecretRef, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return only if these are the header values of that endpoint of that tenant. Raises `SecretDenied`."""
    if ref.tenant != tenant:
        raise SecretDenied("the header values belong to another tenant than the endpoint")
    if ref.name != endpoint_headers_name(endpoint_id):
        raise SecretDenied("the secret does not hold the header values of this endpoint")


def require_own_tls(ref: SecretRef, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return only if this is the TLS identity of that endpoint of that tenant. Raises `SecretDenied`."""
    if ref.tenant != tenant:
        raise SecretDenied("the TLS identity belongs to another tenant than the endpoint")
    if ref.name != endpoint_tls_name(endpoint_id):
        raise SecretDenied("the secret does not hold the TLS identity of this endpoint")
