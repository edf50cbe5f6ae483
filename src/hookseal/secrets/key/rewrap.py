"""Re-wraps records under the active master key instead of an older one, in batches, without opening a secret.

It reads and writes only the head of a record, which holds the wrapped data key. The table shows which records are
left, so a re-wrap may be interrupted and run again, and several may run at once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import asyncpg

from hookseal.errors import Defect, KeyUnknown, RecordRefused, RecordTampered
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import framed
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.envelope import HEAD_BYTES, rewrapped
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Purpose, SecretContext
from hookseal.secrets.statements import statements

BATCH: Final = 500
BEGINNING: Final = ("", "", 0)

_NAMED: Final = 100
_SQL: Final = statements("rewrap.sql", package="hookseal.secrets.key")
_DIGEST_LABEL: Final = b"hookseal.rewrap.batch.v1"

Cursor = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unopened:
    """A record that contradicts its row or does not open. It is not changed, and somebody must repair it."""

    tenant_id: str
    name: str
    version: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The result of a batch. `digest` covers the re-wrapped records and their new heads; `last` is None at the end."""

    to: str
    moved: int
    digest: str
    unopened: tuple[Unopened, ...]
    last: Cursor | None


async def batch(connection: Connection, keyring: KeyRing, key_id: str, after: Cursor, *, wait: bool) -> Batch:
    """Re-wrap the next records of that key under the sealing key of the keyring, in the caller's transaction.

    With `wait` it waits for the first row if that is locked, and ends before the next locked one; else it skips locked
    rows. Raises `SecretUnavailable`.
    """
    to = keyring.sealing.key_id
    if wait:
        rows, last = await _in_order(connection, key_id, after)
    else:
        rows = await _SQL.rows(connection, "skip_locked", key_id, *after, BATCH, HEAD_BYTES)
        last = _place(rows[-1]) if len(rows) == BATCH else None
    heads, unopened = _heads(keyring, key_id, rows)
    digest = hashlib.sha256(_DIGEST_LABEL)
    for row, head in heads:
        digest.update(framed(row["tenant_id"].encode(), row["name"].encode(), str(row["version"]).encode(), head))
    if heads:
        await _write(connection, to, heads)
    return Batch(
        to=to,
        moved=len(heads),
        digest=digest.hexdigest(),
        unopened=unopened,
        last=last,
    )


async def _in_order(connection: Connection, key_id: str, after: Cursor) -> tuple[list[asyncpg.Record], Cursor | None]:
    """Lock the next rows up to one that others have locked; return them, and the last place, None at the end.

    It waits only while it has locked nothing: others lock the versions of an endpoint in another order, for instance
    the newer one first, and would wait for this transaction.
    """
    places = [_place(row) for row in await _SQL.rows(connection, "next", key_id, *after, BATCH)]
    if not places:
        return [], None
    rows = await _SQL.rows(connection, "wait", key_id, *places[0], HEAD_BYTES)
    rows += await _SQL.rows(connection, "skip_locked", key_id, *places[0], BATCH - 1, HEAD_BYTES)
    locked = {_place(row) for row in rows}
    number = 1 + sum(1 for _ in takewhile(locked.__contains__, places[1:]))
    reached = set(places[:number])
    is_end = number == len(places) < BATCH
    return [row for row in rows if _place(row) in reached], None if is_end else places[number - 1]


async def altered(connection: Connection, key_id: str) -> tuple[Unopened, ...]:
    """Return up to 100 records that the key once sealed and whose bytes now name another key that never sealed them.

    No batch of this key contains them. Raises `SecretUnavailable`.
    """
    return tuple(map(_altered, await _SQL.rows(connection, "altered", key_id, _NAMED)))


def _altered(row: asyncpg.Record) -> Unopened:
    tenant, name, version = _place(row)
    code = (RecordTampered if row["is_registered"] else KeyUnknown).code
    return Unopened(tenant_id=tenant, name=name, version=version, code=code)


def _heads(
    keyring: KeyRing, key_id: str, rows: Sequence[asyncpg.Record]
) -> tuple[list[tuple[asyncpg.Record, bytes]], tuple[Unopened, ...]]:
    heads, unopened = [], []
    for row in rows:
        try:
            heads.append((row, rewrapped(keyring, row["head"], _context(row), of=key_id)))
        except (RecordRefused, ValueError) as error:
            code = error.code if isinstance(error, RecordRefused) else "record_malformed"
            tenant, name, version = _place(row)
            unopened.append(Unopened(tenant_id=tenant, name=name, version=version, code=code))
    return heads, tuple(unopened)


async def _write(connection: Connection, to: str, heads: Sequence[tuple[asyncpg.Record, bytes]]) -> None:
    rows = [row for row, _ in heads]
    written = await _SQL.execute(
        connection,
        "write",
        to,
        [row["tenant_id"] for row in rows],
        [row["name"] for row in rows],
        [row["version"] for row in rows],
        [row["head"] for row in rows],
        [head for _, head in heads],
        HEAD_BYTES,
    )
    if written != len(heads):  # the rows are locked since they were read, and the audit row must count what was written
        raise Defect("a locked record was written by somebody else")


def _context(row: asyncpg.Record) -> SecretContext:
    return SecretContext(
        tenant=TenantId(row["tenant_id"]), name=row["name"], version=row["version"], purpose=Purpose(row["purpose"])
    )


def _place(row: asyncpg.Record) -> Cursor:
    return row["tenant_id"], row["name"], row["version"]
