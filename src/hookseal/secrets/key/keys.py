"""The table of master keys, and the initialisation of an installation."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.errors import Conflict
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.handles import Connection, Executor
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key.rules import KeyState
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Purpose, SecretRef
from hookseal.secrets.sealing import active_key
from hookseal.secrets.sealing.keyring import KEY_BYTES, KeyRing
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records
from hookseal.secrets.store.port import SecretStore, VersionState

SENTINEL_NAME: Final = "sentinel"

_SQL: Final = statements("keys.sql", package="hookseal.secrets.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredKey:
    """A row of the table of master keys."""

    key_id: str
    state: KeyState
    check_value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A master key for an operator: its state and times, whether this process has it, and how many live workers do.

    A key that records name and that is not in the table is `unregistered`: its records cannot be opened.
    """

    key_id: str
    state: str
    held: bool
    records: int
    workers: int
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """The result of `initialise`: the active master key, None with a provider that has none, and its own secrets.

    `created`: these secrets were made now, and not before the first master key.
    """

    key_id: str | None
    state: KeyState | None
    integrity_ref: SecretRef
    sentinel_ref: SecretRef
    created: bool = True


async def initialise(
    connection: Connection, keyring: KeyRing | None, store: SecretStore, random_bytes: Callable[[int], bytes]
) -> KeyStatus:
    """Initialise an installation: register the sealing key as active, and create the integrity key and the sentinel.

    Without a ring no key is registered. In an installation without a master key, whose secrets are outside PostgreSQL,
    only the key is registered. It is one transaction, so the store must write on the same connection. Raises `Conflict`
    if the installation was initialised before, and what the store raises.
    """
    key = None if keyring is None else keyring.sealing
    async with _SQL.transaction(connection) as own:
        await active_key.lock_exclusive(own)
        is_empty = await _SQL.value(own, "is_empty")
        if not is_empty and (key is None or not await _SQL.value(own, "has_no_key")):
            raise Conflict("the keys of this installation were made before: see `hookseal key status`")
        if key is not None:
            await _SQL.execute(own, "register", key.key_id, key.check_value)
        integrity_ref, sentinel_ref = (
            await make_own_secrets(store, random_bytes) if is_empty else await _own_secrets(own)
        )
    return KeyStatus(
        key_id=None if key is None else key.key_id,
        state=None if key is None else KeyState.ACTIVE,
        integrity_ref=integrity_ref,
        sentinel_ref=sentinel_ref,
        created=is_empty,
    )


async def _own_secrets(connection: Connection) -> tuple[SecretRef, SecretRef]:
    """Return the active versions of the installation's own secrets, wherever they are."""
    integrity, sentinel = [
        next(
            version.ref
            for version in await records.versions(connection, SYSTEM_TENANT, name)
            if version.state is VersionState.ACTIVE
        )
        for name in (INTEGRITY_NAME, SENTINEL_NAME)
    ]
    return integrity, sentinel


async def make_own_secrets(store: SecretStore, random_bytes: Callable[[int], bytes]) -> tuple[SecretRef, SecretRef]:
    """Store the integrity key and the sentinel of the installation, and return their references in that order.

    Raises what the store raises: `Conflict` if they exist.
    """
    integrity, sentinel = SecretMaterial(random_bytes(KEY_BYTES)), SecretMaterial(random_bytes(KEY_BYTES))
    return (
        await store.put(SYSTEM_TENANT, INTEGRITY_NAME, integrity, purpose=Purpose.INTEGRITY),
        await store.put(SYSTEM_TENANT, SENTINEL_NAME, sentinel, purpose=Purpose.SENTINEL),
    )


async def status(connection: Executor, keyring: KeyRing | None, *, live_seconds: float) -> tuple[KeyRow, ...]:
    """Return every master key that is registered or named by a record, oldest first. Raises `SecretUnavailable`."""
    own_ids = frozenset(key.key_id for key in keyring.keys) if keyring is not None else frozenset()
    rows = await _SQL.rows(connection, "counted", live_seconds)
    return tuple(KeyRow(**dict(row), held=row["key_id"] in own_ids) for row in rows)


async def registered(connection: Executor) -> tuple[RegisteredKey, ...]:
    """Return the rows of the table of master keys, oldest first. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(connection, "registered")
    return tuple(
        RegisteredKey(key_id=row["key_id"], state=KeyState(row["state"]), check_value=row["check_value"])
        for row in rows
    )


async def needed(connection: Executor, key_ids: list[str]) -> tuple[str, ...]:
    """Return those of the keys under which a record is still sealed. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(connection, "needed", key_ids)
    return tuple(row["id"] for row in rows)
