"""`hookseal producer` manages which database roles may publish, and for which tenant."""

import pytest

from tests.cli.command import hookseal
from tests.cli.installation import Begun
from tests.doubles.logbook import audited
from tests.doubles.logins import login


@pytest.mark.req("OPS-04", part="json")
@pytest.mark.req("OPS-10")
async def test_a_granted_role_publishes_until_revoked(begun: Begun) -> None:
    """A granted role publishes for its tenant with the command, until the right is revoked."""
    pool, database_url = begun.stored.pool, begun.settings["DATABASE_URL"]
    publish = ("publish", "--tenant", "acme", "--event-type", "a.b", "--data", "{}", "--json")
    async with login(pool, database_url) as (role, url):
        settings = begun.settings | {"DATABASE_URL": url}
        right = ("--role", role, "--tenant", "acme")
        granted = await begun.run("producer", "grant", *right, "--json")
        assert (0, "") == (granted.code, granted.err)
        at = granted.json["granted_at"]
        assert {"role": role, "tenant_id": "acme", "granted_at": at, "changed": True} == granted.json
        assert not (await begun.run("producer", "grant", *right, "--json")).json["changed"]
        assert 0 == (await hookseal(*publish, **settings)).code

        everything = await begun.run("producer", "grant", "--role", role, "--tenant", "*")
        assert f"{role} may publish for every tenant\n" == everything.out
        item = {"role": role, "tenant_id": "acme", "granted_at": at, "role_exists": True, "stale": False}
        listed = await begun.run("producer", "list", "--tenant", "acme", "--json")
        assert {"items": [item], "next_cursor": None} == listed.json
        both = await begun.run("producer", "list", "--role", role, "--json")
        assert ["*", "acme"] == [each["tenant_id"] for each in both.json["items"]]

        rights = {"role": role, "tenant_id": "acme", "left_to_run": None, "still_for_every_tenant": True}
        assert rights == (await begun.run("producer", "revoke", *right, "--json")).json
        last = await begun.run("producer", "revoke", "--role", role, "--tenant", "*")
        assert (0, f"{role} may no longer publish for every tenant\n") == (last.code, last.out)
        assert 5 == (await hookseal(*publish, **settings)).code
    assert ["producer.granted", "producer.revoked"] == [entry["action"] for entry in await audited(pool)]


@pytest.mark.req("OPS-10")
async def test_a_right_for_every_tenant_remains(begun: Begun) -> None:
    """If a role may publish for every tenant, the text says that it may still publish for the one that was revoked."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        for tenant in ("acme", "*"):
            await begun.run("producer", "grant", "--role", role, "--tenant", tenant)
        ended = await begun.run("producer", "revoke", "--role", role, "--tenant", "acme")

    assert ended.out == (
        f"the right is revoked, but {role} may still publish for acme, as it may for every tenant. "
        f"To end that, run\n  hookseal producer revoke --tenant '*' --role {role}\n"
    )


async def test_the_text_is_a_table(begun: Begun) -> None:
    """The text is a table."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        await begun.run("producer", "grant", "--role", role, "--tenant", "acme")
        table = (await begun.run("producer", "list")).out.splitlines()
    assert ["role", "tenant", "id", "age", "role", "exists", "stale"] == table[0].split()
    assert [role, "acme", "yes", "no"] == [cell for number, cell in enumerate(table[1].split()) if number != 2]
