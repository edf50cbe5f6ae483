"""The rows of each frozen revision, as its last version and its workers wrote them, upgraded and delivered."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import svix.webhooks
from standardwebhooks.webhooks import Webhook

from hookseal import Admin
from hookseal.postgres.schema import fingerprint, revision
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.receiver import verify
from tests.cli.command import hookseal
from tests.schema.make_dump import DUMPS
from tests.worker.environment import environment
from tests.worker.fleet import fleet
from tests.worker.waiting import eventually_equals
from tests.worker.world import receiving

FROZEN = sorted(path.stem for path in DUMPS.glob("*.sql"))
_TABLES = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'hookseal' AND tablename <> 'alembic_version'"
# A worker would cancel deliveries that a disabled endpoint has held for a week.
_HELD_SINCE_TODAY = "UPDATE hookseal.deliveries SET held_at = now() WHERE held_at IS NOT NULL"
_TO_DELIVER = """
SELECT e.url, count(*) FROM hookseal.deliveries AS d
JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
WHERE d.state = 'pending' AND e.enabled GROUP BY e.url
"""
# The worker moves these to `endpoint_disabled` in its own round, perhaps after it has delivered the others.
_WAITING_FOR_A_SECRET = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'secret'"
# No call leaves a row of key_lock, and the dump has no worker. That of 0001 was made of endpoints and deliveries only.
EMPTY = {"0002": {"key_lock", "workers"}}


async def restore(url: str, dump: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Put the rows into a database of their revision; no trigger acts on them. Return a connection."""
    connection = await asyncpg.connect(url)
    tables = [row["tablename"] for row in await connection.fetch(_TABLES)]
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(f"TRUNCATE {', '.join(f'hookseal.{table}' for table in tables)}")
        await connection.execute((DUMPS / f"{dump}.sql").read_text(encoding="utf-8"))
        await connection.execute(_HELD_SINCE_TODAY)
    if dump in EMPTY:
        empty = {table for table in tables if not await connection.fetchval(f"SELECT count(*) FROM hookseal.{table}")}  # noqa: S608 -- ours
        assert EMPTY[dump] == empty
    return connection


def path_of(url: str) -> str:
    return urlsplit(url).path


@pytest.mark.req("OPS-09", part="previous-version")
@pytest.mark.req("OPS-13")
@pytest.mark.parametrize("dump", FROZEN)
async def test_what_an_older_version_left_is_delivered_after_the_upgrade(
    dump: str, empty_database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is that of a fresh database, every pending delivery arrives, and public libraries verify it."""
    monkeypatch.setattr(revision, "EXPECTED", dump)
    await upgrade(empty_database_url)
    monkeypatch.undo()
    connection = await restore(empty_database_url, dump)
    # What has ended stays, however old the dump is.
    settings = environment(empty_database_url, redis_url, HOOKSEAL_RETENTION_DAYS="3650")
    known = json.loads((DUMPS / f"{dump}.json").read_text(encoding="utf-8"))
    secrets, token = known["secrets"], known.get("token")
    try:
        await upgrade(empty_database_url)
        compared = await fingerprint.compare(connection)
        assert compared is not None
        assert compared.expected == compared.found
        due = Counter({path_of(url): count for url, count in await connection.fetch(_TO_DELIVER)})
        assert secrets.keys() - {"/failing"} == due.keys()
        async with (
            receiving() as receiver,
            fleet(settings, tmp_path) as workers,
        ):
            for row in await connection.fetch("SELECT tenant_id, id::text, url FROM hookseal.endpoints WHERE enabled"):
                options = ("--tenant", row["tenant_id"], "--endpoint", row["id"])
                url = receiver.base_url + path_of(row["url"])
                moved = await hookseal("endpoint", "update", *options, "--url", url, "--keep-headers", **settings)
                assert 0 == moved.code, moved.err
            await workers.start()
            await receiver.wait_for(due.total())
            await eventually_equals(0, lambda: connection.fetchval(_WAITING_FOR_A_SECRET))
            await workers.stop_all()
        left = await connection.fetch("SELECT DISTINCT state, waiting_for FROM hookseal.deliveries ORDER BY state")
        left_over = [tuple(row) for row in left]
    finally:
        await connection.close()

    assert [("dead_letter", None), ("delivered", None), ("pending", "endpoint_disabled")] == left_over
    assert due == Counter(each.path for each in receiver.received)
    now = datetime.now(UTC)
    for each in receiver.received:
        verify(each.body, each.headers, [secrets[each.path]], now=now)
        if each.path in {"/standard", "/rotated", "/in-order", "/with-headers", "/of-globex"}:
            Webhook(secrets[each.path]).verify(each.body, each.headers)
        if each.path == "/svix":
            svix.webhooks.Webhook(secrets[each.path]).verify(each.body, each.headers)
        if each.path == "/with-headers":
            assert "a value of acme" == each.headers["x-api-key"]
    if token is not None:
        async with Admin.connect(environ=settings) as admin:
            found = await admin.tokens.find(token)
        assert found is not None
        assert ("ci", "acme", "active") == (found.name, found.tenant_id, found.state)
