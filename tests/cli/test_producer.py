"""`hookseal producer` manages which database roles may publish, and for which tenant."""

import pytest

from tests.cli.command import hookseal
from tests.cli.endpoint.test_add import NOWHERE
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
        f"the right is revoked, but {role} may still publish for acme, as it may for every tenant: "
        f"to end that, run hookseal producer revoke --role {role} --tenant '*'\n"
    )


@pytest.mark.req("OPS-04", part="errors")
async def test_an_absent_role_or_right_is_not_found(begun: Begun) -> None:
    """A role that does not exist, and a right that was not granted, exit 3."""
    for command in ("grant", "revoke"):
        ended = await begun.run("producer", command, "--role", "nobody-of-this-name", "--tenant", "acme", "--json")
        assert (3, "role") == (ended.code, ended.json["error"]["field"])
        assert ("first run `CREATE ROLE" in ended.json["error"]["message"]) is (command == "grant")
    assert "no producers\n" == (await begun.run("producer", "list")).out
    assert {"items": [], "next_cursor": None} == (await begun.run("producer", "list", "--json")).json


async def test_the_text_is_a_table(begun: Begun) -> None:
    """The text is a table."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        await begun.run("producer", "grant", "--role", role, "--tenant", "acme")
        table = (await begun.run("producer", "list")).out.splitlines()
    assert ["role", "tenant", "id", "granted", "at", "role", "exists", "stale"] == table[0].split()
    assert [role, "acme", "yes", "no"] == [cell for number, cell in enumerate(table[1].split()) if number != 2]


@pytest.mark.req("OPS-10")
async def test_a_refused_grant_prints_its_statement(begun: Begun) -> None:
    """Without the right to grant, the error has the statement that a privileged user can run."""
    pool, database_url = begun.stored.pool, begun.settings["DATABASE_URL"]
    async with login(pool, database_url) as (clerk, clerks_url), login(pool, database_url) as (role, _):
        await pool.execute(
            f"GRANT USAGE ON SCHEMA hookseal TO {clerk}; GRANT ALL ON ALL TABLES IN SCHEMA hookseal TO {clerk};"
            f"GRANT EXECUTE ON FUNCTION hookseal.was_rewrapped(text, text) TO {clerk}"
        )
        ended = await begun.run(
            "producer", "grant", "--role", role, "--tenant", "acme", "--json", DATABASE_URL=clerks_url
        )
    assert (5, "role") == (ended.code, ended.json["error"]["field"])
    assert f"GRANT hookseal_producer TO {role};" in ended.json["error"]["message"]


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (("--role", "", "--tenant", "acme"), 2, "role"),
        (("--role", "x" * 64, "--tenant", "acme"), 2, "role"),
        (("--role", "hookseal_producer", "--tenant", "acme"), 5, "role"),
        (("--role", "app", "--tenant", "_system"), 2, "tenant"),
        (("--role", "app", "--tenant", "a*"), 2, "tenant"),
    ],
)
async def test_a_malformed_value_names_its_field(options: tuple[str, ...], code: int, field: str) -> None:
    """Each kind of bad value exits with its code and its field, before a database is contacted."""
    for command in ("grant", "revoke", "list"):
        ended = await hookseal("producer", command, *options, "--json", **NOWHERE)
        assert (code, field) == (ended.code, ended.json["error"]["field"])


@pytest.mark.parametrize("command", ["grant", "revoke", "list"])
async def test_help_has_an_example(command: str) -> None:
    """The help has an example."""
    assert f"Example: hookseal producer {command}" in (await hookseal("producer", command, "--help")).out
