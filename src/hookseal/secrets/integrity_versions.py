"""Reads the versions of the integrity key from the store: at start, and again after a rotation by another process."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from hookseal.errors import SecretError, SecretNotFound
from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.ground.single_flight import SingleFlight
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.trust import IntegrityKey
from hookseal.secrets.store.port import SecretStore, VersionState

INTEGRITY_NAME: Final = "integrity"
_ATTEMPTS: Final = 2  # a read that had begun before may have missed the version
LEARN_EVERY_SECONDS: Final = 1.0  # a forged row may name any version: it must not cause more reads than this


async def integrity_key(store: SecretStore) -> IntegrityKey:
    """Return the integrity key with every version that the store still has.

    Raises `SecretNotFound` if there is none, and what the store raises.
    """
    refs = await _with_material(store)
    if not refs:
        raise SecretNotFound(f"the installation has no active secret {SYSTEM_TENANT}/{INTEGRITY_NAME}")
    materials = {str(ref.version): await store.get(ref, purpose=Purpose.INTEGRITY) for ref in refs}
    newest = str(refs[-1].version)
    return IntegrityKey(key_id=newest, material=materials.pop(newest), older=materials)


class IntegrityVersions:
    """Keeps an integrity key up to date with its store."""

    def __init__(self, store: SecretStore, key: IntegrityKey, *, clock: Clock) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._asked_at: float | None = None
        self._asking: SingleFlight[None, None] = SingleFlight()
        self._reading: SingleFlight[None, None] = SingleFlight()

    async def learn(self, key_id: str) -> None:
        """If that version is not known, adopt from the store every version that is not known.

        The store is read at most once a second; concurrent calls share a read. Raises what the store raises.
        """
        for _ in range(_ATTEMPTS):
            if self._key.knows(key_id):
                return
            asking, _ = self._asking.join(None, self._refresh_when_allowed)
            await asyncio.wait({asking})
            asking.result()

    async def refresh(self, store: SecretStore | None = None) -> None:
        """Adopt every version that the key does not know, read the newest again, and make MACs under it.

        A restore may remove versions, and their numbers are then used again: nobody else could verify a MAC under a
        version that only this process knows. If the store has no version, the key does not change. `store` may be
        another handle of the store, on a free connection. Raises what the store raises.
        """
        source = self._store if store is None else store
        refs = await _with_material(source)
        for ref in refs:
            if ref == refs[-1] or not self._key.knows(str(ref.version)):
                await self._adopt(source, ref)
        self._make_under_newest(refs)

    async def read_again(self) -> None:
        """Read every version from the store again and forget all others; a version that does not open stays as it is.

        If the store has no version that is known, the key does not change. Concurrent calls share one read. Raises
        `SecretUnavailable`.
        """
        asking, _ = self._reading.join(None, self._read_all)
        await asyncio.wait({asking})
        asking.result()

    async def _read_all(self) -> None:
        refs = await _with_material(self._store)
        for ref in refs:
            with suppress(SecretError):  # a damaged version must not stop a worker
                await self._adopt(self._store, ref)
        versions = {str(ref.version) for ref in refs}
        if any(map(self._key.knows, versions)):
            self._key.keep_only(versions)

    async def _adopt(self, store: SecretStore, ref: SecretRef) -> None:
        self._key.adopt(str(ref.version), await store.get(ref, purpose=Purpose.INTEGRITY))

    def _make_under_newest(self, refs: Sequence[SecretRef]) -> None:
        newest = next((str(ref.version) for ref in reversed(refs) if self._key.knows(str(ref.version))), None)
        if newest is not None:
            self._key.make_under(newest)

    async def _refresh_when_allowed(self) -> None:
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < LEARN_EVERY_SECONDS:
            await self._clock.sleep(self._asked_at + LEARN_EVERY_SECONDS - now)
        self._asked_at = self._clock.monotonic()
        await self.refresh()


async def _with_material(store: SecretStore) -> list[SecretRef]:
    """Return the versions that are not destroyed, oldest first."""
    versions = await store.versions(SYSTEM_TENANT, INTEGRITY_NAME)
    return [version.ref for version in versions if version.state is not VersionState.DESTROYED]
