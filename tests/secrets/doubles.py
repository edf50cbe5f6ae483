"""A store that tells what it was asked, and fails or hangs when it is told to; and a reader on any store."""

import asyncio
import os
from dataclasses import replace
from typing import Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId
from hookseal.secrets.cache import CacheLimits, SealedCache
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.reader import BUDGET_SECONDS, SecretReader
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.store import SecretStore, SecretVersion
from hookseal.secrets.stores.dev import DevStore
from tests.doubles.clock import FakeClock

_TURNS: Final = 20  # of the loop: more than any answer takes on its way from the store to who waits


def reader_on(
    store: SecretStore, clock: Clock | None = None, *, budget_seconds: float = BUDGET_SECONDS, **limits: int
) -> SecretReader:
    """Return a reader with an empty cache, whose entries live for the whole TTL; the other limits are the defaults."""
    clock = clock or FakeClock()
    cache = SealedCache(replace(CacheLimits(), **limits), clock=clock, chance=lambda: 0.0, random_bytes=os.urandom)
    return SecretReader(store, cache, clock=clock, budget_seconds=budget_seconds)


async def settled() -> None:
    """Return once every task has gone as far as it can without an answer from outside."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class ScriptedStore:
    """The store `dev`, with a memory of what was fetched, and with errors or silence in place of answers."""

    def __init__(self) -> None:
        self.inner = DevStore()
        self.provider = self.inner.provider
        self.fetched: list[SecretRef] = []
        self.errors: dict[SecretRef, Exception] = {}
        self.passing: list[Exception] = []
        self.silent: dict[SecretRef, asyncio.Event] = {}

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Do as `dev` does."""
        return await self.inner.put(tenant, name, material, purpose=purpose, scheme=scheme)

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Remember the question; be silent until the event, raise what was scripted, or do as `dev` does.

        `errors` are raised every time, `passing` ones once each, in order. What `dev` says is read before the
        silence: an answer that was long on its way.
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
        """Do as `dev` does."""
        return await self.inner.rotate(tenant, name, material, purpose=purpose, scheme=scheme)

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Do as `dev` does."""
        return await self.inner.versions(tenant, name)

    async def destroy(self, ref: SecretRef) -> None:
        """Do as `dev` does."""
        await self.inner.destroy(ref)
