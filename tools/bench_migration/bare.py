"""The baseline: the statements of a migration in the same transactions; nothing is sealed, opened or signed."""

import os
from datetime import UTC, datetime
from typing import Final

from hookseal.ground.sql import statements
from hookseal.operations.operator import Operator
from hookseal.secrets.migration import Held
from hookseal.secrets.ref import endpoint_secret_name

_MIGRATION: Final = statements("hookseal.secrets", "migration.sql")
_STORE: Final = statements("hookseal.secrets.stores", "postgres.sql")
_POINTER: Final = statements("hookseal.secrets", "pointer.sql")
_AUDIT: Final = statements("hookseal.audit", "audit.sql")
_SEALED: Final = os.urandom(290)  # as long as the record of a secret of 64 bytes
_MAC: Final = os.urandom(32)
_ORIGIN: Final = bytes(32)
_KEY_ID: Final = "0" * 16
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FACTS: Final = '{"generation":%d,"secret_ref":null,"scheme":"x-webhook","algorithm":"hmac","lead":"previous"}'


async def bare(operator: Operator, held: Held) -> str:
    """Do to the row what PostgreSQL is asked to do in a migration of it."""
    tenant, endpoint, name = held.tenant_id, held.endpoint_id, endpoint_secret_name(held.endpoint_id)
    ref = f"db:{tenant}:{name}:1"
    async with operator.changing() as connection:
        await connection.fetchrow(_MIGRATION["lock"], tenant, endpoint)
        version = await connection.fetchval(_STORE["next_version"], tenant, name)
        await connection.fetchval(
            _STORE["put"], tenant, name, version, "webhook-signing", "x-webhook", _SEALED, _KEY_ID
        )
        await connection.fetchrow(_STORE["get"], tenant, name, version, ref)
        await connection.execute(
            _POINTER["move"], tenant, endpoint, f"https://bench.example/{endpoint}", "x-webhook", "hmac", ref,
            None, None, None, None, "previous", 1, _MAC, "1", "db", None, None,
        )  # fmt: skip
        [head] = await connection.fetch(_AUDIT["lock_head"], tenant, _ORIGIN)
        await connection.execute(
            _AUDIT["add"], tenant, head["sequence"] + 1, _AT, "bench/bench", "secret.migrated", f"endpoint:{endpoint}",
            _FACTS % 0, _FACTS % 1, None, head["mac"], _MAC, "1", _ORIGIN,
        )  # fmt: skip
    return "migrated"
