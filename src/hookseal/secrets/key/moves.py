"""Changes the state of a master key, in the caller's transaction, which must hold `active_key.lock_exclusive`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.errors import NotFound
from hookseal.postgres.handles import Connection
from hookseal.secrets.key.rules import KeyState, Use
from hookseal.secrets.sealing.keyring import MasterKey
from hookseal.secrets.statements import statements

_SQL: Final = statements("moves.sql", package="hookseal.secrets.key")


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
    found = await known(connection, key_id)
    if found is None:
        raise NotFound(f"there is no master key {key_id}: see `hookseal key status`", field="key_id")
    return found


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


async def drained(connection: Connection, key_id: str) -> None:
    """Mark the key as drained: a record under it is stale from now on. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "drained", key_id)


async def compromised(connection: Connection, key_id: str) -> None:
    """Mark the key as compromised; the time of the first call stays. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "compromised", key_id)


async def retire(connection: Connection, key_id: str) -> None:
    """Stop using this key for decryption. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "retire", key_id)


async def destroy(connection: Connection, key_id: str) -> None:
    """Mark the key as destroyed: a process that has it does not start. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "destroy", key_id)
