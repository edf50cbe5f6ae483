"""An audit log under a key of these tests, and statements of an attacker who may change its tables."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hookseal.audit import log
from hookseal.audit.chain import Action, Change
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection, Executor, Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.trust import IntegrityKey

MATERIAL = SecretMaterial(hashlib.sha256(b"audit").digest())
KEY = IntegrityKey(key_id="1", material=MATERIAL)
FORGERS_KEY = IntegrityKey(key_id="1", material=SecretMaterial(hashlib.sha256(b"a forger's").digest()))
NEXT_KEY = IntegrityKey(key_id="2", material=SecretMaterial(hashlib.sha256(b"next").digest()))
WHO = "ada@example"
# A copy of the second row under another number.
COPIED = (
    "INSERT INTO hookseal.audit_log SELECT tenant_id, {number}, at, actor, action, subject, before, after,"
    " correlation_id, previous_mac, mac, mac_key_id FROM hookseal.audit_log WHERE sequence = 2"
)


def change(number: int = 1, tenant: str = "acme", action: Action = Action.SECRET_ROTATED) -> Change:
    return Change(
        tenant_id=TenantId(tenant),
        action=action,
        subject=f"endpoint:{number}",
        before={"generation": number - 1},
        after={"generation": number},
        correlation_id=f"corr-{number}",
    )


async def append(pool: Pool, *changes: Change, key: IntegrityKey = KEY) -> list[int]:
    """Append the changes in one transaction and return their numbers."""
    async with pool.acquire() as connection, connection.transaction():
        return [await log.append(connection, key, WHO, each) for each in changes]


async def chain(pool: Pool, length: int, tenant: str = "acme") -> None:
    """Write a chain of that many rows for the tenant."""
    await append(pool, *(change(number, tenant) for number in range(1, length + 1)))


async def tamper(pool: Pool, *statements: str) -> None:
    """Run the statements as owner of the tables, with the protecting triggers disabled."""
    async with pool.acquire() as connection, connection.transaction():
        await _tamper(connection, *statements)


@asynccontextmanager
async def tampered(pool: Pool, *statements: str) -> AsyncIterator[Connection]:
    """Yield a connection that reads the log as these statements leave it; after the block it is as before."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await _tamper(connection, *statements)
        yield connection
        await transaction.rollback()


async def _tamper(connection: Connection, *statements: str) -> None:
    await connection.execute("ALTER TABLE hookseal.audit_log DISABLE TRIGGER USER")
    for statement in statements:
        await connection.execute(statement)
    await connection.execute("ALTER TABLE hookseal.audit_log ENABLE TRIGGER USER")


def altered(**columns: str) -> str:
    """Return the statement that sets these columns of the second row to these expressions."""
    assignments = ", ".join(f"{column} = {expression}" for column, expression in columns.items())
    return f"UPDATE hookseal.audit_log SET {assignments} WHERE sequence = 2"  # noqa: S608 - a test's own text


async def broken(source: Executor, tenant: str = "acme") -> tuple[int, str] | None:
    (verified,) = await log.verify(source, KEY, tenant=TenantId(tenant))
    return verified.broken


def second_opinion(key: bytes, row: dict[str, Any]) -> str:
    """Compute the MAC of a row as docs/CANONICAL/SECRETS.md describes it, without code of hookseal."""
    names = ["mac_key_id", "tenant_id", "sequence", "at_us", "actor", "action", "subject", "before", "after"]
    texts = ["hookseal.audit.row.v1", *(row[name] for name in names), row["correlation_id"]]
    parts = [None if text is None else str(text).encode() for text in texts]
    parts.append(bytes.fromhex(row["previous_mac"]))
    framed = len(parts).to_bytes(2, "big")
    for part in parts:
        framed += b"\xff" * 4 if part is None else len(part).to_bytes(4, "big") + part
    return hmac.new(key, framed, "sha256").hexdigest()
