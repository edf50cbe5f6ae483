"""The store `dev`: the memory of this process. For tests and for embedding; it forgets everything at the end."""

import os
from dataclasses import dataclass, replace
from typing import Final

from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.errors import Conflict
from hookseal.ground.ids import TenantId
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.derivation import KEY_BYTES
from hookseal.secrets.envelope import open_sealed, seal
from hookseal.secrets.errors import SecretDestroyed, SecretNotFound
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.store import SecretVersion, VersionState, first_ref, require_provider, require_purpose

_SYSTEM_CLOCK: Final = SystemClock()
_AGED: Final = {VersionState.ACTIVE: VersionState.PREVIOUS, VersionState.PREVIOUS: VersionState.RETIRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    version: SecretVersion
    sealed: bytes | None


class DevStore:
    """Secrets in memory, sealed under a key that the store draws for itself."""

    provider: Final = Provider.DEV

    def __init__(self, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._keyring = KeyRing(MasterKey(SecretMaterial(os.urandom(KEY_BYTES))))
        self._names: dict[tuple[TenantId, str], list[_Held]] = {}

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
        held = self._held(ref)
        require_purpose(held.version.purpose, purpose)
        if held.sealed is None:
            raise SecretDestroyed
        return open_sealed(self._keyring, held.sealed, SecretContext.of(ref, purpose))

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version, active; the older ones step back (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        versions = self._names.get((tenant, name))
        if versions is None:
            raise SecretNotFound
        require_purpose(versions[0].version.purpose, purpose)
        ref = replace(first, version=len(versions) + 1)
        new = self._sealed(ref, material, purpose, scheme)
        self._names[tenant, name] = [*map(self._aged, versions), new]
        return ref

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first (see `SecretStore`)."""
        first_ref(self.provider, tenant, name)
        return tuple(held.version for held in self._names.get((tenant, name), ()))

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`)."""
        held = self._held(ref)
        version = self._moved(held.version, VersionState.DESTROYED)
        self._names[ref.tenant, ref.name][ref.version - 1] = _Held(version=version, sealed=None)

    def _held(self, ref: SecretRef) -> _Held:
        require_provider(ref, self.provider)
        for held in self._names.get((ref.tenant, ref.name), ()):
            if held.version.ref == ref:
                return held
        raise SecretNotFound

    def _sealed(self, ref: SecretRef, material: SecretMaterial, purpose: Purpose, scheme: str | None) -> _Held:
        now = self._clock.now()
        version = SecretVersion(
            ref=ref, state=VersionState.ACTIVE, purpose=purpose, scheme=scheme, created_at=now, changed_at=now
        )
        return _Held(version=version, sealed=seal(self._keyring, material, SecretContext.of(ref, purpose)))

    def _aged(self, held: _Held) -> _Held:
        state = _AGED.get(held.version.state)
        return held if state is None else replace(held, version=self._moved(held.version, state))

    def _moved(self, version: SecretVersion, state: VersionState) -> SecretVersion:
        moved_at = version.changed_at if version.state is state else self._clock.now()
        return replace(version, state=state, changed_at=moved_at)
