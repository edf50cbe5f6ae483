"""The displayed form of audit rows, and their cursors."""

import base64
import json

import pytest

from hookseal.audit.chain import cursor_of, place_of, to_display
from hookseal.errors import Malformed

ROW = {
    "tenant_id": "acme",
    "sequence": 7,
    "at": "2026-01-02T03:04:05.678901Z",
    "actor": "hookseal/ada",
    "action": "secret.rotated",
    "subject": "endpoint:1",
    "before": None,
    "after": '{"generation":2}',
    "correlation_id": None,
}


def test_facts_are_shown_as_json_and_no_mac() -> None:
    """Facts are shown as parsed JSON, the other columns as they are, and no MAC."""
    assert ROW | {"after": {"generation": 2}} == to_display({**ROW, "mac": b"1", "previous_mac": b"0"})


@pytest.mark.parametrize(
    "text",
    [
        '{"generation": 2}',
        '{"a":1,"a":2}',
        '{"a":1e999}',
        '{"a":"\u00e9"}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 16 + "]" * 16 + "}",
        "null",
        "[]",
        '{"a":' + "9" * 5000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_foreign_json_is_shown_as_text(text: str) -> None:
    """JSON that hookseal did not write is shown as text."""
    assert text == to_display({**ROW, "after": text})["after"]


@pytest.mark.parametrize("text", ['{"a":' + "[" * 15 + "]" * 15 + "}", '{"a":{"b":[["c",1]]},"d":1}'])
def test_nested_facts_are_shown_as_json(text: str) -> None:
    """Nested lists and objects are shown as JSON, up to 16 levels."""
    assert json.loads(text) == to_display({**ROW, "after": text})["after"]


@pytest.mark.parametrize(("tenant", "sequence"), [("acme", 1), ("_system", 2**63 - 1), ("a/b/\u00e9", -(2**63))])
def test_a_cursor_leads_back_to_its_row(tenant: str, sequence: int) -> None:
    """A cursor leads back to its row."""
    assert (tenant, sequence) == place_of(cursor_of({"tenant_id": tenant, "sequence": sequence}))


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "\u00e9", *(base64.b64encode(text).decode() for text in (b"acme", b"acme/", b"acme/x", b"7", b"\xff/1"))],
)
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    """A cursor without a tenant and a number is refused."""
    with pytest.raises(Malformed) as refused:
        place_of(cursor)
    assert "cursor" == refused.value.field


@pytest.mark.parametrize("text", [b"acme/9223372036854775808", b"acme/-9223372036854775809", b"a\0/1"])
def test_a_cursor_outside_postgresqls_range_is_refused(text: bytes) -> None:
    """A number too large and a tenant with a NUL never reach the database."""
    with pytest.raises(Malformed):
        place_of(base64.b64encode(text).decode())
