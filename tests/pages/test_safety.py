"""No page or form crosses customers, nothing changes by GET or from another site, and rights hold."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from hookseal import Admin
from hookseal.admin import Scope
from hookseal.pages import app
from hookseal.pages.page import Page
from tests.doubles.stored import Installation
from tests.pages.browser import OWN, Browser
from tests.pages.conftest import ACCESSES, VISITOR, Browsing, signed_in
from tests.pages.everything import ACTS, NOWHERE, OF_A_CUSTOMER, READ, Everything, everything, sent, state, token

pytestmark = pytest.mark.req("UI-04")


@pytest.fixture
async def theirs(installation: Installation, admin: Admin) -> Everything:
    """Give acme one of everything."""
    return await everything(installation, admin)


@pytest.fixture
async def omar(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of globex, who may do everything there."""
    async with httpx.AsyncClient(base_url=url, cookies={VISITOR: "omar"}) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of acme, who may do everything there."""
    async with httpx.AsyncClient(base_url=url, cookies={VISITOR: "jane"}) as client:
        yield client


async def asked(client: httpx.AsyncClient, page: Page, path: str, form: dict[str, str]) -> httpx.Response:
    return await (client.get(path) if page.method == "GET" else sent(client, path, form))


async def test_what_another_customer_has_is_not_there(
    theirs: Everything, omar: httpx.AsyncClient, installation: Installation
) -> None:
    """Each page with the ids of acme is answered as with ids of nothing."""
    before, mine = await state(installation.pool), await token(omar)
    tried = [page for page in OF_A_CUSTOMER if "{" in page.path]
    for page in tried:
        form = theirs.form(page) | {"form_token": mine}
        there = await asked(omar, page, theirs.path(page), form)
        nowhere = await asked(omar, page, theirs.path(page, **dict.fromkeys(theirs.ids, NOWHERE)), form)
        assert (404, 404) == (there.status_code, nowhere.status_code), page.name
        assert there.text == nowhere.text, page.name
    assert before == await state(installation.pool)
    assert len(tried) > 20


async def test_lists_have_nothing_of_another_customer(theirs: Everything, omar: httpx.AsyncClient) -> None:
    for path in ("/", "/deliveries", "/deliveries?state=pending"):
        response = await omar.get(path)
        assert 200 == response.status_code, path
        assert not re.search(r'href="/(endpoint|delivery)/', response.text), path
        assert "a.example" not in response.text, path
    for endpoint in (theirs.ids["endpoint_id"], NOWHERE):
        assert 404 == (await omar.get(f"/deliveries?endpoint={endpoint}")).status_code


async def test_a_job_of_another_endpoint_is_not_there(
    theirs: Everything, client: httpx.AsyncClient, admin: Admin, installation: Installation
) -> None:
    """Also one of the same customer, in the path of another endpoint."""
    other = await admin.endpoints.add(tenant_id="acme", url="https://b.example", event_types=["x"], actor="test")
    path = f"/endpoint/{other.endpoint_id}/recover/{theirs.ids['replay_id']}"
    assert 404 == (await client.get(path)).status_code
    assert 404 == (await sent(client, f"{path}/cancel", {"form_token": await token(client)})).status_code


async def test_nothing_changes_by_get(
    theirs: Everything, client: httpx.AsyncClient, installation: Installation
) -> None:
    """No page changes anything, not the audit log either; the address of a form alone does nothing."""
    before = await state(installation.pool)
    for page in READ:
        for method in ("GET", "HEAD"):
            assert 200 == (await client.request(method, theirs.path(page))).status_code, page.name
    for page in ACTS:
        shown = await client.get(theirs.path(page))
        assert shown.status_code in {200, 405}, page.name
    for page in OF_A_CUSTOMER:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            assert 405 == (await client.request(method, theirs.path(page))).status_code, (method, page.name)
    assert before == await state(installation.pool)


async def test_a_form_of_another_site_changes_nothing(
    theirs: Everything, client: httpx.AsyncClient, installation: Installation, url: str
) -> None:
    """Whatever a browser says of it, with the right token, too; and without a token, also from a page of ours."""
    mine = await token(client)
    before = await state(installation.pool)
    foreign: list[dict[str, str]] = [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": url},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ]
    for page in ACTS:
        for headers in foreign:
            response = await sent(client, theirs.path(page), theirs.form(page) | {"form_token": mine}, headers)
            assert 403 == response.status_code, (page.name, headers)
        for wrong in ("", "x", mine[:-1], mine + "x", "é"):
            response = await sent(client, theirs.path(page), theirs.form(page) | {"form_token": wrong})
            assert 403 == response.status_code, (page.name, wrong)
    assert before == await state(installation.pool)
    own = {"origin": url}  # an older browser
    response = await sent(client, "/add", {"form_token": mine, "url": "https://new.example", "every": "yes"}, own)
    assert 303 == response.status_code


async def test_a_token_is_for_one_visitor_in_one_browser(
    theirs: Everything, client: httpx.AsyncClient, omar: httpx.AsyncClient, url: str, installation: Installation
) -> None:
    """That of another visitor, or with the cookie of another browser, or without one, is no proof."""
    mine, before = await token(client), await state(installation.pool)
    await token(omar)
    add = {"url": "https://new.example", "every": "yes", "form_token": mine}
    assert 403 == (await sent(omar, "/add", add)).status_code
    async with httpx.AsyncClient(base_url=url, cookies={VISITOR: "jane"}) as other:
        assert 403 == (await sent(other, "/add", add)).status_code
        await token(other)
        assert 403 == (await sent(other, "/add", add)).status_code
        other.cookies.set(VISITOR, "manager")
        other.cookies.set("hookseal-form", client.cookies["hookseal-form"])
        assert 403 == (await sent(other, "/add", add)).status_code
    assert before == await state(installation.pool)


async def test_what_is_no_form_is_refused(client: httpx.AsyncClient) -> None:
    mine = await token(client)
    sent_as = {**OWN, "content-type": "application/json"}
    assert 415 == (await client.post("/add", content=b"{}", headers=sent_as)).status_code
    form = {**OWN, "content-type": "application/x-www-form-urlencoded"}
    for content, status in (
        (f"form_token={mine}&url=%ff".encode(), 422),
        (f"form_token={mine}&url=é".encode(), 422),
        (f"form_token={mine}&{'a=1&' * 500}".encode(), 413),
        (b"x" * 70_000, 413),
    ):
        response = await client.post("/add", content=content, headers=form)
        assert status == response.status_code, content[:60]
        assert "<h1>" in response.text


@pytest.mark.parametrize("visitor", ["reader", "manager", "operator", "revealer", "writer", "every", "nobody"])
async def test_what_may_not_be_done_is_refused(
    visitor: str, theirs: Everything, url: str, installation: Installation
) -> None:
    access = ACCESSES.get(visitor)
    before = await state(installation.pool)
    async with httpx.AsyncClient(base_url=url, cookies={VISITOR: visitor}) as client:
        for page in OF_A_CUSTOMER:
            assert page.scopes is not None
            is_refused = access is None or access.tenant_id is None or not page.scopes <= access.scopes
            if visitor == "every" and page.of_every_tenant is None:
                assert "/operator" == (await client.get(theirs.path(page))).headers["location"]
            elif is_refused:
                response = await asked(client, page, theirs.path(page), theirs.form(page))
                assert (401 if access is None else 403) == response.status_code, page.name
            elif page.method == "GET":
                assert 200 == (await client.get(theirs.path(page))).status_code, page.name
    assert before == await state(installation.pool)


@pytest.mark.parametrize("visitor", ["jane", "reader", "manager", "operator", "revealer"])
async def test_what_may_not_be_done_is_not_shown(visitor: str, theirs: Everything, browsing: Browsing) -> None:
    """Each form and each link of every page leads to what the visitor may have."""
    paths = {page.path: page for page in OF_A_CUSTOMER}
    scopes = ACCESSES[visitor].scopes
    led: set[str] = set()
    async with browsing(visitor) as browser:
        for page in READ:
            assert page.scopes is not None
            if not page.scopes <= scopes:
                continue
            await browser.open(theirs.path(page) + ("?since=2020-01-01T00:00" if page.name == "recover" else ""))
            forms = [(form.action, form.method.upper()) for form in browser.page.forms]
            for address, method in [*forms, *((link, "GET") for link in browser.page.links.values())]:
                path = address.partition("?")[0]
                for name, value in theirs.ids.items():
                    path = path.replace(value, "{" + name + "}")
                found = [each for each in OF_A_CUSTOMER if (each.path, each.method) == (path, method)]
                if not found:
                    assert address.startswith(("#", "https://product.example")), (page.name, address)
                    continue
                assert found[0].scopes is not None
                assert found[0].scopes <= scopes, (page.name, address)
                led.add(found[0].name)
    assert paths
    if visitor == "jane":
        assert {page.name for page in ACTS} - {"endpoint.enable", "secret.reveal"} <= led
    if visitor == "reader":
        assert {page.name for page in ACTS} & led == {"delivery.body"}


async def test_every_form_is_of_a_page_and_every_act_has_scopes() -> None:
    for page in ACTS:
        assert page.scopes is not None
        assert page.scopes >= {Scope.READ}, page.name
    names = [page.name for page in OF_A_CUSTOMER]
    assert len(names) == len(set(names))


async def test_nobody_is_led_to_the_product(browsing: Browsing) -> None:
    async with browsing("nobody") as browser:
        await browser.open("/")
        assert 401 == browser.status
        assert "https://product.example/sign-in" == browser.page.links["Back to the product"]


async def test_an_access_for_every_customer_is_none_for_one(browsing: Browsing) -> None:
    async with browsing("every") as browser:
        await browser.open("/add")
        assert (403, True) == (browser.status, "not for one customer" in browser.text)
        await browser.open("/")
        assert (200, "/operator") == (browser.status, browser.response.url.path)


async def test_every_answer_has_the_policy(theirs: Everything, jane: Browser) -> None:
    """Pages, problems and files: nothing is loaded from elsewhere, and no page is kept."""
    for path in (*(theirs.path(page) for page in READ), "/none", "/endpoint/x", "/deliveries?after=none"):
        await jane.open(path)
        policy = jane.response.headers["content-security-policy"]
        for part in (
            "default-src 'none'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ):
            assert part in policy.split("; "), path
        assert "script-src" not in policy
        assert "no-store" == jane.response.headers["cache-control"], path
        assert "nosniff" == jane.response.headers["x-content-type-options"]
        assert "DENY" == jane.response.headers["x-frame-options"]
        for tag, given in jane.page.elements:
            assert tag not in {"script", "style", "iframe", "object"}, path
            assert not {name for name in given if name.startswith("on") or name == "style"}, path
    await jane.open("/static/pages.css")
    assert (200, "text/css; charset=utf-8") == (jane.status, jane.response.headers["content-type"])
    assert "nosniff" == jane.response.headers["x-content-type-options"]
    for path in ("/static/none.css", "/static/..%2f__init__.py", "/look/red.css", "/look/12345g.css"):
        await jane.open(path)
        assert 404 == jane.status, path


@pytest.mark.parametrize("done", ["added", "<script>", "none", "enabled&n=<b>", "enabled&n=99999999999999"])
async def test_what_was_done_is_one_of_our_texts(done: str, theirs: Everything, jane: Browser) -> None:
    await jane.open(f"/?done={done}")
    assert 200 == jane.status
    assert "<script>" not in jane.response.text
    assert "<b>" not in jane.response.text
    await jane.open("/?done=%ff")
    assert (422, True) == (jane.status, "<h1>" in jane.response.text)


async def test_one_visitor_is_limited_and_no_other(admin: Admin) -> None:
    """429, with a page and the time to wait; one may be answered every second, after two at once."""
    transport = httpx.ASGITransport(app=app(admin, who=signed_in, rate=1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        of_jane, of_omar = ({"cookie": f"{VISITOR}={name}"} for name in ("jane", "omar"))
        answers = [await client.get("/none", headers=of_jane) for _ in range(2)]
        answers += [await client.get("/add", headers=of_jane) for _ in range(4)]
        assert [404, 404, 200, 200, 429, 429] == [each.status_code for each in answers]
        assert "1" == answers[-1].headers["retry-after"]
        assert "too many requests" in answers[-1].text
        assert 200 == (await client.get("/add", headers=of_omar)).status_code
