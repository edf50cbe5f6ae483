"""The extras of an endpoint: its own headers and its TLS identity. Each is a secret with at most one active version."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.postgres.pool import Connection
from hookseal.secrets.core import header_values
from hookseal.secrets.core.header_values import Headers
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_headers_name, endpoint_tls_name
from hookseal.secrets.core.trust import require_own
from hookseal.secrets.extras import tls_identity
from hookseal.secrets.extras.tls_identity import TlsIdentity
from hookseal.secrets.store import records
from hookseal.secrets.store.port import SecretStore, first_ref

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra(Generic[T]):
    """One kind of extra: the columns of its ref and of the part that may be shown, its purpose and its encoding."""

    purpose: Purpose
    ref_field: str
    shown_field: str
    none: T
    name_of: Callable[[EndpointId], str]
    read: Callable[[SecretMaterial], T]
    to_material: Callable[[T], SecretMaterial]
    shown: Callable[[T], Any]


class Change(Protocol[T]):
    """A change of one extra."""

    @property
    def replaces_all(self) -> bool:
        """Whether the result does not depend on the extra before, so that it need not be opened."""
        ...

    def applied(self, before: T) -> T:
        """Return the extra after the change. Raises `NotFound` if something to remove is not there."""
        ...

    def initial(self) -> T:
        """Return the result for an endpoint without this extra."""
        ...


HEADERS: Final[Extra[Headers]] = Extra(
    purpose=Purpose.ENDPOINT_HEADERS,
    ref_field="headers_ref",
    shown_field="header_names",
    none={},
    name_of=endpoint_headers_name,
    read=header_values.read,
    to_material=header_values.to_material,
    shown=lambda headers: tuple(sorted(headers)),
)
TLS: Final[Extra[TlsIdentity]] = Extra(
    purpose=Purpose.ENDPOINT_TLS,
    ref_field="tls_ref",
    shown_field="tls_shown",
    none=tls_identity.NONE,
    name_of=endpoint_tls_name,
    read=tls_identity.read,
    to_material=tls_identity.to_material,
    shown=tls_identity.shown,
)
ALL: Final[tuple[Extra[Any], ...]] = (HEADERS, TLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointExtras:
    """The extras of one endpoint, none by default."""

    headers: Headers = field(default_factory=dict)
    tls: TlsIdentity = tls_identity.NONE


NO_EXTRAS: Final = EndpointExtras()


async def opened(store: SecretStore, extra: Extra[T], row: Pointer) -> T:
    """Return the extra that the verified pointer names, opened; `extra.none` without a ref.

    Raises `SecretDenied` if the ref belongs to another endpoint, `SecretUnusable` if the extra must not be used, and
    what the store raises.
    """
    text = getattr(row, extra.ref_field)
    if text is None:
        return extra.none
    ref = SecretRef.parse(text)
    require_own(ref, tenant=row.tenant_id, endpoint_id=row.endpoint_id, purpose=extra.purpose)
    return extra.read(await store.get(ref, purpose=extra.purpose))


async def keep(
    connection: Connection, store: SecretStore, extra: Extra[T], value: T, *, tenant: TenantId, endpoint_id: EndpointId
) -> SecretRef | None:
    """Seal the value as the only active version, in the caller's transaction, and return its ref; None if it is empty.

    Older versions are retired. The store must write on the same connection. Raises `Malformed` for headers that must
    not be sent, which names one and never its value, and what the store raises.
    """
    if value == extra.none:
        await retire(connection, store, extra, tenant=tenant, endpoint_id=endpoint_id)
        return None
    name, material = extra.name_of(endpoint_id), extra.to_material(value)
    if not await store.versions(tenant, name):
        return await store.put(tenant, name, material, purpose=extra.purpose)
    ref = await store.rotate(tenant, name, material, purpose=extra.purpose)
    await records.arrange(connection, active=ref, previous=None)
    return ref


async def retire(
    connection: Connection, store: SecretStore, extra: Extra[Any], *, tenant: TenantId, endpoint_id: EndpointId
) -> None:
    """Retire every version of the endpoint's extra, in the caller's transaction. Raises `SecretUnavailable`."""
    await records.retire(connection, first_ref(store.provider, tenant, extra.name_of(endpoint_id)))
