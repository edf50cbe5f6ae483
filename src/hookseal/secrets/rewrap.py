"""Seals records under the active master key instead of an older one, batch after batch, without opening a secret.

Only the head of a record is read and written, where the master key wraps its data key. The table says what is
left to do, so whoever goes on after an interruption, or beside somebody else, needs to know nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from hookseal.ground.errors import Defect
from hookseal.ground.framing import framed
from hookseal.ground.ids import TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.database import outages_translated
from hookseal.secrets.envelope import HEAD_BYTES, rewrapped
from hookseal.secrets.errors import RecordRefused
from hookseal.secrets.keyring import KeyRing

BATCH: Final = 500
BEGINNING: Final = ("", "", 0)

_NAMED: Final = 100
_SQL: Final = statements("hookseal.secrets", "rewrap.sql")
_DIGEST_LABEL: Final = b"hookseal.rewrap.batch.v1"

Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unopened:
    """A record that is not as its row says, or does not open: it stays as it is, and somebody must look at it."""

    tenant_id: str
    name: str
    version: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a batch came to. `digest` is over the records that moved and their new heads; `last` is None at the end."""

    to: str
    moved: int
    digest: str
    unopened: tuple[Unopened, ...]
    last: Place | None


async def batch(connection: Connection, keyring: KeyRing, key_id: str, after: Place, *, wait: bool) -> Batch:
    """Seal the next records of that key under the sealing key of the ring, in the caller's transaction.

    Rows that somebody else holds are waited for, or left to another time. Raises `SecretUnavailable`.
    """
    to = keyring.sealing.key_id
    with outages_translated():
        rows = await connection.fetch(_SQL["held" if wait else "free"], key_id, *after, BATCH, HEAD_BYTES)
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
        last=_place(rows[-1]) if len(rows) == BATCH else None,
    )


async def misnamed(connection: Connection, key_id: str) -> tuple[Unopened, ...]:
    """Return some of the records that the key sealed, while the column beside them names another one.

    Somebody wrote the column; no batch finds them by it. Raises `SecretUnavailable`.
    """
    with outages_translated():
        rows = await connection.fetch(_SQL["misnamed"], key_id, _NAMED)
    return tuple(Unopened(**dict(row), code="key_id_altered") for row in rows)


def _heads(
    ring: KeyRing, key_id: str, rows: Sequence[asyncpg.Record]
) -> tuple[list[tuple[asyncpg.Record, bytes]], tuple[Unopened, ...]]:
    heads, unopened = [], []
    for row in rows:
        try:
            heads.append((row, rewrapped(ring, row["head"], _context(row), of=key_id)))
        except (RecordRefused, ValueError) as error:
            code = error.code if isinstance(error, RecordRefused) else "record_malformed"
            tenant, name, version = _place(row)
            unopened.append(Unopened(tenant_id=tenant, name=name, version=version, code=code))
    return heads, tuple(unopened)


async def _write(connection: Connection, to: str, heads: Sequence[tuple[asyncpg.Record, bytes]]) -> None:
    rows = [row for row, _ in heads]
    with outages_translated():
        done = await connection.execute(
            _SQL["write"],
            to,
            [row["tenant_id"] for row in rows],
            [row["name"] for row in rows],
            [row["version"] for row in rows],
            [row["head"] for row in rows],
            [head for _, head in heads],
            HEAD_BYTES,
        )
    if done != f"UPDATE {len(heads)}":  # they are held since they were read; the row of the batch must not tell of more
        raise Defect("a record that is held was written by somebody else")


def _context(row: asyncpg.Record) -> SecretContext:
    return SecretContext(
        tenant=TenantId(row["tenant_id"]), name=row["name"], version=row["version"], purpose=Purpose(row["purpose"])
    )


def _place(row: asyncpg.Record) -> Place:
    return row["tenant_id"], row["name"], row["version"]
