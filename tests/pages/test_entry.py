"""A visitor comes in by a link, once, and leaves."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from hookseal import Admin
from hookseal.admin import PortalAccess
from hookseal.pages import Look, app
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.pages.browser import Browser

pytestmark = pytest.mark.req("UI-02", part="link")

REFRESH = "https://product.example/webhooks"


async def link(admin: Admin, **more: Any) -> PortalAccess:
    """Return an access of acme by a link, for an hour."""
    given: dict[str, Any] = {"tenant_id": "acme", "user": "jane", "refresh_url": REFRESH, "actor": "test", **more}
    return await admin.portal.add(**given)


def code_of(access: PortalAccess) -> str:
    return access.code.reveal().decode()


async def test_a_link_of_an_operator_opens_the_pages_of_every_tenant(browser: Browser, admin: Admin) -> None:
    access = await link(admin, tenant_id="*", scopes=["read", "operate"], refresh_url=None)
    await browser.open(f"/login?code={code_of(access)}")
    await browser.press("Open")
    assert (200, "/operator") == (browser.status, browser.response.url.path)
    await browser.follow("Tenants")
    assert "There is none." in browser.text
    await browser.open("/")
    assert (200, "/operator") == (browser.status, browser.response.url.path)
    assert 403 == (await browser.open("/add")).status


@pytest.fixture
async def url(admin: Admin) -> AsyncIterator[str]:
    """Yield the address of the pages, for the visitors of a link."""
    async with served(app(admin, look=Look(name="Acme hooks"))) as url:
        yield url


@pytest.fixture
async def browser(url: str) -> AsyncIterator[Browser]:
    async with httpx.AsyncClient(base_url=url, follow_redirects=True) as client:
        yield Browser(client)


async def test_a_link_opens_the_pages_once(
    browser: Browser, admin: Admin, url: str, installation: Installation
) -> None:
    access = await link(admin)
    code = code_of(access)
    for _ in range(2):  # a program that looks at the link does not use it
        await browser.open(f"/login?code={code}")
        assert (200, ["Open"]) == (browser.status, browser.page.buttons)
    page = browser.page
    await browser.press("Open")
    assert (200, True) == (browser.status, "You have no endpoint yet" in browser.text)
    assert code not in str(browser.response.url)
    await browser.follow("Add an endpoint")
    await browser.press("Add", url="https://a.example", every="yes")
    assert "The endpoint is added" in browser.text
    assert "Show the secret" not in browser.page.buttons  # without the scope reveal
    [row] = [row for row in await audited(installation.pool) if row["action"] == "endpoint.added"]
    assert row["who"].startswith("token:portal-")
    assert row["who"].endswith("/jane")

    async with httpx.AsyncClient(base_url=url, follow_redirects=True, cookies={}) as client:
        other = Browser(client)
        await other.open(f"/login?code={code}")
        await other.press("Open")
        assert (401, REFRESH) == (other.status, other.page.links["Back to the product"])
        assert 401 == (await other.open("/")).status
    browser.page = page
    await browser.press("Open")
    assert 401 == browser.status
    assert 200 == (await browser.open("/")).status  # the session that runs goes on


@pytest.mark.parametrize("code", ["", "none", "x" * 5_000, "é", "%00", "<script>"])
async def test_a_code_that_is_none_opens_nothing(code: str, browser: Browser) -> None:
    await browser.open("/login")
    await browser.press("Open", code=code)
    assert (401, True) == (browser.status, "Get another one from the product" in browser.text)
    assert "script" not in [tag for tag, _ in browser.page.elements]
    assert 401 == (await browser.open("/")).status


async def test_who_leaves_is_out(browser: Browser, admin: Admin, url: str) -> None:
    """Also in another browser that has the same cookie; the way back is shown."""
    await browser.open(f"/login?code={code_of(await link(admin))}")
    await browser.press("Open")
    cookie = browser.client.cookies["hookseal"]
    await browser.press("Leave")
    assert (200, REFRESH) == (browser.status, browser.page.links["Back to the product"])
    assert "hookseal" not in browser.client.cookies
    browser.client.cookies.set("hookseal", cookie)
    await browser.open("/")
    assert (401, REFRESH) == (browser.status, browser.page.links["Back to the product"])


async def test_a_session_ends_with_its_token(browser: Browser, admin: Admin) -> None:
    access = await link(admin)
    await browser.open(f"/login?code={code_of(access)}")
    await browser.press("Open")
    await admin.portal.expire_all(tenant_id="acme", actor="test")
    await browser.open("/")
    assert (401, REFRESH) == (browser.status, browser.page.links["Back to the product"])


async def test_the_token_of_a_product_is_no_session(browser: Browser, admin: Admin) -> None:
    added = await admin.tokens.add(name="product", tenant_id="acme", scopes=["read"], actor="test")
    browser.client.cookies.set("hookseal", added.token.reveal().decode())
    assert 401 == (await browser.open("/")).status


async def test_over_https_a_cookie_is_of_this_host_alone(admin: Admin) -> None:
    """The address is that of the settings, whatever headers say; one without the prefix is not believed."""
    pages = app(admin, url="https://hooks.example/portal")
    transport = httpx.ASGITransport(app=pages)
    headers = {"x-forwarded-proto": "http", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    async with httpx.AsyncClient(transport=transport, base_url="http://inside", headers=headers) as client:
        form = await client.get(f"/login?code={code_of(await link(admin))}")
        assert 'action="/portal/login"' in form.text
        assert "evil" not in form.text
        [given] = SimpleCookie(form.headers["set-cookie"]).values()
        assert ("__Host-hookseal-form", True, True, "Lax", "/") == (
            *(given.key, given["secure"], given["httponly"], given["samesite"], given["path"]),
        )
        page = Browser(client)
        page.response = form
        token = form.text.partition('name="form_token" value="')[2].partition('"')[0]
        code = form.text.partition('name="code" value="')[2].partition('"')[0]
        sent = await client.post(
            "/login",
            data={"form_token": token, "code": code},
            headers={"origin": "https://hooks.example", "cookie": f"{given.key}={given.value}"},
        )
        assert (303, "/portal/") == (sent.status_code, sent.headers["location"])
        [session] = SimpleCookie(sent.headers["set-cookie"]).values()
        assert ("__Host-hookseal", True, True, "Lax") == (
            *(session.key, session["secure"], session["httponly"], session["samesite"]),
        )
        assert 3_500 < int(session["max-age"]) - 86_400 <= 3_600
        for name, status in (("__Host-hookseal", 200), ("hookseal", 401)):
            shown = await client.get("/", headers={"cookie": f"{name}={session.value}"})
            assert status == shown.status_code, name


async def test_a_login_of_another_site_does_nothing(browser: Browser, admin: Admin) -> None:
    """Nobody is let in as somebody else by a page of another site; the code is not used."""
    code = code_of(await link(admin))
    await browser.open(f"/login?code={code}")
    [form] = [form for form in browser.page.forms if "Open" in form.buttons]
    fields = {"code": code, "form_token": form.values["form_token"][0]}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}):
        assert 403 == (await browser.client.post(form.action, data=fields, headers=headers)).status_code
    await browser.press("Open")
    assert 200 == browser.status
