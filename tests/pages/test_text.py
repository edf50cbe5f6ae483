"""What receivers and customers send is text: harmless, and readable."""

import pytest

from hookseal import Admin
from hookseal.pages.rendering import fitting, visible
from tests import rows
from tests.doubles.stored import Installation
from tests.pages.browser import Browser

pytestmark = pytest.mark.req("UI-03")

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>&amp;{{ 7*7 }}</textarea></pre>"
UNSEEN = "a\x00b\x1b[31mc\x7fd\u202eevil\u2066e\u200bf\ufeffg\u2028h\u061ci"
LONG = "x" * 2_048


@pytest.mark.parametrize(
    "text", [MARKUP, UNSEEN.replace("\x00", ""), LONG, "\U000e0041tag", "ok \U0001f468\u200d\U0001f469"]
)
async def test_an_answer_is_text(text: str, jane: Browser, admin: Admin, installation: Installation) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    [delivery] = await rows.publish(installation.pool)
    await rows.attempt(installation.pool, delivery, status=500, outcome="server_error", snippet=text)
    await jane.open(f"/delivery/{delivery}")
    assert 200 == jane.status
    assert " ".join(visible(text).split()) in jane.text
    tags = [tag for tag, _ in jane.page.elements]
    assert "script" not in tags
    assert "img" not in tags


async def test_settings_of_an_endpoint_are_text(jane: Browser, admin: Admin) -> None:
    url = "https://a.example/" + "<b>'\"&" * 250
    added = await admin.endpoints.add(
        tenant_id="acme", url=url, event_types=["*"], description=MARKUP, actor="test", enabled=False, reason=MARKUP
    )
    for path in ("/", "", "/edit", "/delete", "/test", "/secret", "/recover", "/verify"):
        await jane.open(path if path == "/" else f"/endpoint/{added.endpoint_id}{path}")
        assert 200 == jane.status
        assert not {"b", "script", "img"} & {tag for tag, _ in jane.page.elements}, path
    await jane.open(f"/endpoint/{added.endpoint_id}/edit")
    [form] = [form for form in jane.page.forms if "Save" in form.buttons]
    assert ([url], [MARKUP]) == (form.values["url"], form.values["description"])


@pytest.mark.parametrize(
    "body", [b'{"a": "</pre><script>"}', b"\xff\xfe\x00\x01", '{"a": "\u202e"}'.encode(), b'"' * 200_000]
)
async def test_a_body_is_text(body: bytes, jane: Browser, admin: Admin, installation: Installation) -> None:
    """Also one that is no UTF-8; of a long one the beginning is shown."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    event = await rows.event(installation.pool, body=body)
    delivery = await rows.delivery(installation.pool, added.endpoint_id, event)
    await jane.open(f"/delivery/{delivery}")
    await jane.press("Show the body")
    assert 200 == jane.status
    assert "script" not in [tag for tag, _ in jane.page.elements]
    assert len(jane.response.content) <= 200_000
    assert (len(body) > 65_536) == ("This is the beginning of it" in jane.text)


def test_what_cannot_be_seen_is_shown() -> None:
    assert "a\u2400b\u241b[31mc\u27e8U+007F\u27e9d\u27e8U+202E\u27e9evil" in visible(UNSEEN)
    assert "\u27e8U+DC80\u27e9" == visible("\udc80")
    assert "a\n\tb \u05e9 \u200d" == visible("a\n\tb \u05e9 \u200d")


@pytest.mark.parametrize("text", ["", "abc", "<" * 1_000, "é" * 1_000, "\x00" * 1_000, "\U0001f600" * 500])
def test_a_text_fits(text: str) -> None:
    shown, is_whole = fitting(text, 300)
    assert text.startswith(shown)
    assert is_whole == (shown == text)
    assert len(visible(shown).encode()) <= 300
    assert is_whole == (len(text) <= 60)
