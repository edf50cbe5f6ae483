"""Opens the stores of an installation: master keys that fit the table, and providers that the versions in use need."""

import hmac
from dataclasses import dataclass
from typing import Final, Never

from hookseal.errors import ConfigError, Defect
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key.keys import RegisteredKey, needed, registered
from hookseal.secrets.store import records
from hookseal.secrets.store.external import Apart, Installation
from hookseal.secrets.store.port import NO_ACCESS
from hookseal.secrets.store.postgres import PostgresStore
from hookseal.secrets.store.several import Providers, SeveralStores

_CLOSED: Final = frozenset({KeyState.RETIRED, KeyState.DESTROYED})
_NOT_BEGUN: Final = "this installation has no keys yet: run `hookseal key init`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What stores outside PostgreSQL need: the providers, and a connection outside of the caller's transaction."""

    providers: Providers
    apart: Apart


async def opened(
    source: Executor, provider: Provider, keyring: KeyRing | None, outside: Outside | None, *, is_begun: bool = True
) -> SeveralStores:
    """Return the stores, with `provider` for new versions.

    Without `is_begun` the installation need not be initialised yet. Raises `ConfigError` as `boot.unlock` does, and
    `SecretUnavailable`. That versions in use are at a provider without settings is no error, because an altered row
    must not keep a worker from its start: `unreachable` names these providers.
    """
    providers = Providers(NO_ACCESS) if outside is None else outside.providers
    if is_begun and provider is not Provider.DB and not await records.versions(source, SYSTEM_TENANT, INTEGRITY_NAME):
        raise ConfigError(_NOT_BEGUN)
    database = await _database(source, provider, keyring)
    here = frozenset({Provider.DB if database is not None else provider})
    in_use = await records.in_use(source, here)
    used = {other for other in Provider if other in in_use}  # an altered row may have any word
    for other in sorted((used & providers.configured) | ({provider} - {Provider.DB})):
        await providers.api(other).prepare()
    return SeveralStores(
        source,
        provider,
        database=database,
        providers=providers,
        installation=Installation(
            id=await records.installation(source), apart=_nowhere if outside is None else outside.apart
        ),
        unreachable=frozenset(used - providers.configured),
    )


def _nowhere() -> Never:
    raise Defect("a store outside PostgreSQL is used, and there is no connection apart")


async def _database(source: Executor, provider: Provider, keyring: KeyRing | None) -> PostgresStore | None:
    """Return the store `db`; None if no version is sealed, nor will be."""
    if keyring is None and provider is Provider.DB:
        raise ConfigError("SECRETS_MASTER_KEY: must be set for the provider db", field="SECRETS_MASTER_KEY")
    rows = await registered(source)
    if keyring is not None and (rows or provider is Provider.DB):
        return PostgresStore(source, await arrange_keyring(source, keyring))
    problems = [
        f"stored secrets need master key {key_id}: supply it in SECRETS_MASTER_KEY until `hookseal secret move` has "
        "moved all of them, and `hookseal secret purge --older-than 0` has destroyed what they left"
        for key_id in await needed(source, [row.key_id for row in rows if row.state not in _CLOSED])
    ]
    if problems:
        raise ConfigError(problems)
    return None


async def arrange_keyring(source: Executor, keyring: KeyRing) -> KeyRing:
    """Return the keyring with the roles of the table of keys: the active key seals, retired keys open nothing.

    Raises `ConfigError` with every mismatch between keyring and table, and `SecretUnavailable`.
    """
    rows = await registered(source)
    if not rows:
        raise ConfigError(_NOT_BEGUN)
    problems = _mismatches(rows, keyring)
    held_ids = {key.key_id for key in keyring.keys}
    active = next((row.key_id for row in rows if row.state is KeyState.ACTIVE), None)
    if active is None:
        problems.append("no master key is active in the table of keys")
    elif active not in held_ids:
        problems.append(
            f"master key {active} is the active one and is not among the keys of this process: "
            "supply it in SECRETS_MASTER_KEY"
        )
    missing = [row.key_id for row in rows if row.key_id not in {*held_ids, active} and row.state not in _CLOSED]
    problems += [
        f"master key {key_id} is not among the keys of this process, and stored secrets need it: "
        "supply it in SECRETS_MASTER_KEY_PREVIOUS"
        for key_id in await needed(source, missing)
    ]
    if active is None or problems:
        raise ConfigError(problems)
    return keyring.arranged(sealing=active, retired=[row.key_id for row in rows if row.state in _CLOSED])


def _mismatches(rows: tuple[RegisteredKey, ...], keyring: KeyRing) -> list[str]:
    """Return a message for each key of the keyring that this process must not have."""
    row_of = {row.key_id: row for row in rows}
    problems: list[str] = []
    for key in keyring.keys:
        row = row_of.get(key.key_id)
        if row is None:
            problems.append(
                f"master key {key.key_id} is not registered: this installation has other keys. If it is the next "
                "key, remove it from the settings of this process until `hookseal key stage` has registered it; else "
                "supply the installation's own key"
            )
        elif not hmac.compare_digest(row.check_value, key.check_value):
            problems.append(f"master key {key.key_id} fails its check value: the key or its row was altered")
        elif row.state is KeyState.DESTROYED:
            problems.append(f"master key {key.key_id} was destroyed: take it out of the settings")
    return problems
