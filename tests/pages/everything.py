"""A customer who has one of everything, and every page of it."""

from dataclasses import dataclass
from typing import Any

import httpx

from hookseal import Admin
from hookseal.pages.page import Page
from hookseal.pages.views import PAGES
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters
from tests.pages.browser import OWN

OF_A_CUSTOMER = [
    page for page in PAGES if page.scopes is not None and not page.of_every_tenant and not page.only_by_link
]
READ = [page for page in OF_A_CUSTOMER if page.method == "GET"]
ACTS = [page for page in OF_A_CUSTOMER if page.method == "POST"]
NOWHERE = "0193b0c0-0000-7000-8000-000000000000"
EXAMPLE = '{"1": {"type": "object", "examples": [{"id": 7}]}}'

# What each form has, beside its token, so that it would be done.
FORMS: dict[str, dict[str, str]] = {
    "endpoint.add": {"url": "https://new.example", "every": "yes"},
    "endpoint.save": {"url": "https://mine.example", "every": "yes", "sealed": "remove"},
    "endpoint.test": {"type": "invoice.paid"},
    "secret.rotate": {"overlap": "3600", "rotation_id": "r-1"},
    "recover.start": {"since": "2020-01-01T00:00:00+00:00", "until": "2030-01-01T00:00:00+00:00"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """The ids of what acme has, by the names in paths, and what a form has seen of its endpoint."""

    ids: dict[str, str]
    seen: str

    def path(self, page: Page, **others: str) -> str:
        """Return the path of a page, with other ids in place of these."""
        path = page.path
        for name, value in {**self.ids, **others}.items():
            path = path.replace("{" + name + "}", value)
        return path

    def form(self, page: Page) -> dict[str, str]:
        """Return the fields of a form of a page."""
        given = FORMS.get(page.name, {})
        return given | {"seen": self.seen} if page.name == "endpoint.save" else given


async def everything(installation: Installation, admin: Admin, *, url: str = "https://a.example/hook") -> Everything:
    """Give acme one of everything."""
    await admin.event_types.add(name="invoice.paid", description="A paid invoice", schemas=EXAMPLE, actor="test")
    added = await admin.endpoints.add(
        tenant_id="acme", url=url, event_types=["*"], headers={"X-Team": "hunter2"}, description="Main", actor="test"
    )
    own: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    await admin.secrets.rotate(**own, actor="test")
    [delivery] = await dead_letters(installation, 1)
    await rows.attempt(installation.pool, delivery, status=503, outcome="throttled", snippet="down")
    job = await admin.replays.start(**own, actor="test")
    await rows.set_state(installation.pool, "dead_letter", delivery)
    endpoint = await admin.endpoints.get(**own)
    seen = (
        f'{{"url":"{endpoint.url}","description":"Main","event_types":["*"],"header_names":["x-team"],'
        f'"generation":{endpoint.generation}}}'
    )
    ids = {"endpoint_id": added.endpoint_id, "delivery_id": delivery, "replay_id": job.replay_id}
    return Everything(ids=ids, seen=seen)


async def token(client: httpx.AsyncClient) -> str:
    """Return the token of the forms of this visitor, which gets the cookie for forms."""
    text = (await client.get("/add")).text
    found = text.partition('name="form_token" value="')[2].partition('"')[0]
    assert found, text
    return found


async def sent(
    client: httpx.AsyncClient, path: str, fields: dict[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send a form, by default as a page of ours does."""
    return await client.post(path, data=fields, headers=OWN if headers is None else headers, follow_redirects=False)


async def state(pool: Pool) -> str:
    """Return all that acme has, as text."""
    tables = (
        "endpoints",
        "events",
        "deliveries",
        "attempts",
        "replays",
        "audit_log",
        "secret_records",
        "held_endpoints",
    )
    parts = [
        f"(SELECT array_agg(t ORDER BY t::text) FROM hookseal.{name} AS t WHERE tenant_id = 'acme')"  # noqa: S608 -- ours
        for name in tables
    ]
    return str(await pool.fetchval(f"SELECT concat({', '.join(parts)})"))
