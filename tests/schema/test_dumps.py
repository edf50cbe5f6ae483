"""The rows of each frozen revision, as its last version and its workers wrote them, upgraded and delivered."""

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from standardwebhooks.webhooks import Webhook

from hookseal.postgres.schema import fingerprint, revision
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.receiver import verify
from tests.cli.command import hookseal
from tests.schema.make_dump import ENDPOINTS, EVENTS
from tests.worker.environment import environment
from tests.worker.fleet import fleet
from tests.worker.world import receiving

DUMPS = {path.stem: path for path in Path(__file__).with_name("dumps").glob("*.sql")}
_EMPTY = """
SELECT 'TRUNCATE ' || string_agg('hookseal.' || quote_ident(tablename), ', ')
FROM pg_tables WHERE schemaname = 'hookseal' AND tablename <> 'alembic_version'
"""


async def restore(url: str, rows: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Put the rows into a database of their revision; no trigger acts on them. Return a connection."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(await connection.fetchval(_EMPTY))
        await connection.execute(rows)
    return connection


@pytest.mark.req("OPS-09", part="previous-version")
@pytest.mark.req("OPS-13")
@pytest.mark.parametrize("dump", sorted(DUMPS))
async def test_what_an_older_version_left_is_delivered_after_the_upgrade(
    dump: str, empty_database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is that of a fresh database, every pending delivery arrives, and public libraries verify it."""
    monkeypatch.setattr(revision, "EXPECTED", dump)
    await upgrade(empty_database_url)
    monkeypatch.undo()
    connection = await restore(empty_database_url, DUMPS[dump].read_text(encoding="utf-8"))
    settings = environment(empty_database_url, redis_url)
    secrets = json.loads(DUMPS[dump].with_suffix(".json").read_text(encoding="utf-8"))
    try:
        await upgrade(empty_database_url)
        compared = await fingerprint.compare(connection)
        assert compared is not None
        assert compared.expected == compared.found
        of_acme = sum(fields.get("tenant") is None for fields in ENDPOINTS.values())
        async with (
            receiving() as receiver,
            fleet(settings, tmp_path) as workers,
        ):
            for row in await connection.fetch("SELECT tenant_id, id::text, url FROM hookseal.endpoints WHERE enabled"):
                moved = receiver.base_url + urlsplit(row["url"]).path
                options = ("--tenant", row["tenant_id"], "--endpoint", row["id"], "--url", moved)
                ended = await hookseal("endpoint", "update", *options, **settings)
                assert 0 == ended.code, ended.err
            await workers.start()
            await receiver.wait_for(EVENTS * (of_acme + 1))
            await workers.stop_all()
        left = await connection.fetch("SELECT DISTINCT state, waiting_for FROM hookseal.deliveries ORDER BY state")
        left_over = [tuple(row) for row in left]
    finally:
        await connection.close()

    assert [("dead_letter", None), ("delivered", None), ("pending", "endpoint_disabled")] == left_over
    paths = ENDPOINTS.keys() - {"/failing"}
    assert dict.fromkeys(paths, EVENTS) == {
        path: sum(each.path == path for each in receiver.received) for path in {each.path for each in receiver.received}
    }
    now = datetime.now(UTC)
    for each in receiver.received:
        verify(each.body, each.headers, [secrets[each.path]], now=now)
        if each.path in {"/standard", "/rotated", "/in-order", "/with-headers", "/of-globex"}:
            Webhook(secrets[each.path]).verify(each.body, each.headers)
        if each.path == "/with-headers":
            assert "a value of acme" == each.headers["x-api-key"]
