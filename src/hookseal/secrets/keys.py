"""The table of master keys: which are registered, what they may do, and how an installation begins."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.errors import Conflict
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection, Executor
from hookseal.secrets import active_key
from hookseal.secrets.context import Purpose
from hookseal.secrets.database import outages_translated, transaction
from hookseal.secrets.derivation import KEY_BYTES
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key_rules import KeyState
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.store import SecretStore

SENTINEL_NAME: Final = "sentinel"

_SQL: Final = statements("hookseal.secrets", "keys.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredKey:
    """A row of the table of master keys."""

    key_id: str
    state: KeyState
    check_value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One master key as an operator sees it: who holds it, this process and how many live workers, and when it moved.

    A key that records name but no row registers is `unregistered`: what it sealed cannot be opened.
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
    """What `initialise` made: the active master key, and the installation's own two secrets."""

    key_id: str
    state: KeyState
    integrity_ref: SecretRef
    sentinel_ref: SecretRef


async def initialise(
    connection: Connection, keyring: KeyRing, store: SecretStore, random_bytes: Callable[[int], bytes]
) -> KeyStatus:
    """Begin an installation, once: register the sealing key as active, make the integrity key and the sentinel.

    All in one transaction, so the store must write on the same connection. Raises `Conflict` if it was
    begun before, and what the store raises.
    """
    key = keyring.sealing
    async with transaction(connection) as own:
        await active_key.hold(own)
        if not await own.fetchval(_SQL["is_empty"]):
            raise Conflict("the keys of this installation were made before: see `hookseal key status`")
        await own.execute(_SQL["register"], key.key_id, key.check_value)
        integrity_ref, sentinel_ref = await make_own_secrets(store, random_bytes)
    return KeyStatus(key_id=key.key_id, state=KeyState.ACTIVE, integrity_ref=integrity_ref, sentinel_ref=sentinel_ref)


async def make_own_secrets(store: SecretStore, random_bytes: Callable[[int], bytes]) -> tuple[SecretRef, SecretRef]:
    """Put the integrity key and the sentinel of the installation, and return their references in that order.

    Raises what the store raises, `Conflict` among it if they are there.
    """
    integrity, sentinel = SecretMaterial(random_bytes(KEY_BYTES)), SecretMaterial(random_bytes(KEY_BYTES))
    return (
        await store.put(SYSTEM_TENANT, INTEGRITY_NAME, integrity, purpose=Purpose.INTEGRITY),
        await store.put(SYSTEM_TENANT, SENTINEL_NAME, sentinel, purpose=Purpose.SENTINEL),
    )


async def status(connection: Executor, keyring: KeyRing | None, *, live_seconds: float) -> tuple[KeyRow, ...]:
    """Return every master key that is registered or that a record names, oldest first. Raises `SecretUnavailable`."""
    held = frozenset(key.key_id for key in keyring.keys) if keyring is not None else frozenset()
    with outages_translated():
        rows = await connection.fetch(_SQL["counted"], live_seconds)
    return tuple(KeyRow(**dict(row), held=row["key_id"] in held) for row in rows)


async def registered(connection: Executor) -> tuple[RegisteredKey, ...]:
    """Return the rows of the table of master keys, oldest first. Raises `SecretUnavailable`."""
    with outages_translated():
        rows = await connection.fetch(_SQL["registered"])
    return tuple(
        RegisteredKey(key_id=row["key_id"], state=KeyState(row["state"]), check_value=row["check_value"])
        for row in rows
    )


async def needed(connection: Executor, key_ids: list[str]) -> tuple[str, ...]:
    """Return those of the ids that a sealed record still names. Raises `SecretUnavailable`."""
    with outages_translated():
        rows = await connection.fetch(_SQL["needed"], key_ids)
    return tuple(row["id"] for row in rows)
