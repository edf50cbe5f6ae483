"""The pages within an application of a product, under its path and the sessions of its users."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from hookseal import Admin
from hookseal.api import ALL, Access, Scope
from hookseal.pages import Look, Visitor, app
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.pages.browser import Browser
from tests.pages.conftest import VISITOR, signed_in

pytestmark = pytest.mark.req("UI-02", part="mounted")


async def visitor(request: Request) -> Visitor | None:
    """Return the user of the session, with the look of the customer."""
    if request.cookies.get(VISITOR) != "jane":
        return None
    look = Look(
        name="Rechnungen", accent="#7a1fbf", logo="https://cdn.example/l.png", language="de", time_zone="Europe/Zurich"
    )
    access = Access(tenant_id="acme", scopes=ALL, actor="jane@acme.example")
    return Visitor(access=access, look=look, back_url="/invoices")


async def test_they_are_a_part_of_an_application(admin: Admin, installation: Installation) -> None:
    """Every link and form leads below the path; without its slash it is found, too."""
    product = FastAPI()
    product.mount("/settings/webhooks", app(admin, who=visitor))
    async with served(product) as url, httpx.AsyncClient(base_url=url, follow_redirects=True) as client:
        client.cookies.set(VISITOR, "jane")
        jane = Browser(client, root="/settings/webhooks")
        for path in ("", "/"):
            await jane.open(path)
            assert (200, "/settings/webhooks/") == (jane.status, jane.response.url.path)
        await jane.follow("Add an endpoint")
        await jane.press("Add", url="https://a.example", every="yes")
        assert "The endpoint is added" in jane.text
        await jane.press("Show the secret")
        assert "whsec_" in jane.text
        for address in [*jane.page.links.values(), *(form.action for form in jane.page.forms)]:
            assert address.startswith(("/settings/webhooks/", "#", "/invoices")), address
        for tag, given in jane.page.elements:
            if tag == "link":
                assert 200 == (await client.get(given["href"] or "")).status_code
        assert "img-src 'self' https://cdn.example;" in jane.response.headers["content-security-policy"]
        assert ("Rechnungen" in jane.text, "/invoices") == (True, jane.page.links["Back"])
        await jane.open("/deliveries")
        assert "Europe/Zurich" in jane.text
        for path in ("/login", "/logout"):  # they have no sessions of their own
            assert 404 == (await jane.open(path)).status
    assert {"jane@acme.example"} == {row["who"] for row in await audited(installation.pool)}


async def test_who_is_refused_is_led_to_what_they_may_have(admin: Admin) -> None:
    """By the links of the visitor, and not by those of somebody who is not signed in."""
    access = Access(tenant_id="acme", scopes=frozenset({Scope.READ}), actor="rita@acme.example")
    rita = Visitor(access=access, look=Look(name="Rechnungen"), back_url="/invoices")
    transport = httpx.ASGITransport(app=app(admin, who=lambda _: rita, back_url="/sign-in"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        browser = await Browser(client).open("/add")
    links = {"Endpoints": "/", "Deliveries": "/deliveries", "All endpoints": "/"}
    links |= {"Back": "/invoices", "Back to the product": "/invoices", "Skip to the content": "#main"}
    assert (403, links) == (browser.status, browser.page.links)
    assert "Rechnungen" in browser.text


async def test_the_path_may_be_of_a_proxy(admin: Admin) -> None:
    """A server that knows the path before its own, and an application that mounts it below two of its own."""
    inner = Starlette(routes=[Mount("/b", app=app(admin, who=signed_in))])
    outer = Starlette(routes=[Mount("/a", app=inner)])
    transport = httpx.ASGITransport(app=outer, root_path="/prefix")
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies={VISITOR: "jane"}) as client:
        page = await client.get("/prefix/a/b/")
    assert 'href="/prefix/a/b/add"' in page.text


async def test_a_rest_of_a_visitor_is_nobody(admin: Admin) -> None:
    """As with `user and Access(...)`, where the user may be anything that is false."""
    for nobody in (None, "", False):
        transport = httpx.ASGITransport(app=app(admin, who=lambda _, given=nobody: given))  # type: ignore[misc]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert 401 == (await client.get("/")).status_code


@pytest.mark.parametrize("host", ["[", "a b", "", "x" * 300, "127.0.0.1:99999"])
async def test_a_host_that_is_none_is_harmless(host: str, admin: Admin) -> None:
    transport = httpx.ASGITransport(app=app(admin, who=signed_in))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies={VISITOR: "jane"}) as client:
        page = await client.get("/", headers={"host": host})
    assert 200 == page.status_code
