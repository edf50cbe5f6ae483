"""A store that records its calls, and fails or hangs on request; and a reader on any store."""

import asyncio
import os
from dataclasses import replace
from typing import Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.resolve.cache import CacheLimits, SealedCache
from hookseal.secrets.resolve.reader import BUDGET_SECONDS, SecretReader
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import SecretStore, SecretVersion
from tests.doubles.clock import FakeClock

_TURNS: Final = 20  # of the loop: more than an answer needs from the store to its callers


def reader_on(
    store: SecretStore, clock: Clock | None = None, *, budget_seconds: float = BUDGET_SECONDS, **limits: int
) -> SecretReader:
    """Return a reader with an empty cache whose entries live for the whole TTL; the other limits are the defaults."""
    clock = clock or FakeClock()
    cache = SealedCache(replace(CacheLimits(), **limits), clock=clock, chance=lambda: 0.0, random_bytes=os.urandom)
    return SecretReader(store, cache, clock=clock, budget_seconds=budget_seconds)


async def tasks_idle() -> None:
    """Return once every task waits for something outside of the process."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class ScriptedStore:
    """The store `dev`, which records what was fetched, and can raise errors or wait instead of answering."""

    def __init__(self) -> None:
        self.inner = DevStore()
        self.provider = self.inner.provider
        self.providers = self.inner.providers
        self.fetched: list[SecretRef] = []
        self.errors: dict[SecretRef, Exception] = {}
        self.passing: list[Exception] = []
        self.silent: dict[SecretRef, asyncio.Event] = {}

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Do the same as `dev`."""
        return await self.inner.put(tenant, name, material, purpose=purpose, scheme=scheme)

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Record the ref; wait for its event, raise the scripted error, or do the same as `dev`.

        `errors` are raised every time, those in `passing` once each, in order. The answer of `dev` is read before the
        wait, like an answer that takes long to arrive.
        """
        self.fetched.append(ref)
        answer = await self.inner.get(ref, purpose=purpose) if ref in self.silent else None
        if ref in self.silent:
            await self.silent[ref].wait()
        if self.passing:
            raise self.passing.pop(0)
        if ref in self.errors:
            raise self.errors[ref]
        return answer or await self.inner.get(ref, purpose=purpose)

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Do the same as `dev`."""
        return await self.inner.rotate(tenant, name, material, purpose=purpose, scheme=scheme)

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Do the same as `dev`."""
        return await self.inner.versions(tenant, name)

    async def destroy(self, ref: SecretRef) -> None:
        """Do the same as `dev`."""
        await self.inner.destroy(ref)
