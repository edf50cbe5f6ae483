"""What a page costs, and what it says when PostgreSQL is away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from hookseal import Admin
from hookseal.embedded.server import Server
from hookseal.pages import app
from hookseal.pages.views import operator
from hookseal.postgres.pool import FairPool
from tests import rows
from tests.api.test_cost import GROW, read_by
from tests.doubles.applications import served
from tests.doubles.sent import noted, reported
from tests.doubles.stored import Installation, begin
from tests.pages.browser import Browser
from tests.pages.conftest import VISITOR, Browsing, signed_in
from tests.pages.everything import READ, everything

MOST_BYTES = 200_000
MOST_STATEMENTS = 10
# More of everything than a page counts or searches, and twice as much.
MANY, TWICE = 12_000, 24_000
FIXED = {"operator.keys"}  # it counts every secret, by its key
# Beside what the API's lists are tried with: an endpoint has a backlog, and as many dead letters.
GROW_MORE = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 'acme', s || n, 'user.added', now(), '{{}}', ''
FROM generate_series({least}, {most}) AS n CROSS JOIN unnest(ARRAY['p', 'd']) AS s;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT 'acme', hookseal.uuid7(), '{endpoint}', s.state || n, s.word, s.due, s.ended
FROM generate_series({least}, {most}) AS n
CROSS JOIN (VALUES ('p', 'pending', now(), NULL), ('d', 'dead_letter', NULL, now())) AS s (state, word, due, ended);
INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id)
SELECT tenant_id, id, endpoint_id, event_id FROM hookseal.deliveries ON CONFLICT DO NOTHING;
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
SELECT 'acme', 100000 + n, now(), 'me', 'endpoint.updated', 'endpoint:' || n, '', '', 'k'
FROM generate_series({least}, {most}) AS n;
"""
IN_VAIN = "?type=no.such"
# The addresses of a page that are asked for, if it has others than that of its path.
ADDRESSES = {
    "deliveries": [
        "",
        IN_VAIN,
        f"{IN_VAIN}&state=dead_letter",
        "?state=pending",
        IN_VAIN + "&endpoint={endpoint_id}",
        "?endpoint={quiet}",
    ],
    "recover": ["?since=2020-01-01T00:00"],
    "operator.deliveries": [
        *("", IN_VAIN, f"{IN_VAIN}&tenant=acme", f"{IN_VAIN}&tenant=acme&state=dead_letter"),
        "?tenant=nobody&state=pending",
    ],
    "operator.endpoints": ["", "?state=trouble", "?tenant=acme&state=disabled"],
    "operator.search": ["?q=order:7"],
    "operator.replays": ["", "?state=running"],
    "operator.replays.new": ["?since=2020-01-01T00:00", f"{IN_VAIN}&since=2020-01-01T00:00&states=delivered"],
    "operator.audit": ["", "?action=secret.rotated"],
}


@contextmanager
def counted(admin: Admin) -> Iterator[list[str]]:
    """Yield the statements that the connections of an Admin send from now on."""
    sent: list[str] = []
    session: Any = admin._session
    pool = session._pool
    holders = [holder._con for holder in pool._holders if holder._con is not None]

    def note(record: Any) -> None:
        if record.query != "DISCARD PLANS":  # which a connection sends for itself after a slow statement
            sent.append(record.query)

    for connection in holders:
        connection.add_query_logger(note)
    try:
        yield sent
    finally:
        for connection in holders:
            connection.remove_query_logger(note)


async def test_a_page_has_few_bytes_and_statements(jane: Browser, admin: Admin, installation: Installation) -> None:
    """With as much as a page can show, each of the longest kind."""
    theirs = await everything(installation, admin)
    long = "https://a.example/" + "&'<\"" * 500
    for number in range(40):
        await rows.endpoint(installation.pool, url=f"{long}{number}", description="&" * 1_024)
    for number in range(60):
        name = f"{'a' * 100}.{number}"
        await admin.event_types.add(name=name, description="'" * 2_000, actor="test")
    await rows.publish(installation.pool, 3, event_type="a" * 128)
    delivery = theirs.ids["delivery_id"]
    for number in range(2, 60):
        await rows.attempt(installation.pool, delivery, number, status=500, outcome="server_error", snippet='"' * 2_048)
    for page in READ:
        await jane.open(theirs.path(page))  # its connection is there
        with counted(admin) as sent:
            await jane.open(theirs.path(page))
        assert 200 == jane.status, page.name
        assert 1 <= len(sent) <= MOST_STATEMENTS, (page.name, sent)
        assert len(jane.response.content) <= MOST_BYTES, (page.name, len(jane.response.content))


@pytest.mark.req("UI-07")
async def test_no_page_reads_more_as_tables_grow(browsing: Browsing, admin: Admin, installation: Installation) -> None:
    """Each statement of each page reads as many blocks and rows beside twice as many of everything."""
    theirs = await everything(installation, admin)
    delivery = await admin.deliveries.get(tenant_id="acme", delivery_id=theirs.ids["delivery_id"])
    quiet = await admin.endpoints.add(tenant_id="acme", url="https://quiet.example", event_types=["*"], actor="test")
    ids = {**theirs.ids, "tenant_id": "acme", "event_id": delivery.event_id, "quiet": quiet.endpoint_id}
    pages = [("jane", "endpoint", f"/endpoint/{quiet.endpoint_id}")]
    pages += [
        ("every" if page.of_every_tenant else "jane", page.name, f"{theirs.path(page, **ids)}{query.format(**ids)}")
        for page in (*READ, *(page for page in operator.PAGES if page.method == "GET"))
        if page.name not in FIXED
        for query in ADDRESSES.get(page.name, [""])
    ]
    source = await admin.tokens._session.source()
    assert isinstance(source, FairPool)
    sent = await noted(source)

    async def grown(least: int, most: int) -> dict[str, tuple[int, float, str]]:
        of = {"least": least, "most": most, "endpoint": theirs.ids["endpoint_id"]}
        async with installation.pool.acquire() as connection:
            async with connection.transaction():
                await connection.execute(GROW.format(**of).replace("$1", f"'{theirs.ids['endpoint_id']}'"))
                await connection.execute(GROW_MORE.format(**of))
            await connection.execute("VACUUM (ANALYZE)")
        found = {}
        for visitor, _, address in pages:
            async with browsing(visitor) as browser:
                sent.clear()
                assert 200 == (await browser.open(address)).status, address
                await reported()
                found[address] = await read_by(installation.pool, [*sent])
        return found

    few, many = await grown(1, MANY), await grown(MANY + 1, TWICE)
    more = [
        f"{address}: {few[address][:2]} -> {buffers}, {read}\n{plans}"
        for address, (buffers, read, plans) in many.items()
        if buffers > 1.5 * few[address][0] + 200 or read > few[address][1] + 1_000
    ]
    assert [] == more


async def test_an_outage_is_a_page(own_postgres: Server, environ: dict[str, str]) -> None:
    """503, without a trace, for a page and for a form; and afterwards all is as before."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=1) as pool:
        await begin(pool)
    async with (
        Admin.connect(environ=environ | {"DATABASE_URL": own_postgres.url}) as admin,
        served(app(admin, who=signed_in)) as url,
        httpx.AsyncClient(base_url=url, follow_redirects=True, cookies={VISITOR: "jane"}, timeout=60) as client,
    ):
        jane = Browser(client)
        await jane.open("/add")
        own_postgres.freeze()
        try:
            add = jane.press("Add", url="https://a.example", every="yes")
            shown, form = await asyncio.gather(client.get("/"), add)
        finally:
            own_postgres.thaw()
        for response in (shown, form.response):
            assert 503 == response.status_code
            assert "try again in a minute" in response.text
            assert "Traceback" not in response.text
            assert "postgres" not in response.text.lower()
            assert "default-src 'none'" in response.headers["content-security-policy"]
        assert 200 == (await jane.open("/")).status
