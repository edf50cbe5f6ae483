"""The interface of a secret store: five methods, and the rules that every implementation follows.

tests/secrets/store/test_store_laws.py checks the rules for each implementation. Outside PostgreSQL only the material
is kept, by a `ProviderApi`; the rest of a store is the same for all of them (`external.py`).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from hookseal.ground.ids import TenantId
from hookseal.secrets.errors import SecretDenied
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, Purpose, SecretRef


class VersionState(StrEnum):
    """The state of a secret version."""

    ACTIVE = "active"
    PREVIOUS = "previous"
    RETIRED = "retired"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One version of a secret, without its material."""

    ref: SecretRef
    state: VersionState
    purpose: Purpose
    scheme: str | None
    created_at: datetime
    changed_at: datetime


class SecretStore(Protocol):
    """Keeps secrets in numbered versions that never change.

    An implementation follows these rules. The tenant is part of every request and of every key that is looked up. At
    most one version of a name is active, and at most one is previous. A version number is used once. Material is
    returned only as `SecretMaterial`, for the purpose that it was stored for. Errors of the service behind become a
    `SecretError` (definitive) or `SecretUnavailable` (transient), and contain no value.
    """

    @property
    def provider(self) -> Provider:
        """The provider in the references of new versions."""
        ...

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers whose references this store reads."""
        ...

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Store the first version of a new name as the active one, and return its reference.

        Raises `Conflict` if the tenant has ever used the name, `Malformed` if tenant, name or material (1 byte to
        64 KiB) is malformed, and `SecretUnavailable`.
        """
        ...

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of exactly that version, in any state but destroyed.

        The pointer decides which versions sign, not the store. Raises `SecretNotFound`,
        `SecretDenied` (another provider or purpose), `SecretDestroyed`, `SecretTampered` and
        `SecretUnavailable`.
        """
        ...

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Store a new version and return its reference, in one step, completely or not at all.

        The new version becomes active, the active one previous, and the previous one retired. Concurrent rotations of
        one name run one after the other. Raises `SecretNotFound` if the name does not exist, `SecretDenied` if it
        exists for another purpose, `Malformed` and `SecretUnavailable`.
        """
        ...

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first; none if there is no such name.

        Raises `Malformed` and `SecretUnavailable`.
        """
        ...

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good; the version stays listed. A second call changes nothing.

        Raises `SecretNotFound`, `SecretDenied` (another provider) and `SecretUnavailable`.
        """
        ...


def first_ref(provider: Provider, tenant: TenantId, name: str) -> SecretRef:
    """Return the reference of a name's first version. Raises `Malformed` if tenant or name is malformed."""
    return SecretRef(provider=provider, tenant=tenant, name=name, version=1)


def require_provider(ref: SecretRef, *providers: Provider) -> None:
    """Raise `SecretDenied` unless the provider of the reference is one of these."""
    if ref.provider not in providers:
        uses = " and ".join(sorted(providers))
        raise SecretDenied(
            f"the secret is kept by provider {ref.provider}, this process uses {uses}: give it the settings of "
            f"{ref.provider}, or run `hookseal secret move --to` one that it uses"
        )


def require_purpose(stored: str, asked: Purpose) -> None:
    """Raise `SecretDenied` if the secret was stored for another purpose."""
    if stored != asked:
        raise SecretDenied(f"the secret was not put for the purpose {asked}")
