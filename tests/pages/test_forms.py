"""What a visitor sends, before anything is done with it."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from hookseal.api.problems import Problem
from hookseal.errors import Malformed
from hookseal.pages import guard
from hookseal.pages.forms import parsed
from hookseal.pages.guard import Site
from hookseal.pages.page import Links

SITE = Site(origin="https://product.example", root="/hooks")
LOCAL = Site(origin="http://127.0.0.1:8000", root="")


def test_fields_are_read() -> None:
    form = parsed(b"a=1&a=2&b=+x+&lines=one%0D%0A%0D%0A+two%0D&empty=&number=007&long=1234567890&n=%D9%A1")
    assert ("1", ["1", "2"], "x", "", "d") == (
        *(form.text("a"), form.every("a"), form.text("b"), form.text("none"), form.text("none", "d")),
    )
    assert ["one", "two"] == form.lines("lines")
    assert [7, None, None, None] == [form.number(name) for name in ("number", "long", "n", "empty")]
    assert ("empty" in form, "none" in form) == (True, False)


@pytest.mark.parametrize(("body", "status"), [(b"a=%ff", 422), ("a=é".encode(), 422), (b"a=1&" * 401, 413)])
def test_what_is_no_form_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Problem) as caught:
        parsed(body)
    assert status == caught.value.status


def test_a_time_is_in_the_zone_of_the_visitor() -> None:
    form = parsed(b"a=2026-07-01T08%3A00&b=2026-07-01T08%3A00%3A00%2B00%3A00&c=soon&d=")
    zurich = ZoneInfo("Europe/Zurich")
    assert datetime(2026, 7, 1, 6, tzinfo=UTC) == form.moment("a", zurich)
    assert datetime(2026, 7, 1, 8, tzinfo=UTC) == form.moment("b", zurich)
    assert form.moment("d", zurich) is None
    with pytest.raises(Malformed) as caught:
        form.moment("c", zurich)
    assert "c" == caught.value.field


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": SITE.origin}, False),
        ({"origin": SITE.origin}, True),
        ({"origin": "http://product.example"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_request_is_of_our_pages(headers: dict[str, str], is_own: bool) -> None:
    assert is_own == guard.is_own(headers, SITE)


def test_cookies_are_for_https_but_on_this_machine() -> None:
    assert "__Host-x=1; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure" == SITE.cookie("x", "1", seconds=60)
    assert "x=1; Path=/; Max-Age=60; HttpOnly; SameSite=Lax" == LOCAL.cookie("x", "1", seconds=60)
    framed = Site(origin=SITE.origin, root="", frames=("https://product.example",))
    assert framed.cookie("x", "1", seconds=60).endswith("; SameSite=None; Partitioned; Secure")
    secure = {
        "http://product.example": True,
        "http://127.0.0.1.evil.example": True,
        "http://localhost:80": False,
        "http://[::1]:1": False,
        "https://localhost": True,
        "http://[": True,
        "http://": True,
    }
    assert secure == {origin: Site(origin=origin, root="").is_secure for origin in secure}


def test_a_token_is_of_a_cookie_a_customer_and_a_person() -> None:
    cookie = guard.drawn(b"x" * 16)
    assert guard.kept(cookie) == cookie
    assert {None} == {guard.kept(each) for each in (None, "", "x", cookie + "x", cookie[:-1] + "!")}
    tokens = {
        guard.token(*each)
        for each in ((cookie, "a", "b"), (cookie, "ab", ""), (cookie, None, "a\nb"), (guard.drawn(b"y" * 16), "a", "b"))
    }
    assert 4 == len(tokens)
    assert guard.is_token(guard.token(cookie, "a", "b"), guard.token(cookie, "a", "b"))
    assert not guard.is_token("\udc80", guard.token(cookie, "a", "b"))


def test_only_origins_in_the_settings_may_frame() -> None:
    framed = guard.headers(
        Site(origin="https://a.example", root="", frames=("https://b.example",)), "https://cdn.example"
    )
    assert "frame-ancestors https://b.example" in framed["content-security-policy"]
    assert "img-src 'self' https://cdn.example;" in framed["content-security-policy"]
    assert "script-src 'self';" in framed["content-security-policy"]
    assert "x-frame-options" not in framed
    alone = guard.headers(Site(origin="https://a.example", root=""), None)
    assert ("DENY", False) == (alone["x-frame-options"], "script" in alone["content-security-policy"])


def test_addresses_are_paths_below_the_root() -> None:
    link = Links(root="/hooks", paths={"one": "/x/{id}", "all": "/"})
    assert ["/hooks/", "/hooks/x/a%2Fb", "/hooks/?a=%3C&b=1"] == [
        *(link("all"), link("one", id="a/b"), link("all", {"a": "<", "b": 1, "c": None})),
    ]
