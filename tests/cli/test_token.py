"""`hookseal token` makes a token, which it prints once, lists and revokes tokens."""

from datetime import datetime, timedelta

import pytest

from tests.cli.documented import documented
from tests.cli.installation import Begun


@pytest.mark.req("OPS-04", part="json")
async def test_a_token_is_printed_once(begun: Begun) -> None:
    """`add` prints the token; `list` and `revoke` print what is known of it without its text."""
    words = ("--name", "billing", "--tenant", "acme", "--scope", "reveal", "--scope", "read", "--expires", "90d")
    added = await begun.run("token", "add", *words, "--json")
    assert (0, "") == (added.code, added.err)
    made = added.json
    assert documented("token add").keys() == made.keys()
    assert ("billing", "acme", ["read", "reveal"], "whst_") == (
        *(made[name] for name in ("name", "tenant_id", "scopes")), made["token"][:5]
    )  # fmt: skip
    ends, began = (datetime.fromisoformat(made[name]) for name in ("expires_at", "created_at"))
    assert abs(ends - began - timedelta(days=90)) < timedelta(minutes=1)

    listed = await begun.run("token", "list", "--tenant", "acme", "--json")
    item = {name: made[name] for name in ("token_id", "name", "tenant_id", "scopes")} | {"state": "active"}
    item |= {"portal": False, "user": None, "session_id": None}
    item |= {"created_at": made["created_at"], "expires_at": made["expires_at"]}
    item |= {"revoked_at": None, "last_used_on": None}
    assert {"items": [item], "next_cursor": None} == listed.json
    revoked = await begun.run("token", "revoke", "--name", "billing", "--json")
    assert item | {"state": "revoked", "revoked_at": revoked.json["revoked_at"]} == revoked.json


async def test_the_text_says_what_a_token_may_do(begun: Begun) -> None:
    """On standard error, so that the output of the command is the token."""
    added = await begun.run("token", "add", "--name", "ops", "--tenant", "*")
    token = added.out.removesuffix("\n")
    assert (True, 1) == (token.startswith("whst_"), len(token.split()))
    said = "the token ops of every tenant may read, publish, manage, and never expires; it is shown only now\n"
    assert said == added.err
    ended = await begun.run("token", "add", "--name", "x", "--tenant", "acme", "--expires", "2999-01-31T12:00:00Z")
    assert "and expires at 2999-01-31T12:00:00.000Z; it" in ended.err
    assert (
        "no tenant acme is known: it was not added and has no endpoint, so look whether its name is right"
        == (ended.err.splitlines()[-1])
    )
    table = (await begun.run("token", "list")).out.splitlines()
    assert ["x", "ops"] == [line.split()[0] for line in table[1:]]
    assert "token ops is revoked\n" == (await begun.run("token", "revoke", "--name", "ops")).out
    await begun.run("token", "revoke", "--name", "x")
    assert token not in (await begun.run("token", "list", "--json")).out


async def test_a_token_of_a_tenant_that_is_known_says_nothing_of_it(begun: Begun) -> None:
    """One with an endpoint is, one that was deleted is not."""
    await begun.stored.endpoint("acme")
    assert 1 == len((await begun.run("token", "add", "--name", "a", "--tenant", "acme")).err.splitlines())
    await begun.run("tenant", "delete", "--tenant", "acme", "--yes")
    added = await begun.run("token", "add", "--name", "b", "--tenant", "acme", "--json")
    assert (0, False) == (added.code, added.json["tenant_is_known"])
