"""The header values of an endpoint at the store: one secret, of which one version at most is in use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.schema.database import Connection
from hookseal.secrets import header_values, versions
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.pointer import require_own_headers
from hookseal.secrets.ref import SecretRef, endpoint_headers_name
from hookseal.secrets.store import SecretStore, first_ref

_PURPOSE: Final = Purpose.ENDPOINT_HEADERS

Headers = Mapping[str, SecretMaterial]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChange:
    """Which headers an endpoint has from now on: those `given`, and of the others all but the `removed`.

    If it `replaces_all`, those given are all; what was there before need not be opened then.
    """

    given: Headers
    removed: frozenset[str] = frozenset()
    replaces_all: bool = False

    def applied(self, before: Headers) -> dict[str, SecretMaterial]:
        """Return all headers after the change. Raises `NotFound` if one is to be removed that is not there."""
        if self.replaces_all:
            return dict(self.given)
        for name in sorted(self.removed - before.keys()):
            raise NotFound(f"the endpoint has no header {name}", field="header")
        return {name: value for name, value in before.items() if name not in self.removed} | dict(self.given)


async def opened(store: SecretStore, found: Pointer) -> dict[str, SecretMaterial]:
    """Return the header values that the verified pointer names, none without a ref.

    Raises `SecretDenied` if the ref is another's, `SecretUnusable` if what was sealed may not be sent, and what the
    store raises.
    """
    if found.headers_ref is None:
        return {}
    ref = SecretRef.parse(found.headers_ref)
    require_own_headers(ref, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    return header_values.read(await store.get(ref, purpose=_PURPOSE))


async def keep(
    connection: Connection, store: SecretStore, *, tenant: TenantId, endpoint_id: EndpointId, headers: Headers
) -> SecretRef | None:
    """Seal these as the one version in use, in the caller's transaction, and return its ref; None if there are none.

    Older versions are retired. The store must write on the same connection. Raises `Malformed`, naming a header
    and never its value, and what the store raises.
    """
    if not headers:
        await retire(connection, store, tenant=tenant, endpoint_id=endpoint_id)
        return None
    name, material = endpoint_headers_name(endpoint_id), header_values.written(headers)
    if not await store.versions(tenant, name):
        return await store.put(tenant, name, material, purpose=_PURPOSE)
    ref = await store.rotate(tenant, name, material, purpose=_PURPOSE)
    await versions.arrange(connection, active=ref, previous=None)
    return ref


async def retire(connection: Connection, store: SecretStore, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Retire every version of the endpoint's header values, in the caller's transaction.

    Raises `SecretUnavailable`.
    """
    await versions.retire(connection, first_ref(store.provider, tenant, endpoint_headers_name(endpoint_id)))
