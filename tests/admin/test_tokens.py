"""Tokens of the HTTP API: found by their text until they end, kept as a digest, named in the audit log."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import AddedToken
from hookseal.errors import Conflict, HooksealError, NotFound
from hookseal.postgres.pool import ANSWER_SECONDS
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.sent import noted
from tests.doubles.stored import Installation

JANE = "jane@product.example"
pytestmark = pytest.mark.req("OPS-10")


async def added(admin: Admin, name: str = "billing", tenant: str = "acme", **more: Any) -> AddedToken:
    return await admin.tokens.add(name=name, tenant_id=tenant, actor=JANE, **more)


def text_of(token: AddedToken) -> str:
    return token.token.reveal().decode()


@pytest.mark.req("API-03")
async def test_a_token_is_found_until_it_is_revoked(admin: Admin, installation: Installation) -> None:
    end = datetime.now(UTC) + timedelta(days=90)
    made = await added(admin, scopes=["publish", "read", "publish"], expires_at=end)
    found = await admin.tokens.find(text_of(made))
    assert found is not None
    assert (made.token_id, "billing", "acme", ("read", "publish"), "active", made.created_at, end, None) == (
        found.token_id, found.name, found.tenant_id, found.scopes, found.state, found.created_at, found.expires_at,
        found.revoked_at,
    )  # fmt: skip
    revoked = await admin.tokens.revoke(name="billing", actor=JANE)
    assert ("revoked", found.token_id, True) == (revoked.state, revoked.token_id, revoked.revoked_at is not None)
    assert await admin.tokens.find(text_of(made)) is None
    with pytest.raises(NotFound):
        await admin.tokens.revoke(name="billing", actor=JANE)

    facts = {
        "token_id": made.token_id,
        "tenant_id": "acme",
        "scopes": ["read", "publish"],
        "expires_at": end.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    of = {"subject": "token:billing", "who": JANE}
    assert [
        {"action": "token.added", **of, "before": None, "after": facts | {"generation": 1}},
        {"action": "token.revoked", **of, "before": facts, "after": {"generation": 2}},
    ] == await audited(installation.pool)


async def test_a_token_may_do_what_was_named(admin: Admin, installation: Installation) -> None:
    """By default it may not operate or reveal. One for every tenant is on record in the log of the installation."""
    assert ("read", "publish", "manage") == (await added(admin)).scopes
    everything = await added(admin, "ops", "*", scopes=["reveal", "operate"])
    assert ("*", ("operate", "reveal"), None) == (everything.tenant_id, everything.scopes, everything.expires_at)
    assert "token.added" == (await audited(installation.pool, "_system"))[-1]["action"]
    found = await admin.tokens.find(text_of(everything))
    assert found is not None
    assert "*" == found.tenant_id


async def test_one_token_of_a_name_is_in_use(admin: Admin, installation: Installation) -> None:
    """Also of concurrent ones. The name of one that was revoked or has expired is free."""
    tried = await asyncio.gather(
        *(added(admin, tenant=tenant) for tenant in ("acme", "globex") * 2), return_exceptions=True
    )
    assert 3 == sum(isinstance(each, Conflict) and each.field == "name" for each in tried)
    await admin.tokens.revoke(name="billing", actor=JANE)
    second = await added(admin, expires_at=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(Conflict):
        await added(admin)
    await installation.change_token(second.token_id, expires_at=rows.ago(seconds=1))
    assert await admin.tokens.find(text_of(second)) is None
    listed = await admin.tokens.list(tenant_id="*")
    assert ["expired", "revoked"] == [token.state for token in listed.items]
    third = await added(admin)

    listed = await admin.tokens.list(tenant_id="*")
    assert ["active", "expired", "revoked"] == [token.state for token in listed.items]
    assert listed.items[1].revoked_at == listed.items[1].expires_at
    assert [None, third.token_id] == [
        None if found is None else found.token_id
        for found in (await admin.tokens.find(text_of(second)), await admin.tokens.find(text_of(third)))
    ]


@pytest.mark.req("API-03")
async def test_only_the_digest_of_a_token_is_stored_and_no_repr_shows_it(
    admin: Admin, installation: Installation
) -> None:
    made = await added(admin)
    text = text_of(made)
    assert text.startswith("whst_")
    assert 48 == len(text)
    assert text != text_of(await added(admin, "other"))
    found = await admin.tokens.find(text)
    tables = await installation.pool.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'hookseal'")
    stored = "".join(
        [
            str(await installation.pool.fetchval(f"SELECT string_agg(t::text, '') FROM hookseal.{row[0]} AS t"))  # noqa: S608
            for row in tables
        ]
    )
    assert hashlib.sha256(text.encode()).hexdigest() in stored
    for part in (text, text.removeprefix("whst_"), text.encode().hex()):
        assert part not in stored + repr(made) + repr(found) + repr(admin.tokens)


async def test_a_wrong_token_costs_one_statement_at_most(admin: Admin) -> None:
    """What has the form of a token is hashed and looked up once, anything else is not; no error says more."""
    await added(admin)
    pool: Any = await admin.tokens._session.source()
    sent = await noted(pool)
    formless = ("", "whst_", "x", "whst_" + "A" * 44, "\u00e9", "\udcff", "\0", "%00", "a" * 100_000)
    for text, statements in {**dict.fromkeys(formless, 0), "whst_" + "A" * 43: 1}.items():
        sent.clear()
        assert await admin.tokens.find(text) is None, text
        for _ in range(3):  # turns of the loop, until asyncpg has reported it
            await asyncio.sleep(0)
        assert statements == len(sent), text


async def test_look_ups_that_come_at_once_share_a_statement(admin: Admin) -> None:
    """Each has its own answer. One that begins after a revocation does not find the token, whatever runs beside it."""
    made = [await added(admin, f"t{number}") for number in range(3)]
    texts = [text_of(each) for each in made]
    for text in texts:  # their first use of the day
        await admin.tokens.find(text)
    pool: Any = await admin.tokens._session.source()
    sent = await noted(pool)
    found = await asyncio.gather(*(admin.tokens.find(text) for text in [*texts, "whst_wrong"] * 10))
    for _ in range(3):  # turns of the loop, until asyncpg has reported it
        await asyncio.sleep(0)
    assert [*(each.token_id for each in made), None] * 10 == [None if each is None else each.token_id for each in found]
    assert 1 == len(sent)

    running = [asyncio.ensure_future(admin.tokens.find(texts[0])) for _ in range(10)]
    await admin.tokens.revoke(name="t0", actor=JANE)
    assert [None] * 10 == await asyncio.gather(*(admin.tokens.find(texts[0]) for _ in range(10)))
    running[0].cancel()
    await asyncio.wait(running)


async def test_the_first_use_of_a_day_is_recorded(admin: Admin, installation: Installation) -> None:
    """A use writes nothing if one of that day is on record, and waits for nobody who has the row locked."""
    pool, made = installation.pool, await added(admin)
    version = "SELECT xmin::text FROM hookseal.api_tokens"

    async def used() -> object:
        found = await admin.tokens.find(text_of(made))
        assert found is not None
        return (await admin.tokens.list(tenant_id="acme")).items[0].last_used_on

    assert (await admin.tokens.list(tenant_id="acme")).items[0].last_used_on is None
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.api_tokens FOR UPDATE")
        async with asyncio.timeout(ANSWER_SECONDS - 0.5):  # then a statement that waits gives up by itself
            assert await used() is None
    today = await pool.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    assert today == await used()
    first = await pool.fetchval(version)
    assert today == await used()
    assert first == await pool.fetchval(version)
    await rows.change(pool, "api_tokens", made.token_id, last_used_on=today - timedelta(days=1))
    assert today == await used()


async def test_tokens_are_listed_newest_first_by_tenant(admin: Admin) -> None:
    for number, tenant in enumerate(("acme", "*", "globex", "acme")):
        await added(admin, f"t{number}", tenant)

    async def names(tenant: str, limit: int) -> list[list[str]]:
        pages, cursor = [], None
        while True:
            page = await admin.tokens.list(tenant_id=tenant, limit=limit, cursor=cursor)
            pages.append([token.name for token in page.items])
            if (cursor := page.next_cursor) is None:
                return pages

    assert [["t3"], ["t0"]] == await names("acme", 1)
    assert [["t3", "t2", "t1"], ["t0"]] == await names("*", 3)
    assert [[]] == await names("nobody", 1)


async def test_a_malformed_token_is_refused_by_name(admin: Admin) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"name": name}, "name") for name in ("", "a/b", "-a", "a" * 64, "a b", 5)),
        *(({"tenant_id": tenant}, "tenant_id") for tenant in ("", "_system", "_operator", "a*", None)),
        *(({"scopes": scopes}, "scopes") for scopes in ([], ["all"], "read", [None], ["read", ""])),
        ({"expires_at": datetime(2026, 1, 31, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(1999, 12, 31, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(9000, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(2999, 1, 1)}, "expires_at"),  # noqa: DTZ001 -- the point of the test
        ({"expires_at": "90d"}, "expires_at"),
    ]
    ok: dict[str, Any] = {"name": "billing", "tenant_id": "acme", "actor": JANE}
    assert cases == [(given, await refused_field(admin.tokens.add(**ok | given))) for given, _ in cases]
    assert () == (await admin.tokens.list(tenant_id="*")).items


async def test_a_token_that_is_no_text_is_refused(admin: Admin) -> None:
    wrong: Any = b"whst_"
    assert "token" == await refused_field(admin.tokens.find(wrong))


async def test_a_token_is_found_without_a_master_key(admin: Admin, environ: dict[str, str]) -> None:
    """A process without keys can find and list tokens, and not add or revoke one."""
    made = await added(admin)
    bare = {name: value for name, value in environ.items() if not name.startswith("SECRETS")}
    async with Admin.connect(environ=bare) as reader:
        found = await reader.tokens.find(text_of(made))
        assert found is not None
        assert 1 == len((await reader.tokens.list(tenant_id="acme")).items)
        for call in (added(reader, "other"), reader.tokens.revoke(name="billing", actor=JANE)):
            with pytest.raises(HooksealError, match="no master key"):
                await call
