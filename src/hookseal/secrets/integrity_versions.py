"""The versions of the integrity key at the store: read at start, and again when somebody else has rotated it."""

import asyncio
from typing import Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretNotFound
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.single_flight import SingleFlight
from hookseal.secrets.store import SecretStore, VersionState

INTEGRITY_NAME: Final = "integrity"
_ASKINGS: Final = 2  # one that was under way may have read before the version was there
LEARN_EVERY_SECONDS: Final = 1.0  # a row may name any version: what it makes us ask for is bounded


async def integrity_key(store: SecretStore) -> IntegrityKey:
    """Return the integrity key in every version that the store still has.

    Raises `SecretNotFound` if there is none, and what the store raises.
    """
    found = await _kept(store)
    if not found:
        raise SecretNotFound(f"the installation has no active secret {SYSTEM_TENANT}/{INTEGRITY_NAME}")
    materials = {str(ref.version): await store.get(ref, purpose=Purpose.INTEGRITY) for ref in found}
    newest = str(found[-1].version)
    return IntegrityKey(key_id=newest, material=materials.pop(newest), older=materials)


class IntegrityVersions:
    """Keeps an integrity key up to date with its store."""

    def __init__(self, store: SecretStore, key: IntegrityKey, *, clock: Clock) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._asked_at: float | None = None
        self._asking: SingleFlight[None, None] = SingleFlight()

    async def learn(self, key_id: str) -> None:
        """Adopt the versions that the key does not know, if that one is not known.

        The store is asked once a second: who comes sooner shares the next asking. Raises what the store raises.
        """
        for _ in range(_ASKINGS):
            if self._key.knows(key_id):
                return
            asking, _ = self._asking.join(None, self._asked)
            await asyncio.wait({asking})
            asking.result()

    async def refresh(self) -> None:
        """Adopt every version that the key does not know. Raises what the store raises."""
        for ref in await _kept(self._store):
            if not self._key.knows(str(ref.version)):
                self._key.adopt(str(ref.version), await self._store.get(ref, purpose=Purpose.INTEGRITY))

    async def _asked(self) -> None:
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < LEARN_EVERY_SECONDS:
            await self._clock.sleep(self._asked_at + LEARN_EVERY_SECONDS - now)
        self._asked_at = self._clock.monotonic()
        await self.refresh()


async def _kept(store: SecretStore) -> list[SecretRef]:
    """Return the versions that have material, oldest first."""
    versions = await store.versions(SYSTEM_TENANT, INTEGRITY_NAME)
    return [version.ref for version in versions if version.state is not VersionState.DESTROYED]
