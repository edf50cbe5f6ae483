"""`hookseal event` lists events, and shows one with its deliveries and its payload."""

import base64

import pytest

from hookseal.dispatcher.store.publish import NewEvent, publish_raw
from hookseal.ground.ids import EventId, TenantId
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.doubles.logbook import audited

pytestmark = pytest.mark.req("DEL-20")


async def test_events_are_listed_by_every_filter(begun: Begun) -> None:
    """Events are listed newest first, by every filter, page by page, as JSON and as text."""
    assert "no events\n" == (await begun.run("event", "list", "--tenant", "acme")).out
    first, second = [await begun.stored.published(event_type=kind) for kind in ("invoice.paid", "user.created")]
    await begun.stored.published("globex")
    for options, expected in (
        ((), [second.event_id, first.event_id]),
        (("--event-type", "invoice.paid"), [first.event_id]),
        (("--event-type", "invoice.paid", "--event-type", "user.created"), [second.event_id, first.event_id]),
        (("--channel", "c"), []),
        (("--oldest-first",), [first.event_id, second.event_id]),
        (("--correlation-id", "corr-2"), []),
        (("--since", "1h"), [second.event_id, first.event_id]),
        (("--until", "1h"), []),
    ):
        found = await begun.run("event", "list", "--tenant", "acme", *options, "--json")
        assert (0, expected) == (found.code, [item["event_id"] for item in found.json["items"]]), options
    page = (await begun.run("event", "list", "--tenant", "acme", "--limit", "1")).out
    cursor = page.rpartition("more: --cursor ")[2].strip()
    rest = await begun.run("event", "list", "--tenant", "acme", "--cursor", cursor, "--json")
    assert [first.event_id] == [item["event_id"] for item in rest.json["items"]]
    assert {"tenant_id", "event_id", "event_type", "occurred_at", "correlation_id", "traceparent", "channels"} == (
        rest.json["items"][0].keys()
    )


async def test_a_payload_is_shown_on_request_and_audited(begun: Begun) -> None:
    """An event is shown with its deliveries and, only if asked for, with its payload, which is audited."""
    await begun.stored.endpoint()
    published = await begun.stored.published()
    named = (published.event_id, "--tenant", "acme")
    shown = (await begun.run("event", "show", *named, "--json")).json
    assert documented("event show").keys() == shown.keys()
    assert [published.deliveries[0].delivery_id] == [each["delivery_id"] for each in shown["deliveries"]]
    assert "event.payload_read" not in [row["action"] for row in await audited(begun.stored.pool)]

    with_payload = (await begun.run("event", "show", *named, "--payload", "--json")).json
    assert with_payload["payload"].endswith(',"data":{"n": 1}}')
    assert with_payload["payload"] == base64.b64decode(with_payload["payload_base64"]).decode()
    assert "event.payload_read" == (await audited(begun.stored.pool))[-1]["action"]
    text = (await begun.run("event", "show", *named, "--payload")).out
    assert published.deliveries[0].delivery_id in text
    assert '"data":{"n": 1}}' in text


async def test_a_binary_payload_is_shown_in_base64(begun: Begun) -> None:
    """A raw body that is not UTF-8 is shown in base64."""
    event = NewEvent(tenant_id=TenantId("acme"), event_type="a.b", event_id=EventId("e1"))
    await publish_raw(begun.stored.pool, event, b"\xff\x00")
    shown = await begun.run("event", "show", "e1", "--tenant", "acme", "--payload", "--json")
    assert (None, "/wA=") == (shown.json["payload"], shown.json["payload_base64"])
    assert "base64: /wA=" in (await begun.run("event", "show", "e1", "--tenant", "acme", "--payload")).out
