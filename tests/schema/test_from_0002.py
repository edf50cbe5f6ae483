"""From revision 0002, with what an installation holds: nothing is lost, no row is taken for one that was put back."""

import asyncpg
import pytest

from hookseal.schema.upgrade import upgrade
from hookseal.secrets import put_back
from tests.schema.older import upgraded_to

_ROWS = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, generation, mac, mac_key_id)
VALUES ('acme', '0197c1f0-5e6a-7c3b-9d2e-4f5061728394', 'https://a.example/', '{*}',
        'db:acme:webhook-endpoint-0197c1f0-5e6a-7c3b-9d2e-4f5061728394:1', 2, 'm', '1');
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, key_id)
VALUES ('acme', 'webhook-endpoint-0197c1f0-5e6a-7c3b-9d2e-4f5061728394', 1, 'db', 'webhook-signing', 's', 'k');
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
VALUES ('acme', 1, now(), 'a', 'endpoint.added', 'endpoint:0197c1f0-5e6a-7c3b-9d2e-4f5061728394',
        '{"generation":2}', '', '', '1'),
       ('acme', 2, now(), 'a', 'endpoint.added', 'endpoint:0197c1f0-5e6a-7c3b-9d2e-4f5061728395',
        '{"generation":1}', '', '', '1'),
       ('acme', 3, now(), 'a', 'endpoint.deleted', 'endpoint:0197c1f0-5e6a-7c3b-9d2e-4f5061728395',
        '{"cancelled_deliveries":0}', '', '', '1'),
       ('acme', 4, now(), 'a', 'producer.granted', 'producer:p', '{"role":"p"}', '', '', '1')
"""


@pytest.mark.req("OPS-09", part="from-the-previous")
@pytest.mark.req("SEC-24", part="put-back")
async def test_from_0002(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of 0002 keeps its rows and its log; its generations are read from what the log already says."""
    await upgraded_to("0002", empty_database_url, monkeypatch)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(_ROWS)
        tables = ("endpoints", "audit_log", "control")
        before = {table: await connection.fetch(f"SELECT * FROM hookseal.{table}") for table in tables}  # noqa: S608 -- ours

        await upgrade(empty_database_url)

        for table, rows in before.items():
            after = await connection.fetch(f"SELECT * FROM hookseal.{table}")  # noqa: S608 -- ours
            for row in rows:
                assert dict(row) in [{name: one[name] for name in dict(row)} for one in after]
        assert [2, 1, None, None] == [
            row["generation"]
            for row in await connection.fetch("SELECT generation FROM hookseal.audit_log ORDER BY sequence")
        ]
        assert [] == [one async for one in put_back.found(connection)]
    finally:
        await connection.close()
