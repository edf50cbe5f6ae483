"""The baseline: the statements of a migration in the same transactions, without sealing, opening and signing."""

import os
from datetime import UTC, datetime
from typing import Final

from hookseal.operations.operator import Operator
from hookseal.postgres.statements import statements
from hookseal.secrets.core.ref import endpoint_secret_name
from hookseal.secrets.migrate_secrets import PlaintextEndpoint

_MIGRATION: Final = statements("hookseal.secrets", "migrate_secrets.sql")
_STORE: Final = statements("hookseal.secrets.store", "postgres.sql")
_RECORDS: Final = statements("hookseal.secrets.store", "records.sql")
_POINTER: Final = statements("hookseal.secrets.endpoint", "pointer.sql")
_AUDIT: Final = statements("hookseal.audit", "audit.sql")
_SEALED: Final = os.urandom(290)  # as long as the record of a secret of 64 bytes
_MAC: Final = os.urandom(32)
_ORIGIN: Final = bytes(32)
_IS_OTHER: Final = False  # the secret is not one that only moves
_KEY_ID: Final = "0" * 16
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FACTS: Final = '{"generation":%d,"secret_ref":null,"scheme":"x-webhook","algorithm":"hmac","lead":"previous"}'


async def bare(operator: Operator, held: PlaintextEndpoint) -> str:
    """Run the statements of the migration of this row."""
    tenant, endpoint, name = held.tenant_id, held.endpoint_id, endpoint_secret_name(held.endpoint_id)
    ref = f"db:{tenant}:{name}:1"
    async with operator.changing() as connection:
        await connection.fetchrow(_MIGRATION["lock"], tenant, endpoint)
        version = await connection.fetchval(_RECORDS["next_version"], tenant, name)
        await connection.fetchval(
            _STORE["put"], tenant, name, version, "webhook-signing", "x-webhook", _SEALED, _KEY_ID
        )
        await connection.fetch(_RECORDS["get"], [tenant], [name], [str(version)], [ref])
        await connection.execute(
            _POINTER["move"], tenant, endpoint, ref, None, None, None, None, 1, _MAC, "1", "db", _IS_OTHER,
        )  # fmt: skip
        [head] = await connection.fetch(_AUDIT["lock_head"], tenant, _ORIGIN)
        await connection.execute(
            _AUDIT["add"], tenant, head["sequence"] + 1, _AT, "bench/bench", "secret.migrated", f"endpoint:{endpoint}",
            _FACTS % 0, _FACTS % 1, None, head["mac"], _MAC, "1", _ORIGIN,
        )  # fmt: skip
    return "migrated"
