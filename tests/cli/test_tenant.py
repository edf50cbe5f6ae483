"""`hookseal tenant` names, lists and deletes tenants."""

import re

import pytest

from tests import rows
from tests.cli.installation import Begun


@pytest.mark.req("OPS-04", part="json")
async def test_a_tenant_is_added_listed_and_deleted(begun: Begun) -> None:
    added = await begun.run("tenant", "add", "--uid", "acme", "--name", "Acme Inc.", "--json")
    assert (0, "") == (added.code, added.err)
    at = added.json["created_at"]
    acme = {"tenant_id": "acme", "uid": "acme", "name": "Acme Inc.", "metadata": {}, "created_at": at, "updated_at": at}
    assert acme | {"backlog": None} == added.json
    nothing = {"tenant_id": "acme", "pending": 0, "due": 0, "waiting": 0, "oldest_seconds": None}
    await begun.stored.endpoint("globex")
    listed = await begun.run("tenant", "list", "--json", "--limit", "1")
    assert (["globex"], "globex") == ([item["tenant_id"] for item in listed.json["items"]], listed.json["next_cursor"])
    more = await begun.run("tenant", "list", "--json", "--cursor", "globex")
    assert {"items": [acme | {"backlog": nothing}], "next_cursor": None} == more.json
    deleted = await begun.run("tenant", "delete", "--tenant", "globex", "--yes", "--json")
    assert {"tenant_id": "globex", "endpoints": 1, "cancelled": 0, "tokens": 0} == deleted.json


async def test_the_text_of_each(begun: Begun) -> None:
    assert "tenant acme is added\n" == (await begun.run("tenant", "add", "--tenant", "acme")).out
    endpoint = (await begun.stored.endpoint("acme")).pointer.endpoint_id
    await rows.delivery(begun.stored.pool, endpoint)
    held = await rows.delivery(begun.stored.pool, endpoint)
    await rows.wait_for(begun.stored.pool, "breaker", held, held_at=rows.ago(minutes=5, seconds=1))
    lines = (await begun.run("tenant", "list")).out.splitlines()
    assert ["tenant id", "pending", "due", "waiting", "oldest", "age", "name"] == _cells(lines[0])
    assert ["acme", "2", "1", "1", "5m"] == lines[1].split()[:5]
    assert (
        "tenant acme is deleted, with 1 endpoint; pending deliveries cancelled: 2, tokens revoked: 0\n"
        == (await begun.run("tenant", "delete", "--tenant", "acme", "--yes")).out
    )


def _cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)
