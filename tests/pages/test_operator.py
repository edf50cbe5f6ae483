"""The pages of an operator, for an access for every tenant: they find, explain and send again, and read no payload."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from hookseal import Admin
from hookseal.admin import Scope
from hookseal.api import Access
from hookseal.pages.views.operator import PAGES
from tests import rows
from tests.doubles.stored import Installation
from tests.pages.browser import Browser
from tests.pages.conftest import ACCESSES, Browsing
from tests.pages.everything import NOWHERE, Everything, everything, sent, state
from tests.pages.test_limits import MOST_BYTES, MOST_STATEMENTS, counted

READ = [page for page in PAGES if page.method == "GET"]
ACTS = [page for page in PAGES if page.method == "POST"]
FIND = "Find by webhook-id, event id, correlation id or tenant"
QUERIES = {
    "operator.search": "?q=order:7",
    "operator.endpoints": "?state=trouble",
    "operator.replays.new": "?since=2020-01-01T00:00",
}
NOBODY_KNOWS = {"tenant_id": "nobody", "event_id": "no-such"}


@pytest.fixture
async def theirs(installation: Installation, admin: Admin) -> Everything:
    """Give acme one of everything, and return it with its tenant and its event."""
    found = await everything(installation, admin)
    delivery = await admin.deliveries.get(tenant_id="acme", delivery_id=found.ids["delivery_id"])
    return replace(found, ids={**found.ids, "tenant_id": "acme", "event_id": delivery.event_id})


@pytest.fixture
async def every(browsing: Browsing) -> AsyncIterator[Browser]:
    """Yield the browser of an operator."""
    async with browsing("every") as browser:
        yield browser


async def token(client: httpx.AsyncClient) -> str:
    """Return the token of the forms of an operator in this browser; that of a customer is another one."""
    text = (await client.get("/operator/tenant/_system/audit")).text + (await client.get("/add")).text
    return text.partition('name="form_token" value="')[2].partition('"')[0]


@pytest.mark.req("UI-04")
@pytest.mark.parametrize("visitor", [name for name, access in ACCESSES.items() if access.tenant_id is not None])
async def test_who_is_of_one_tenant_gets_none_of_them(visitor: str, theirs: Everything, browsing: Browsing) -> None:
    async with browsing(visitor) as browser:
        for page in PAGES:
            path = theirs.path(page)
            response = await (browser.client.get(path) if page.method == "GET" else sent(browser.client, path, {}))
            assert 403 == response.status_code, page.name
            assert theirs.ids["delivery_id"] not in response.text
            assert "a.example" not in response.text


@pytest.mark.req("UI-04")
@pytest.mark.parametrize("missing", [Scope.READ, Scope.OPERATE])
async def test_both_scopes_are_needed(
    missing: Scope, theirs: Everything, browsing: Browsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Access(tenant_id=None, scopes=frozenset({Scope.READ, Scope.OPERATE}) - {missing}, actor="op")
    monkeypatch.setitem(ACCESSES, "few", few)
    async with browsing("few") as browser:
        for page in READ:
            assert 403 == (await browser.client.get(theirs.path(page))).status_code, page.name


@pytest.mark.req("UI-04")
async def test_nothing_changes_by_get_or_from_another_site(
    theirs: Everything, every: Browser, installation: Installation
) -> None:
    before = await state(installation.pool)
    for page in READ:
        for method in ("GET", "HEAD"):
            path = theirs.path(page) + QUERIES.get(page.name, "")
            assert 200 == (await every.client.request(method, path)).status_code, page.name
    for page in ACTS:
        assert (await every.client.get(theirs.path(page))).status_code in {200, 405}, page.name
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {}):
            assert 403 == (await sent(every.client, theirs.path(page), {}, headers)).status_code, page.name
        assert 403 == (await sent(every.client, theirs.path(page), {"form_token": "x"})).status_code, page.name
    assert before == await state(installation.pool)


async def test_what_is_not_there_is_404(theirs: Everything, every: Browser) -> None:
    """Also what is there, in the path of another tenant."""
    for page in READ:
        for others in (
            dict.fromkeys(theirs.ids, NOWHERE) | NOBODY_KNOWS,
            {"tenant_id": "globex"},
            {"tenant_id": "a b"},
        ):
            if "{" in page.path and page.name not in {"operator.audit", "operator.replays.new"}:
                assert 404 == (await every.client.get(theirs.path(page, **others))).status_code, (page.name, others)


@pytest.mark.req("UI-07")
async def test_a_page_has_few_bytes_and_statements(
    theirs: Everything, every: Browser, admin: Admin, installation: Installation
) -> None:
    """With as much as a page can show, each of the longest kind."""
    pool = installation.pool
    long = "https://a.example/" + "&'<\"" * 500
    delivery = theirs.ids["delivery_id"]
    for number in range(40):
        endpoint = await rows.endpoint(pool, url=f"{long}{number}", first_failure_at=rows.NOW)
        delivery = await rows.delivery(pool, endpoint, theirs.ids["event_id"], state="failed", last_error="'" * 500)
    for number in range(1, 60):
        await rows.attempt(pool, delivery, number, status=500, outcome="server_error", snippet='"' * 2_048)
        await admin.event_types.add(name=f"{'a' * 100}.{number}", description="'" * 2_000, actor="&" * 128)
    await admin.endpoints.update(
        tenant_id="acme", endpoint_id=theirs.ids["endpoint_id"], description="<" * 1_024, actor="&" * 128
    )
    for page in READ:
        path = theirs.path(page, delivery_id=delivery) + QUERIES.get(page.name, "")
        await every.open(path)  # its connection is there
        with counted(admin) as statements:
            await every.open(path)
        assert 200 == every.status, page.name
        assert 1 <= len(statements) <= MOST_STATEMENTS, (page.name, statements)
        assert len(every.response.content) <= MOST_BYTES, (page.name, len(every.response.content))


@pytest.mark.req("UI-05")
async def test_an_event_is_found_in_two_steps_and_says_why_it_waits(every: Browser, installation: Installation) -> None:
    """By its id alone; a webhook-id leads to the delivery at once, and so does an id that only one event has."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool, "globex", enabled=False, disabled_reason="gone")
    event = await rows.event(pool, "globex", id="evt.1", correlation_id="order:7")
    delivery = await rows.delivery(pool, endpoint, event, tenant="globex")
    await rows.wait_for(pool, "endpoint_disabled", delivery)
    for text in ("evt.1", "order:7"):
        await every.open("/operator")
        await every.press("Find", q=text)
        assert every.response.url.path.endswith("/operator/tenant/globex/event/evt.1"), text
        await every.follow(delivery)
        assert "Its endpoint was disabled (“gone”)" in every.text
    await every.open("/operator")
    await every.press("Find", q=delivery)
    assert "Its endpoint was disabled (“gone”)" in every.text
    await every.press("Find", q="globex") if "Find" in every.page.buttons else await every.open(
        "/operator/search?q=globex"
    )
    assert every.response.url.path.endswith("/operator/tenant/globex")
    await every.open("/operator/search?q=nothing")
    assert "Nothing has the id nothing" in every.text
    await every.open("/operator/search?q=a%20b")
    assert 422 == every.status


@pytest.mark.req("UI-05")
async def test_several_that_share_an_id_are_listed(every: Browser, installation: Installation) -> None:
    pool = installation.pool
    for tenant in ("acme", "globex"):
        await rows.endpoint(pool, tenant)
        await rows.event(pool, tenant, id="globex")
    await every.open("/operator/search?q=globex")
    assert [3, 1] == [
        sum("/operator/tenant/" in (given.get("href") or "") for _, given in every.page.elements) - 2,
        every.text.count("Events"),
    ]


@pytest.mark.req("UI-05")
async def test_a_payload_is_read_only_by_a_form_and_that_is_on_record(
    theirs: Everything, every: Browser, admin: Admin
) -> None:
    await every.open(f"/operator/tenant/acme/event/{theirs.ids['event_id']}")
    assert "<pre" not in every.response.text
    await every.press("Read the payload")
    assert "<pre" in every.response.text
    [row] = (await admin.audit.list(tenant_id="acme", action="event.payload_read")).items
    assert ("root@product.example", f"event:{theirs.ids['event_id']}") == (row.actor.partition("/")[2], row.subject)


async def test_a_delivery_is_sent_again(theirs: Everything, every: Browser, admin: Admin) -> None:
    await every.open(f"/operator/tenant/acme/delivery/{theirs.ids['delivery_id']}")
    await every.press("Send it again")
    assert "sent again" in every.text
    found = await admin.deliveries.get(tenant_id="acme", delivery_id=theirs.ids["delivery_id"])
    assert "pending" == found.state
    assert "root@product.example" in (await admin.audit.list(tenant_id="acme", limit=1)).items[0].actor


async def test_a_line_goes_on_behind_what_stops_it(every: Browser, admin: Admin, installation: Installation) -> None:
    """The form is there only for the delivery that stops it; sent for another one it is refused, and says why."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool, ordered=True)
    stopping = await rows.delivery(pool, endpoint, state="dead_letter")
    other = await rows.delivery(pool, endpoint, state="dead_letter")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", stopping, position=1)
        await rows.change(connection, "deliveries", other, position=None)
    await every.open("/operator/endpoints?state=stopped")
    await every.follow("what stops it")
    await every.press("Go on behind it")
    assert "goes on" in every.text
    assert (await admin.endpoints.get(tenant_id="acme", endpoint_id=endpoint)).stopped_by is None
    await every.open(f"/operator/tenant/acme/delivery/{other}")
    assert "Go on behind it" not in every.page.buttons
    again = await sent(
        every.client,
        f"/operator/tenant/acme/delivery/{other}/skip",
        {"form_token": every.response.text.partition('name="form_token" value="')[2].partition('"')[0]},
    )
    assert 409 == again.status_code


async def test_a_replay_is_counted_started_and_cancelled(
    every: Browser, admin: Admin, installation: Installation
) -> None:
    """What is sent is what was counted; an unknown state, a wrong time and an endpoint of nobody are named."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool)
    for _ in range(3):
        await rows.delivery(pool, endpoint, state="dead_letter")
    await every.open("/operator/tenant/acme/replay")
    await every.press("Count", states=["dead_letter"], endpoint=endpoint)
    assert "3 would be sent again" in every.text
    assert () == (await admin.replays.list(tenant_id="acme")).items
    await every.press("Send them again", rate="1")
    [job] = (await admin.replays.list(tenant_id="acme")).items
    assert (3, 1, "running") == (job.matched, job.rate, job.state)
    assert "0 of 3 sent again" in every.text
    await every.open("/operator/replays?state=running")
    assert job.replay_id in every.text
    await every.follow(job.replay_id)
    await every.press("Cancel the rest")
    assert "cancelled" == (await admin.replays.get(tenant_id="acme", replay_id=job.replay_id)).state
    for query in ("since=never", "since=2020-01-01T00:00&endpoint=x", "since=2020-01-01T00:00&states=pending"):
        await every.open(f"/operator/tenant/acme/replay?{query}")
        assert (422, True) == (every.status, "Please correct" in every.text), query


async def test_the_overview_has_each_number_with_its_list(every: Browser, installation: Installation) -> None:
    """A number leads to the rows that it counts."""
    pool = installation.pool
    endpoint, held = await rows.endpoint(pool, first_failure_at=rows.NOW), await rows.endpoint(pool)
    await rows.hold(pool, held)
    await rows.wait_for(pool, "secret", await rows.delivery(pool, held))
    dead = await rows.delivery(pool, endpoint, state="dead_letter")
    await rows.worker(pool)
    await every.open("/operator")
    names = {
        "Dead letters of the last 24 hours: 1": dead,
        "Failing: 1": endpoint,
        "Held: 1": held,
        "Waiting: a secret, which is refused: 1": held,
        "Workers alive: 1": "active",
        "Master keys: 1": "active",
        "Tenants: 1": "acme",
    }
    labels = {
        given["aria-label"]: given["href"] for tag, given in every.page.elements if "aria-label" in given and tag == "a"
    }
    assert "the secret of 1 endpoint is refused" in every.text
    assert "hookseal endpoint list --state held" in every.text
    assert "Whose deliveries wait" in every.text
    for label, expected in names.items():
        await every.open(str(labels[label]))
        assert (200, True) == (every.status, expected in every.text), label


async def test_wrong_filters_are_named_beside_their_field(every: Browser) -> None:
    for path in (
        "/operator/endpoints?state=no-such",
        "/operator/endpoints?tenant=a%20b",
        "/operator/deliveries?state=no-such",
        "/operator/deliveries?since=never",
        f"/operator/deliveries?endpoint={NOWHERE}",
        "/operator/replays?state=no-such",
        "/operator/tenant/acme/audit?action=no-such",
        "/operator/deliveries?after=x",
    ):
        await every.open(path)
        assert (422, True) == (every.status, "Please correct" in every.text), path


async def test_the_actor_of_a_row_is_shown(every: Browser, admin: Admin) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="<b>jane</b>")
    await every.open("/operator/tenant/acme/audit")
    assert "endpoint.added" in every.text
    assert "<b>jane</b>" in every.text
    await every.open("/operator/tenant/acme/audit?action=secret.rotated")
    assert "There is no row." in every.text


def test_each_of_them_is_for_every_tenant() -> None:
    """By the table: a page that was added without it would show one tenant to another."""
    assert {True} == {page.of_every_tenant for page in PAGES}
    assert {frozenset({Scope.READ, Scope.OPERATE})} == {page.scopes for page in PAGES}
