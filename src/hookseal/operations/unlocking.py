"""Unlocks the secrets of the installation for somebody who changes it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from hookseal.config.settings import Secrets, Settings
from hookseal.errors import Defect, Refused, SecretDenied
from hookseal.ground.clock import Clock
from hookseal.operations import sending
from hookseal.postgres.pool import Executor, Pool, connected
from hookseal.secrets import boot
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.trust import IntegrityKey
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.resolve.cache import CacheLimits
from hookseal.secrets.store.external import Apart
from hookseal.secrets.store.several import Providers

_CACHED: Final = CacheLimits()
_NOTHING_CACHED: Final = CacheLimits(ttl_seconds=0)


def require_lasting(secrets: Secrets) -> None:
    """Raise `Refused` for the provider `dev`, whose keys and secrets end with the process that made them."""
    if secrets.provider is Provider.DEV:
        raise Refused("the provider dev keeps secrets in the memory of one process", advice="set SECRETS_PROVIDER=db")


@asynccontextmanager
async def outside(settings: Settings, apart: Apart) -> AsyncIterator[Outside]:
    """Give what stores outside PostgreSQL need; all connections to them are closed when the block ends."""
    providers = Providers(settings.secrets.access)
    try:
        yield Outside(providers=providers, apart=apart)
    finally:
        await providers.close()


def unlock_for_changes(
    source: Executor,
    settings: Settings,
    keyring: KeyRing | None = None,
    *,
    outside: Outside | None = None,
    cache: CacheLimits = _CACHED,
) -> Coroutine[Any, Any, Unlocked]:
    """Unlock the secrets, by default with the keyring of the settings; `outside` is for stores outside PostgreSQL.

    Raises `ConfigError` if the keys do not fit the installation, `SecretDenied` if this database role may not read
    secrets, another `SecretError` if those of the installation do not open, and `Unavailable`.
    """
    return boot.unlock(
        source,
        settings.secrets.provider,
        settings.secrets.keyring if keyring is None else keyring,
        cache=cache,
        trust=sending.trust(settings.egress),
        outside=outside,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Unlocked secrets, and the basis that was read just before."""

    basis: str
    unlocked: Unlocked


class KeptSecrets:
    """The secrets of an installation for many changes: unlocked once, and again when their basis has changed.

    The basis is a fingerprint of everything that unlocking reads of PostgreSQL (`secrets.boot.basis`). Each change
    reads it, at the latest in its own transaction, so it follows every change of keys, and fails as a new process would
    if the keys no longer fit. Secrets of endpoints are read anew each time. Tasks may share the object.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._kept: _Kept | None = None
        self._lock = asyncio.Lock()
        self._outside: Outside | None = None
        self._opened = AsyncExitStack()

    async def for_change(self, *, is_joined: bool) -> Unlocked | None:
        """Return the secrets of now for a change that joins its caller's transaction, which may see older keys.

        For another change return None, because its own transaction reads the basis for `of`; if no secrets are kept,
        they are unlocked now, before a transaction has to wait for it. Raises as `unlock_for_changes` does, but
        `Refused` if this database role may not read secrets.
        """
        if self._kept is not None and not is_joined:
            return None
        return await self._now()

    async def integrity(self, *, compare: bool) -> IntegrityKey:
        """Return the integrity key: as unlocked last or, with `compare`, as it is now. Raises as `for_change`."""
        kept = self._kept
        return (await self._now() if kept is None or compare else kept.unlocked).integrity

    async def of(self, basis: str) -> Unlocked:
        """Return the secrets that fit this basis, which the caller has just read. Raises as `for_change` does."""
        kept = self._kept
        if kept is not None and kept.basis == basis:
            return kept.unlocked
        async with self._lock:
            if self._kept is None or self._kept.basis != basis:
                self._kept = None  # so nothing is kept if it fails
                self._kept = await self._unlock()
            return self._kept.unlocked

    async def aclose(self) -> None:
        """Close all connections to providers outside PostgreSQL."""
        await self._opened.aclose()

    async def _now(self) -> Unlocked:
        try:
            return await self.of(await boot.basis(self._pool))
        except SecretDenied as error:
            raise Refused(str(error), advice=error.advice, joint=error.joint) from None

    async def _unlock(self) -> _Kept:
        if self._outside is None:
            outside_ = outside(self._settings, partial(connected, self._pool))
            self._outside = await self._opened.enter_async_context(outside_)
        try:
            basis = await boot.basis(self._pool)  # first: what changes while it unlocks is seen by the next change
            unlocked = await unlock_for_changes(
                self._pool, self._settings, outside=self._outside, cache=_NOTHING_CACHED
            )
        except SecretDenied as error:  # the role has no right to the tables of secrets
            raise Refused(str(error), advice=error.advice, joint=error.joint) from None
        return _Kept(basis=basis, unlocked=unlocked)


async def unwrapped(settings: Settings, *, clock: Clock) -> Settings:
    """Return the settings with their wrapped master keys unwrapped by the KMS, or unchanged if none is wrapped.

    Nothing asks the KMS afterwards. It takes at most 15 seconds. Raises `Unavailable` if the KMS does not answer, and
    `ConfigError` if it denies, or if a key was wrapped for another installation.
    """
    secrets = settings.loaded_secrets
    if secrets is None or not secrets.wrapped.all:
        return settings
    if settings.kms is None:
        raise Defect("there are wrapped keys, and no KMS")
    async with key_wrapper(settings.kms, clock=clock) as wrapper:
        keys = {wrapped.key_id: await wrapper.unwrap(wrapped) for wrapped in secrets.wrapped.all}
    return replace(settings, loaded_secrets=secrets.with_unwrapped(keys))
