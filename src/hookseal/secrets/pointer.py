"""Moves an endpoint's pointer: which secrets sign for it, under a MAC and a generation."""

from dataclasses import replace
from typing import Final

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
_FIRST_GENERATION: Final = 1


async def first(
    connection: Connection, integrity: IntegrityKey, *, tenant: TenantId, endpoint_id: EndpointId, ref: SecretRef
) -> Pointer:
    """Point the endpoint at its first secret, in the caller's transaction, and return the pointer.

    Raises `SecretDenied` if the secret is another tenant's or another endpoint's, `NotFound` if there is
    no such endpoint, `Conflict` if it ever had a secret, and `SecretUnavailable`.
    """
    require_own(ref, tenant=tenant, endpoint_id=endpoint_id)
    with outages_translated():
        row = await connection.fetchrow(_SQL["lock"], tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    found = Pointer(**row)
    if found.secret_ref is not None or found.previous_secret_ref is not None or found.generation != 0:
        raise Conflict("the endpoint has a secret already: rotate it", field="endpoint")
    unsigned = replace(found, secret_ref=str(ref), generation=_FIRST_GENERATION)
    pointer = replace(unsigned, mac=integrity.mac(unsigned), mac_key_id=integrity.key_id)
    with outages_translated():
        await connection.execute(
            _SQL["set_first"],
            tenant,
            endpoint_id,
            pointer.secret_ref,
            ref.provider.value,
            pointer.generation,
            pointer.mac,
            pointer.mac_key_id,
        )
    return pointer


def require_own(ref: SecretRef, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return only if the secret is the signing secret of that endpoint of that tenant. Raises `SecretDenied`."""
    if ref.tenant != tenant:
        raise SecretDenied("the secret belongs to another tenant than the endpoint")
    if ref.name != endpoint_secret_name(endpoint_id):
        raise SecretDenied("the secret is not the signing secret of this endpoint")
