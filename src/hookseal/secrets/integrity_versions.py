"""The versions of the integrity key at the store: read at start, and again when somebody else has rotated it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretError, SecretNotFound
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
        self._reading: SingleFlight[None, None] = SingleFlight()

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

    async def refresh(self, store: SecretStore | None = None) -> None:
        """Adopt every version that the key does not know, and authenticate under the newest at the store, read afresh.

        A restore takes versions away, and their numbers are given again: nobody else could verify what is made under
        one that only this process knows. Where the store has none left, the key stays as it is. Another handle of the
        store may be given, on a connection that is free. Raises what the store raises.
        """
        source = self._store if store is None else store
        kept = await _kept(source)
        for ref in kept:
            if ref == kept[-1] or not self._key.knows(str(ref.version)):
                await self._adopt(source, ref)
        self._settle(kept)

    async def read_again(self) -> None:
        """Know every version as the store has it now, and no other; what does not open there stays as it is known.

        Where the store has none, or none that is known, the key stays as it is. Who asks while somebody is asked waits
        for the same answer. Raises `SecretUnavailable`.
        """
        asking, _ = self._reading.join(None, self._read_all)
        await asyncio.wait({asking})
        asking.result()

    async def _read_all(self) -> None:
        kept = await _kept(self._store)
        for ref in kept:
            with suppress(SecretError):  # one that somebody spoilt stops no worker
                await self._adopt(self._store, ref)
        there = {str(ref.version) for ref in kept}
        if any(map(self._key.knows, there)):
            self._key.keep_only(there)

    async def _adopt(self, store: SecretStore, ref: SecretRef) -> None:
        self._key.adopt(str(ref.version), await store.get(ref, purpose=Purpose.INTEGRITY))

    def _settle(self, kept: Sequence[SecretRef]) -> None:
        newest = next((str(ref.version) for ref in reversed(kept) if self._key.knows(str(ref.version))), None)
        if newest is not None:
            self._key.make_under(newest)

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
