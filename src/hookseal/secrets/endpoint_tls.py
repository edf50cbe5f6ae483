"""The TLS identity of an endpoint at the store: one secret, of which one version at most is in use."""

from dataclasses import dataclass
from typing import Final

from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.schema.database import Connection
from hookseal.secrets import tls_identity, versions
from hookseal.secrets.context import Purpose
from hookseal.secrets.pointer import require_own_tls
from hookseal.secrets.ref import SecretRef, endpoint_tls_name
from hookseal.secrets.store import SecretStore, first_ref
from hookseal.secrets.tls_identity import ClientCertificate, TlsIdentity

_PURPOSE: Final = Purpose.ENDPOINT_TLS
NONE: Final = TlsIdentity()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsChange:
    """What becomes of either part: what is given stands in the place of what was, what is to be removed goes."""

    client: ClientCertificate | None = None
    authorities: tuple[bytes, ...] = ()
    without_client: bool = False
    without_authorities: bool = False

    @property
    def decides_all(self) -> bool:
        """Whether what was there before need not be opened."""
        decides_client = self.client is not None or self.without_client
        return decides_client and (bool(self.authorities) or self.without_authorities)

    def applied(self, before: TlsIdentity) -> TlsIdentity:
        """Return the identity after the change. Raises `NotFound` if what is to be removed is not there."""
        if self.without_client and before.client is None:
            raise NotFound("the endpoint has no client certificate", field="remove_client_cert")
        if self.without_authorities and not before.authorities:
            raise NotFound("the endpoint has no authorities of its own", field="remove_ca")
        return self.anew(before)

    def anew(self, before: TlsIdentity = NONE) -> TlsIdentity:
        """Return the same, whether or not what is to be removed was there."""
        return TlsIdentity(
            client=self.client or (None if self.without_client else before.client),
            authorities=self.authorities or (() if self.without_authorities else before.authorities),
        )


async def opened(store: SecretStore, found: Pointer) -> TlsIdentity:
    """Return the identity that the verified pointer names, an empty one without a ref.

    Raises `SecretDenied` if the ref is another's, `SecretUnusable` if what was sealed may not be used, and what the
    store raises.
    """
    if found.tls_ref is None:
        return NONE
    ref = SecretRef.parse(found.tls_ref)
    require_own_tls(ref, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    return tls_identity.read(await store.get(ref, purpose=_PURPOSE))


async def keep(
    connection: Connection, store: SecretStore, *, tenant: TenantId, endpoint_id: EndpointId, identity: TlsIdentity
) -> SecretRef | None:
    """Seal this as the one version in use, in the caller's transaction, and return its ref; None if it is empty.

    Older versions are retired. The store must write on the same connection. Raises what the store raises.
    """
    if identity.is_empty:
        await retire(connection, store, tenant=tenant, endpoint_id=endpoint_id)
        return None
    name, material = endpoint_tls_name(endpoint_id), tls_identity.written(identity)
    if not await store.versions(tenant, name):
        return await store.put(tenant, name, material, purpose=_PURPOSE)
    ref = await store.rotate(tenant, name, material, purpose=_PURPOSE)
    await versions.arrange(connection, active=ref, previous=None)
    return ref


async def retire(connection: Connection, store: SecretStore, *, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Retire every version of the endpoint's TLS identity, in the caller's transaction. Raises `SecretUnavailable`."""
    await versions.retire(connection, first_ref(store.provider, tenant, endpoint_tls_name(endpoint_id)))
