"""From revision 0003, with what an installation holds: every record knows its key, the active key since when."""

import asyncpg
import pytest

from hookseal.schema.upgrade import upgrade
from tests.schema.older import upgraded_to

_ROWS = """
INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ('0123456789abcdef', 'active', 'c');
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, key_id)
VALUES ('acme', 'a', 1, 'db', 'webhook-signing', 's', '0123456789abcdef');
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, state)
VALUES ('acme', 'a', 2, 'db', 'webhook-signing', 'destroyed')
"""


@pytest.mark.req("OPS-09", part="from-the-previous")
@pytest.mark.req("SEC-22")
async def test_from_0003(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of 0003 keeps its rows; what each was sealed under is on record from the first day on."""
    await upgraded_to("0003", empty_database_url, monkeypatch)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(_ROWS)
        before = await connection.fetch("SELECT * FROM hookseal.secret_records ORDER BY version")

        await upgrade(empty_database_url)

        after = await connection.fetch("SELECT * FROM hookseal.secret_records ORDER BY version")
        assert [dict(row) for row in before] == [
            {name: value for name, value in row.items() if name != "wrapped_by"} for row in after
        ]
        assert [["0123456789abcdef"], []] == [row["wrapped_by"] for row in after]
        assert await connection.fetchval("SELECT promoted_at = created_at FROM hookseal.secret_keys")
    finally:
        await connection.close()
