"""The master keys in the database: their states, and the record by which a wrong key is recognised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from hookseal.errors import Conflict, NotFound, SecretError, SecretNotFound, SecretUnavailable
from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core.key_rules import KeyState, Use
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key import active_key
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records
from hookseal.secrets.store.port import SecretStore, VersionState

SENTINEL_NAME: Final = "sentinel"

KeyChange = Literal["compromised", "destroyed", "drained", "retired"]

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

    Without a keyring no key is registered. In an installation without a master key, whose secrets are outside
    PostgreSQL, only the key is registered. It is one transaction, so the store must write on the same connection.
    Raises `Conflict` if the installation was initialised before, and what the store raises.
    """
    key = None if keyring is None else keyring.sealing
    async with _SQL.transaction(connection) as own:
        await active_key.lock_exclusive(own)
        is_empty = await _SQL.value(own, "is_empty")
        if not is_empty and (key is None or not await _SQL.value(own, "has_no_key")):
            raise Conflict("the keys of this installation were made before", advice="see `hookseal key status`")
        if key is not None:
            await _SQL.execute(own, "register_first", key.key_id, key.check_value)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLife:
    """The state of a master key, and the times of its changes.

    `promoted_at` is when it first became active, `drained_at` when a re-wrap left no record under it.
    """

    key_id: str
    state: KeyState
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None


async def life(connection: Connection, key_id: str) -> KeyLife:
    """Return the key. Raises `NotFound` if it is not registered, and `SecretUnavailable`."""
    key = await known(connection, key_id)
    if key is None:
        raise NotFound(f"there is no master key {key_id}", advice="see `hookseal key status`", field="key_id")
    return key


async def known(connection: Connection, key_id: str) -> KeyLife | None:
    """Return the key, None if it is not registered. Raises `SecretUnavailable`."""
    row = await _SQL.row(connection, "life", key_id)
    return None if row is None else KeyLife(**dict(row) | {"state": KeyState(row["state"])})


async def workers_without(connection: Connection, key_id: str, *, live_seconds: float) -> Sequence[str]:
    """Return the live workers that do not hold the key. Raises `SecretUnavailable`."""
    return [row["id"] for row in await _SQL.rows(connection, "workers_without", key_id, live_seconds)]


async def workers_with(connection: Connection, key_id: str, *, live_seconds: float) -> Sequence[str]:
    """Return the live workers that hold the key. Raises `SecretUnavailable`."""
    return [row["id"] for row in await _SQL.rows(connection, "workers_with", key_id, live_seconds)]


async def use(connection: Connection, key_id: str) -> Use:
    """Return the records and pending deliveries that need the key. Raises `SecretUnavailable`."""
    [row] = await _SQL.rows(connection, "use", key_id)
    return Use(records=row["records"], deliveries=row["deliveries"])


async def register(connection: Connection, key: MasterKey) -> None:
    """Register the key as staged: processes may have it, and it seals nothing yet. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "register", key.key_id, key.check_value)


async def promote(connection: Connection, key_id: str) -> None:
    """Make the key the active one; the key that was active only opens from now on. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "step_back")
    await _SQL.execute(connection, "promote", key_id)


async def write_change(connection: Connection, key_id: str, change: KeyChange) -> None:
    """Write this change of the key with its time; the time of a first compromise stays. Raises `SecretUnavailable`.

    `key_rules` has decided that it may change, and the caller holds `active_key.lock_exclusive`. Under a drained key a
    record is stale from then on, a retired key opens nothing, and a process that has a destroyed one does not start.
    """
    await _SQL.execute(connection, change, key_id)


PAID_SECONDS: Final = 60.0  # for which a result counts at a provider that charges for each read

_PAID: Final = frozenset({Provider.AWS, Provider.GCP})


class Sentinel:
    """Opens the sentinel: each time, or at most once a minute where each read is charged."""

    def __init__(self, ref: SecretRef, *, clock: Clock) -> None:
        self.ref = ref
        self._clock = clock
        self._read_at: float | None = None
        self._error: SecretError | SecretUnavailable | None = None

    async def check(self, store: SecretStore) -> None:
        """Open the sentinel. Raises `SecretError` or `SecretUnavailable` if that fails, or failed last time."""
        now = self._clock.monotonic()
        if self.ref.provider not in _PAID or self._read_at is None or now - self._read_at >= PAID_SECONDS:
            self._read_at = now  # at once, so that nobody else reads meanwhile
            try:
                await self._open(store)
            except (SecretError, SecretUnavailable) as error:
                self._error = error
            except BaseException:
                self._error = SecretUnavailable("the last read of the sentinel was cut short")
                raise
            else:
                self._error = None
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def _open(self, store: SecretStore) -> None:
        try:
            await store.get(self.ref, purpose=Purpose.SENTINEL)
        except SecretNotFound:
            moved = await active(store, self.ref.name)
            if moved == self.ref:
                raise
            self.ref = moved  # `hookseal secret move` has moved it
            await store.get(moved, purpose=Purpose.SENTINEL)


async def active(store: SecretStore, name: str) -> SecretRef:
    """Return the active version of a secret of the installation's own. Raises `SecretNotFound`, `SecretUnavailable`."""
    for version in await store.versions(SYSTEM_TENANT, name):
        if version.state is VersionState.ACTIVE:
            return version.ref
    raise SecretNotFound(f"the installation has no active secret {SYSTEM_TENANT}/{name}")
