"""What a secret store is: five things one may ask, and what every implementation keeps true.

The laws are run against each of them by tests/secrets/stores/test_store_laws.py.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from hookseal.ground.ids import TenantId
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretDenied
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef


class VersionState(StrEnum):
    """Where a secret version stands in its life."""

    ACTIVE = "active"
    PREVIOUS = "previous"
    RETIRED = "retired"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """What is known of one version of a secret, without its material."""

    ref: SecretRef
    state: VersionState
    purpose: Purpose
    scheme: str | None
    created_at: datetime
    changed_at: datetime


class SecretStore(Protocol):
    """Keeps secrets in numbered versions that never change.

    An implementation keeps these true. The tenant is part of everything that is asked and of every
    key that is looked up. At most one version of a name is active, and at most one previous. A version
    number is used once. Material leaves only as `SecretMaterial`, for the purpose it was put under.
    Errors of the service behind are translated to `SecretError` (definitive) or `SecretUnavailable`
    (transient), and carry no value.
    """

    @property
    def provider(self) -> Provider:
        """The provider that the references of this store name."""
        ...

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name, active, and return its reference.

        Raises `Conflict` if the name was ever used by the tenant, `Malformed` if tenant, name or
        material (1 byte to 64 KiB) is not of its form, and `SecretUnavailable`.
        """
        ...

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of exactly that version, in whatever state, while it is there.

        Which versions are due is for the pointer to say, not for the store. Raises `SecretNotFound`,
        `SecretDenied` (another provider or purpose), `SecretDestroyed`, `SecretTampered` and
        `SecretUnavailable`.
        """
        ...

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version and return its reference; all of what follows becomes true at once, or nothing.

        The new version is active, what was active is previous, what was previous is retired. Rotations
        of one name at the same time come one after the other. Raises `SecretNotFound` if the name was
        never put, `SecretDenied` if it was put for another purpose, `Malformed` and `SecretUnavailable`.
        """
        ...

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first; none if there is no such name.

        Raises `Malformed` and `SecretUnavailable`.
        """
        ...

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good; that it existed stays known. Twice is as once.

        Raises `SecretNotFound`, `SecretDenied` (another provider) and `SecretUnavailable`.
        """
        ...


def first_ref(provider: Provider, tenant: TenantId, name: str) -> SecretRef:
    """Return the reference of a name's first version; so tenant and name are checked. Raises `Malformed`."""
    return SecretRef(provider=provider, tenant=tenant, name=name, version=1)


def require_provider(ref: SecretRef, provider: Provider) -> None:
    """Return only if the reference is of that provider. Raises `SecretDenied`."""
    if ref.provider is not provider:
        raise SecretDenied(f"the secret is kept by provider {ref.provider}, this process uses {provider}")


def require_purpose(stored: str, asked: Purpose) -> None:
    """Return only if the secret was put for the purpose it is asked for. Raises `SecretDenied`."""
    if stored != asked:
        raise SecretDenied(f"the secret was not put for the purpose {asked}")
