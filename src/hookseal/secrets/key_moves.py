"""Moves a master key through its life, in the caller's transaction, in which nobody seals and no other key moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.errors import NotFound
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated
from hookseal.secrets.key_rules import KeyState, Use
from hookseal.secrets.keyring import MasterKey

_SQL: Final = statements("hookseal.secrets", "key_moves.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLife:
    """A master key as it stands, and since when.

    `promoted_at` is when it first was the active one, `drained_at` when no record was left under it.
    """

    key_id: str
    state: KeyState
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None


async def life(connection: Connection, key_id: str) -> KeyLife:
    """Return the key. Raises `NotFound` if it is not registered, `SecretUnavailable`."""
    found = await known(connection, key_id)
    if found is None:
        raise NotFound(f"there is no master key {key_id}: see `hookseal key status`", field="key_id")
    return found


async def known(connection: Connection, key_id: str) -> KeyLife | None:
    """Return the key, None if it is not registered. Raises `SecretUnavailable`."""
    with outages_translated():
        row = await connection.fetchrow(_SQL["life"], key_id)
    return None if row is None else KeyLife(**dict(row) | {"state": KeyState(row["state"])})


async def workers_without(connection: Connection, key_id: str, *, live_seconds: float) -> Sequence[str]:
    """Return the live workers that do not hold the key. Raises `SecretUnavailable`."""
    with outages_translated():
        return [row["id"] for row in await connection.fetch(_SQL["workers_without"], key_id, live_seconds)]


async def workers_with(connection: Connection, key_id: str, *, live_seconds: float) -> Sequence[str]:
    """Return the live workers that hold the key. Raises `SecretUnavailable`."""
    with outages_translated():
        return [row["id"] for row in await connection.fetch(_SQL["workers_with"], key_id, live_seconds)]


async def use(connection: Connection, key_id: str) -> Use:
    """Return what needs the key, as the records themselves say, whatever the column beside them does.

    Raises `SecretUnavailable`.
    """
    with outages_translated():
        [row] = await connection.fetch(_SQL["use"], key_id)
    return Use(records=row["records"], deliveries=row["deliveries"])


async def register(connection: Connection, key: MasterKey) -> None:
    """Register the key as staged: it may be held, and seals nothing yet. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["register"], key.key_id, key.check_value)


async def promote(connection: Connection, key_id: str) -> None:
    """Have that key seal from now on; what sealed until now opens only. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["step_back"])
        await connection.execute(_SQL["promote"], key_id)


async def drained(connection: Connection, key_id: str) -> None:
    """Note that no record is left under the key: one that is there later was put back. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["drained"], key_id)


async def compromised(connection: Connection, key_id: str) -> None:
    """Note that others may know the key, unless that is noted already. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["compromised"], key_id)


async def retire(connection: Connection, key_id: str) -> None:
    """Have that key open nothing any more. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["retire"], key_id)


async def destroy(connection: Connection, key_id: str) -> None:
    """Mark the key as destroyed: who holds it is refused at start. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["destroy"], key_id)
