"""What a page costs, and what it says when PostgreSQL is away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx

from hookseal import Admin
from hookseal.embedded.server import Server
from hookseal.pages import app
from tests import rows
from tests.doubles.applications import served
from tests.doubles.stored import Installation, begin
from tests.pages.browser import Browser
from tests.pages.conftest import VISITOR, signed_in
from tests.pages.everything import READ, everything

MOST_BYTES = 200_000
MOST_STATEMENTS = 10


@contextmanager
def counted(admin: Admin) -> Iterator[list[str]]:
    """Yield the statements that the connections of an Admin send from now on."""
    sent: list[str] = []
    session: Any = admin._session
    pool = session._pool
    holders = [holder._con for holder in pool._holders if holder._con is not None]

    def note(record: Any) -> None:
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
