"""`hookseal event-type` adds, lists and removes event types of the catalogue."""

import pytest

from tests.cli.installation import Begun


@pytest.mark.req("OPS-04", part="json")
async def test_an_event_type_is_added_listed_and_removed(begun: Begun) -> None:
    words = ("--name", "invoice.paid", "--description", "A paid invoice", "--example", '{"amount": 1.50}')
    added = await begun.run("event-type", "add", *words, "--json")
    assert (0, "") == (added.code, added.err)
    at = added.json["created_at"]
    paid = {
        "name": "invoice.paid",
        "description": "A paid invoice",
        "schemas": '{"1":{"examples":[{"amount": 1.50}]}}',
        "deprecated": False,
        "archived": False,
        "created_at": at,
        "updated_at": at,
    }
    assert paid == added.json
    await begun.run("event-type", "add", "--name", "user.added")
    listed = await begun.run("event-type", "list", "--json", "--limit", "1")
    assert {"items": [paid], "next_cursor": "invoice.paid"} == listed.json
    more = await begun.run("event-type", "list", "--json", "--cursor", "invoice.paid")
    assert [("user.added", None)] == [(item["name"], item["schemas"]) for item in more.json["items"]]
    removed = await begun.run("event-type", "remove", "--name", "invoice.paid", "--json")
    assert paid | {"archived": True, "updated_at": removed.json["updated_at"]} == removed.json
    assert ["user.added"] == [each["name"] for each in (await begun.run("event-type", "list", "--json")).json["items"]]


async def test_the_text_of_each(begun: Begun) -> None:
    assert "no event types\n" == (await begun.run("event-type", "list")).out
    assert "event type a.b is added\n" == (await begun.run("event-type", "add", "--name", "a.b")).out
    lines = (await begun.run("event-type", "list")).out.splitlines()
    assert ["name", "deprecated", "age", "description"] == lines[0].split()
    assert ["a.b", "no", "-"] == [cell for at, cell in enumerate(lines[1].split()) if at != 2]
    assert "event type a.b is removed\n" == (await begun.run("event-type", "remove", "--name", "a.b")).out
