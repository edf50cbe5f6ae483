"""`hookseal portal link` prints a link to the pages of a tenant."""

from datetime import UTC, datetime, timedelta

import pytest

from hookseal import Admin
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.doubles.logbook import audited

PAGES = {"HOOKSEAL_PORTAL_URL": "https://webhooks.product.example/portal/"}


@pytest.mark.req("OPS-04", part="json")
async def test_a_link_lets_in_once(begun: Begun) -> None:
    """For the tenant, the user, the scopes and the time that were named."""
    options = ("--user", "jane", "--scope", "read", "--expires", "30m", "--refresh-url", "https://product.example/back")
    made = await begun.run("portal", "link", "--tenant", "acme", *options, "--json", **PAGES)
    assert (0, "") == (made.code, made.err)
    assert documented("portal link").keys() == made.json.keys()
    address, _, code = made.json["url"].partition("?code=")
    assert ("https://webhooks.product.example/portal/login", "whsc_") == (address, code[:5])
    async with Admin.connect(environ=begun.settings) as admin:
        session = await admin.portal.exchange(code=code)
        known = [each.name for each in (await admin.tokens.list(tenant_id="acme", portal=True)).items]
    assert ("acme", "jane", ("read",), "https://product.example/back") == (
        session.tenant_id, session.user, session.scopes, session.refresh_url
    )  # fmt: skip
    assert [session.name, made.json["name"]] == known
    assert ["portal.added", "portal.code_spent", "portal.opened"] == [
        row["action"] for row in await audited(begun.stored.pool)
    ]
    table = (await begun.run("token", "list", "--portal")).out.splitlines()
    assert ["name", "state", "expires", "tenant", "id", "user", "scopes"] == table[0].split()
    assert [[known[0], "acme", "jane"], [known[1], "acme", "jane"]] == [
        [cell for cell in line.split() if cell in {*known, "acme", "jane"}] for line in table[1:]
    ]
    assert "no tokens" in (await begun.run("token", "list")).out


async def test_the_text_is_the_link_and_what_it_opens(begun: Begun) -> None:
    await begun.stored.endpoint("acme")
    """The link on standard output; on standard error until when it works, and until when the pages are open."""
    made = await begun.run("portal", "link", "--tenant", "acme", **PAGES)
    assert (True, 1) == (
        made.out.startswith("https://webhooks.product.example/portal/login?code=whsc_"),
        made.out.count("\n"),
    )
    said, _, ends = made.err.rpartition(" close at ")
    assert "it works once, within ten minutes, and opens the pages of acme; they" == said
    left = datetime.fromisoformat(ends.strip()) - datetime.now(UTC)
    assert timedelta(minutes=55) < left <= timedelta(hours=1)
    unknown = await begun.run("portal", "link", "--tenant", "acmee", **PAGES)
    assert unknown.err.splitlines()[-1].startswith("no tenant acmee is known")


async def test_without_the_address_of_the_pages_nothing_is_made(begun: Begun) -> None:
    refused = await begun.run("portal", "link", "--tenant", "acme")
    assert (78, "") == (refused.code, refused.out)
    assert "HOOKSEAL_PORTAL_URL is not set" in refused.err
    assert [] == await audited(begun.stored.pool)


async def test_what_is_wrong_names_its_option(begun: Begun) -> None:
    for options, option in (
        (("--tenant", "*"), "--scope read --scope operate"),
        (("--tenant", "acme", "--expires", "30s"), "--expires 1m to --expires 7d"),
    ):
        refused = await begun.run("portal", "link", *options, **PAGES)
        assert (2, "") == (refused.code, refused.out)
        assert option in refused.err
