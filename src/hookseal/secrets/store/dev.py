"""The store `dev`, for tests and for embedding: it keeps secrets in the memory of this process only."""

import os
from dataclasses import dataclass, replace
from typing import Final

from hookseal.errors import Conflict, SecretDestroyed
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef
from hookseal.secrets.core.trust import require_provider
from hookseal.secrets.store.port import SecretVersion, VersionState, first_ref, no_such_secret, require_purpose

_SYSTEM_CLOCK: Final = SystemClock()
_AGED: Final = {VersionState.ACTIVE: VersionState.PREVIOUS, VersionState.PREVIOUS: VersionState.RETIRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    version: SecretVersion
    sealed: bytes | None


class DevStore:
    """Secrets in memory, sealed under a random key of this store."""

    provider: Final = Provider.DEV

    def __init__(self, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._keyring = KeyRing(MasterKey(SecretMaterial(os.urandom(KEY_BYTES))))
        self._names: dict[tuple[TenantId, str], list[_Stored]] = {}

    @property
    def providers(self) -> frozenset[Provider]:
        """The provider whose refs it reads: its own."""
        return frozenset({self.provider})

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name (see `SecretStore`)."""
        ref = first_ref(self.provider, tenant, name)
        if (tenant, name) in self._names:
            raise Conflict("the tenant has a secret of this name: rotate it", field="name")
        self._names[tenant, name] = [self._sealed(ref, material, purpose, scheme)]
        return ref

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of that version (see `SecretStore`)."""
        stored = self._find(ref)
        require_purpose(stored.version.purpose, purpose)
        if stored.sealed is None:
            raise SecretDestroyed
        return open_sealed(self._keyring, stored.sealed, SecretContext.of(ref, purpose))

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version, active; the older ones step back (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        versions = self._names.get((tenant, name))
        if versions is None:
            raise no_such_secret()
        require_purpose(versions[0].version.purpose, purpose)
        ref = replace(first, version=len(versions) + 1)
        new = self._sealed(ref, material, purpose, scheme)
        self._names[tenant, name] = [*map(self._aged, versions), new]
        return ref

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first (see `SecretStore`)."""
        first_ref(self.provider, tenant, name)
        return tuple(stored.version for stored in self._names.get((tenant, name), ()))

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`)."""
        stored = self._find(ref)
        version = self._with_state(stored.version, VersionState.DESTROYED)
        self._names[ref.tenant, ref.name][ref.version - 1] = _Stored(version=version, sealed=None)

    def _find(self, ref: SecretRef) -> _Stored:
        require_provider(ref, self.provider)
        for stored in self._names.get((ref.tenant, ref.name), ()):
            if stored.version.ref == ref:
                return stored
        raise no_such_secret()

    def _sealed(self, ref: SecretRef, material: SecretMaterial, purpose: Purpose, scheme: str | None) -> _Stored:
        now = self._clock.now()
        version = SecretVersion(
            ref=ref, state=VersionState.ACTIVE, purpose=purpose, scheme=scheme, created_at=now, changed_at=now
        )
        return _Stored(version=version, sealed=seal(self._keyring, material, SecretContext.of(ref, purpose)))

    def _aged(self, stored: _Stored) -> _Stored:
        state = _AGED.get(stored.version.state)
        return stored if state is None else replace(stored, version=self._with_state(stored.version, state))

    def _with_state(self, version: SecretVersion, state: VersionState) -> SecretVersion:
        moved_at = version.changed_at if version.state is state else self._clock.now()
        return replace(version, state=state, changed_at=moved_at)
