"""Unlocks the secrets of an installation at start. It writes nothing, and unlocks all of them or none."""

import os
import random
from dataclasses import dataclass
from typing import Final

from hookseal.errors import ConfigError
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.tls import verifying_context
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.core.trust import IntegrityKey
from hookseal.secrets.extras.tls_context import TlsContexts, Trust
from hookseal.secrets.integrity_versions import IntegrityVersions, integrity_key
from hookseal.secrets.key import stores
from hookseal.secrets.key.keys import SENTINEL_NAME, Sentinel, active, make_own_secrets, registered
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.resolve.cache import CacheLimits, SealedCache
from hookseal.secrets.resolve.reader import SecretReader
from hookseal.secrets.resolve.service import SecretService
from hookseal.secrets.statements import statements
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import SecretStore
from hookseal.secrets.store.several import SeveralStores

_SYSTEM_CLOCK: Final = SystemClock()
_DEFAULT_LIMITS: Final = CacheLimits()
_SQL: Final = statements("boot.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """The secrets of an installation, ready for use."""

    store: SecretStore
    service: SecretService
    integrity: IntegrityKey
    versions: IntegrityVersions
    probe: Sentinel

    @property
    def sentinel(self) -> SecretRef:
        """The sentinel that `check_sentinel` opens."""
        return self.probe.ref

    @property
    def stores(self) -> SeveralStores | None:
        """The stores with rows in PostgreSQL; None with the provider `dev`."""
        return self.store if isinstance(self.store, SeveralStores) else None

    async def sealing_key_id(self, connection: Executor) -> str | None:
        """Return the id of the master key that seals new records; None if the provider has no master keys.

        In a transaction that has sealed a record it is the key that sealed it. Raises `SecretUnavailable`.
        """
        database = None if self.stores is None else self.stores.database
        if database is None or self.store.provider is not Provider.DB:
            return None
        return await database.joined_to(connection).sealing_key_id()

    @property
    def keyring(self) -> KeyRing | None:
        """The master keys of this process, with their roles in the table of keys at start; None without any."""
        database = None if self.stores is None else self.stores.database
        return None if database is None else database.keyring

    async def check_sentinel(self) -> None:
        """Open the sentinel, without the cache. Raises `SecretError` or `SecretUnavailable` if that fails.

        At a provider that charges for each read, the result of a read counts for a minute.
        """
        await self.probe.check(self.store)

    def store_on(self, connection: Executor) -> SecretStore:
        """Return the store on that pool or connection; on a connection it joins the transaction that is open there.

        The store `dev` is returned unchanged.
        """
        return self.store if self.stores is None else self.stores.joined_to(connection)


async def unlock(
    source: Executor,
    provider: Provider,
    keyring: KeyRing | None,
    *,
    cache: CacheLimits = _DEFAULT_LIMITS,
    clock: Clock = _SYSTEM_CLOCK,
    trust: Trust = verifying_context,
    outside: Outside | None = None,
) -> Unlocked:
    """Return the unlocked secrets, checked against the table of keys; the sentinel has been opened once.

    Secrets for signing are read through a cache with these limits; `store` has no cache. `trust` makes the TLS context
    of an endpoint that has a client certificate and no authorities of its own.

    `db` needs the keyring and follows the table: the key that is active there seals, retired keys open nothing. A
    provider outside PostgreSQL needs `outside`, and the keyring only as long as versions are sealed under it. `dev`
    makes its own keys in memory. Raises `ConfigError` if the installation is not initialised, the keyring does not
    match the table, or the provider has no settings, or, with `dev`, if it is initialised; `SecretError` if the
    installation's own secrets do not open, and `SecretUnavailable`.
    """
    sealed_cache = SealedCache(cache, clock=clock, chance=random.SystemRandom().random, random_bytes=os.urandom)
    contexts = TlsContexts(clock=clock, ttl_seconds=cache.ttl_seconds, trust=trust)
    store: SecretStore
    if provider is Provider.DEV:
        await _require_unregistered(source)
        store = DevStore()
        await make_own_secrets(store, os.urandom)
    else:
        store = await stores.opened(source, provider, keyring, outside)
    return await _unlocked(store, sealed_cache, contexts, clock)


async def basis(source: Executor) -> str:
    """Return a fingerprint of everything in PostgreSQL that `unlock` reads, for a provider with rows there.

    As long as it is the same, what was unlocked after it was read is as it would be now. Raises `SecretDenied` and
    `SecretUnavailable`.
    """
    fingerprint: str = await _SQL.value(source, "basis")
    return fingerprint


async def _require_unregistered(source: Executor) -> None:
    """Raise `ConfigError` if master keys are registered: under the random keys of `dev` every row would look forged."""
    if await registered(source):
        raise ConfigError(
            "SECRETS_PROVIDER: this installation has registered master keys, under which its secrets are sealed: "
            "set SECRETS_PROVIDER=db, and SECRETS_MASTER_KEY",
            field="SECRETS_PROVIDER",
        )


async def _unlocked(store: SecretStore, cache: SealedCache, contexts: TlsContexts, clock: Clock) -> Unlocked:
    integrity = await integrity_key(store)
    versions = IntegrityVersions(store, integrity, clock=clock)
    unlocked = Unlocked(
        store=store,
        service=SecretService(
            SecretReader(store, cache, clock=clock),
            integrity,
            learn=versions.learn,
            read_again=versions.read_again,
            contexts=contexts,
        ),
        integrity=integrity,
        versions=versions,
        probe=Sentinel(await active(store, SENTINEL_NAME), clock=clock),
    )
    await unlocked.check_sentinel()
    return unlocked
