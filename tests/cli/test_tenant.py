"""`hookseal tenant` names, lists and deletes tenants."""

import pytest

from tests.cli.installation import Begun


@pytest.mark.req("OPS-04", part="json")
async def test_a_tenant_is_added_listed_and_deleted(begun: Begun) -> None:
    added = await begun.run("tenant", "add", "--uid", "acme", "--name", "Acme Inc.", "--json")
    assert (0, "") == (added.code, added.err)
    at = added.json["created_at"]
    acme = {"tenant_id": "acme", "uid": "acme", "name": "Acme Inc.", "metadata": {}, "created_at": at, "updated_at": at}
    assert acme == added.json
    await begun.stored.endpoint("globex")
    listed = await begun.run("tenant", "list", "--json", "--limit", "1")
    assert (["globex"], "globex") == ([item["tenant_id"] for item in listed.json["items"]], listed.json["next_cursor"])
    more = await begun.run("tenant", "list", "--json", "--cursor", "globex")
    assert {"items": [acme], "next_cursor": None} == more.json
    deleted = await begun.run("tenant", "delete", "--tenant", "globex", "--yes", "--json")
    assert {"tenant_id": "globex", "endpoints": 1, "cancelled": 0, "tokens": 0} == deleted.json


async def test_the_text_of_each(begun: Begun) -> None:
    assert "tenant acme is added\n" == (await begun.run("tenant", "add", "--tenant", "acme")).out
    await begun.stored.endpoint("acme")
    lines = (await begun.run("tenant", "list")).out.splitlines()
    assert ["tenant", "id", "uid", "name", "created", "at"] == lines[0].split()
    assert ["acme", "-", "-"] == lines[1].split()[:3]
    assert (
        "tenant acme is deleted, with 1 endpoint; pending deliveries cancelled: 0, tokens revoked: 0\n"
        == (await begun.run("tenant", "delete", "--tenant", "acme", "--yes")).out
    )
