"""The pages in a frame of an origin that was named, and of no other: headers, cookies, and the tokens of forms."""

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from hookseal import Admin
from hookseal.pages import app
from tests.pages.browser import Browser

pytestmark = pytest.mark.req("UI-02", part="frame")

PRODUCT, OTHER = "https://product.example", "https://b.example"


@pytest.fixture
async def visitor(admin: Admin) -> AsyncIterator[Browser]:
    """Yield the browser of a visitor who came by a link, to pages that two origins may frame."""
    pages = app(admin, url="https://hooks.example", frames=(PRODUCT, OTHER))
    transport = httpx.ASGITransport(app=pages)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://hooks.example", follow_redirects=True
    ) as client:
        access = await admin.portal.add(tenant_id="acme", user="jane", actor="test")
        yield await Browser(client).open(f"/login?code={access.code.reveal().decode()}")


@pytest.mark.req("UI-03")
async def test_a_frame_is_of_a_named_origin_and_learns_the_height(visitor: Browser) -> None:
    """The one script of the pages is a file of ours; it knows the origins that may have the height."""
    [script] = [given for tag, given in visitor.page.elements if tag == "script"]
    assert f"{PRODUCT} {OTHER}" == script["data-origins"]
    policy = visitor.response.headers["content-security-policy"].split("; ")
    assert "script-src 'self'" in policy
    assert f"frame-ancestors {PRODUCT} {OTHER}" in policy
    assert "x-frame-options" not in visitor.response.headers
    await visitor.open(script["src"] or "")
    assert (200, "text/javascript; charset=utf-8") == (visitor.status, visitor.response.headers["content-type"])


async def test_a_session_in_a_frame_is_kept_by_cookies_of_its_partition(visitor: Browser) -> None:
    """A browser sends them in the frame alone, and no script reads them."""
    set_cookies = visitor.response.headers.get_list("set-cookie")
    await visitor.press("Open")
    [entered] = visitor.response.history
    set_cookies += entered.headers.get_list("set-cookie")
    assert ["__Host-hookseal-form", "__Host-hookseal"] == [each.partition("=")[0] for each in set_cookies]
    for each in set_cookies:
        assert each.endswith("; HttpOnly; SameSite=None; Partitioned; Secure"), each
    assert (200, True) == (visitor.status, "You have no endpoint yet" in visitor.text)


async def test_a_form_in_a_frame_is_one_of_the_frame(visitor: Browser, admin: Admin) -> None:
    """The page around it may frame these pages, and sends no form, though a browser would send its cookies along."""
    await visitor.press("Open")
    await visitor.follow("Add an endpoint")
    [form] = [form for form in visitor.page.forms if "Add" in form.buttons]
    fields = {"form_token": form.values["form_token"][0], "url": "https://a.example", "every": "yes"}
    for headers in ({"sec-fetch-site": "cross-site", "origin": PRODUCT}, {"origin": PRODUCT}):
        assert 403 == (await visitor.client.post(form.action, data=fields, headers=headers)).status_code
    assert 403 == (await visitor.send(form, form_token="x")).status
    assert () == (await admin.endpoints.list(tenant_id="acme")).items
    await visitor.send(form, url="https://a.example", every="yes")
    assert (200, True) == (visitor.status, "The endpoint is added" in visitor.text)


@pytest.mark.parametrize(
    "frame", ["https://a.example/path", "*", "a.example", "https://a.example; script-src *", "'self'", ""]
)
def test_a_frame_has_an_origin(frame: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- it has no text
        app(cast("Any", None), frames=(frame,))
