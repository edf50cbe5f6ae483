"""Unlocks the secrets of an installation at start: nothing is written, and nothing is half unlocked."""

import hmac
import os
import random
from dataclasses import dataclass
from typing import Final

from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.errors import ConfigError
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.schema.database import Executor
from hookseal.secrets.cache import CacheLimits, SealedCache
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretNotFound
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.integrity_versions import IntegrityVersions, integrity_key
from hookseal.secrets.key_rules import KeyState
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.keys import (
    SENTINEL_NAME,
    RegisteredKey,
    make_own_secrets,
    needed,
    registered,
)
from hookseal.secrets.reader import SecretReader
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.service import SecretService
from hookseal.secrets.store import SecretStore, VersionState
from hookseal.secrets.stores.dev import DevStore
from hookseal.secrets.stores.postgres import PostgresStore
from hookseal.secrets.tls_context import TlsContexts, Trust, system_trust

_SYSTEM_CLOCK: Final = SystemClock()
_DEFAULT_LIMITS: Final = CacheLimits()
_CLOSED: Final = frozenset({KeyState.RETIRED, KeyState.DESTROYED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """The secrets of an installation, ready for use."""

    store: SecretStore
    service: SecretService
    integrity: IntegrityKey
    versions: IntegrityVersions
    sentinel: SecretRef

    async def sealing_key_id(self, connection: Executor) -> str | None:
        """Return the id of the master key that seals what is put now; None where the provider has none.

        On the connection of a transaction that put something it is the one that did. Raises `SecretUnavailable`.
        """
        store = self.store_on(connection)
        return await store.sealing_key_id() if isinstance(store, PostgresStore) else None

    @property
    def keyring(self) -> KeyRing | None:
        """The master keys of this process, arranged as the table of keys said at start; None where there are none."""
        return self.store.keyring if isinstance(self.store, PostgresStore) else None

    async def check_sentinel(self) -> None:
        """Return only if the store answers and opens the sentinel now. Raises `SecretError` or `SecretUnavailable`."""
        await self.store.get(self.sentinel, purpose=Purpose.SENTINEL)

    def store_on(self, connection: Executor) -> SecretStore:
        """Return the store for use there, inside the caller's transaction if it is a connection that has one open.

        A store elsewhere than in PostgreSQL stays as it is.
        """
        return self.store.joined_to(connection) if isinstance(self.store, PostgresStore) else self.store


async def unlock(
    source: Executor,
    provider: Provider,
    keyring: KeyRing | None,
    *,
    cache: CacheLimits = _DEFAULT_LIMITS,
    clock: Clock = _SYSTEM_CLOCK,
    trust: Trust = system_trust,
) -> Unlocked:
    """Return the unlocked secrets, checked against the table of keys; the sentinel has been opened once.

    What signs goes through a cache of these limits; the store itself is asked without one. An endpoint with a client
    certificate and no authorities of its own is dialled with what `trust` makes.

    `db` needs the ring and obeys the table: the key that is active there seals, retired ones open
    nothing. `dev` makes its own keys, in memory, at once. Raises `ConfigError` if the installation was
    not begun or the ring does not fit the table, or, with `dev`, if it was begun; `SecretError` if its own
    secrets do not open, and `SecretUnavailable`.
    """
    held = SealedCache(cache, clock=clock, chance=random.SystemRandom().random, random_bytes=os.urandom)
    contexts = TlsContexts(clock=clock, ttl_seconds=cache.ttl_seconds, trust=trust)
    match provider:
        case Provider.DB:
            if keyring is None:
                raise ConfigError("SECRETS_MASTER_KEY: must be set for the provider db", field="SECRETS_MASTER_KEY")
            return await _unlocked(PostgresStore(source, await fitting(source, keyring)), held, contexts, clock)
        case Provider.DEV:
            await _require_unregistered(source)
            store = DevStore()
            await make_own_secrets(store, os.urandom)
            return await _unlocked(store, held, contexts, clock)
        case _:
            raise ConfigError(
                "SECRETS_PROVIDER: this version of hookseal keeps secrets with db and dev only",
                field="SECRETS_PROVIDER",
            )


async def _require_unregistered(source: Executor) -> None:
    """Return only if the installation has no keys: with those that `dev` makes up, every row would look forged."""
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
        sentinel=await _active(store, SENTINEL_NAME),
    )
    await unlocked.check_sentinel()
    return unlocked


async def _active(store: SecretStore, name: str) -> SecretRef:
    for version in await store.versions(SYSTEM_TENANT, name):
        if version.state is VersionState.ACTIVE:
            return version.ref
    raise SecretNotFound(f"the installation has no active secret {SYSTEM_TENANT}/{name}")


async def fitting(source: Executor, keyring: KeyRing) -> KeyRing:
    """Return the ring arranged as the table of keys says.

    Raises `ConfigError` listing all that does not fit, and `SecretUnavailable`.
    """
    rows = await registered(source)
    if not rows:
        raise ConfigError("this installation has no keys yet: run `hookseal key init`")
    problems = _misfits(rows, keyring)
    held = {key.key_id for key in keyring.keys}
    active = next((row.key_id for row in rows if row.state is KeyState.ACTIVE), None)
    if active is None:
        problems.append("no master key is active in the table of keys")
    elif active not in held:
        problems.append(
            f"master key {active} is the active one and is not among the keys of this process: "
            "supply it in SECRETS_MASTER_KEY"
        )
    lacking = [row.key_id for row in rows if row.key_id not in {*held, active} and row.state not in _CLOSED]
    problems += [
        f"master key {key_id} is not among the keys of this process, and stored secrets need it: "
        "supply it in SECRETS_MASTER_KEY_PREVIOUS"
        for key_id in await needed(source, lacking)
    ]
    if active is None or problems:
        raise ConfigError(problems)
    return keyring.arranged(sealing=active, retired=[row.key_id for row in rows if row.state in _CLOSED])


def _misfits(rows: tuple[RegisteredKey, ...], keyring: KeyRing) -> list[str]:
    """Say of every key that is held why it may not be."""
    known = {row.key_id: row for row in rows}
    problems: list[str] = []
    for key in keyring.keys:
        row = known.get(key.key_id)
        if row is None:
            problems.append(
                f"master key {key.key_id} is not registered: this installation has other keys, and the next one is "
                "registered by `hookseal key stage`, before any worker holds it"
            )
        elif not hmac.compare_digest(row.check_value, key.check_value):
            problems.append(f"master key {key.key_id} fails its check value: the key or its row was altered")
        elif row.state is KeyState.DESTROYED:
            problems.append(f"master key {key.key_id} was destroyed: take it out of the settings")
    return problems
