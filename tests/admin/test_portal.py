"""Tokens of portals: a customer is let in for a while, by a token or by a link that works once."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hookseal import Admin
from hookseal.admin import PortalAccess, PortalSession
from hookseal.dispatcher.store import tokens
from hookseal.errors import ConfigError, HooksealError, NotFound
from hookseal.operations.tokens import exchange_code
from hookseal.postgres.pool import Pool
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.sent import noted
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

JANE = "jane@product.example"
BACK = "https://product.example/settings?tab=webhooks#top"
_WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
"""
pytestmark = [pytest.mark.req("API-03"), pytest.mark.req("OPS-10")]


async def added(admin: Admin, tenant: str = "acme", **more: Any) -> PortalAccess:
    return await admin.portal.add(tenant_id=tenant, actor=JANE, **more)


def token_of(made: PortalAccess | PortalSession) -> str:
    return made.token.reveal().decode()


def code_of(made: PortalAccess) -> str:
    return made.code.reveal().decode()


async def may_be_used(admin: Admin, *made: PortalAccess | PortalSession) -> list[bool]:
    """Return of each whether its token is found."""
    return [await admin.tokens.find(token_of(each)) is not None for each in made]


async def test_an_access_is_a_token_of_one_tenant_for_an_hour(admin: Admin, installation: Installation) -> None:
    """It may read, manage and operate. The audit log has its user and its session."""
    made = await added(admin, user="jane doe", session_id="s-1")
    assert timedelta(hours=1) == made.expires_at - made.created_at
    assert ("acme", ("read", "manage", "operate"), "jane doe", "s-1", False, None) == (
        made.tenant_id, made.scopes, made.user, made.session_id, made.tenant_is_known, made.url
    )  # fmt: skip
    found = await admin.tokens.find(token_of(made))
    assert found is not None
    assert (made.token_id, made.name, "acme", made.scopes, made.expires_at, True, "jane doe", "s-1") == (
        found.token_id, found.name, found.tenant_id, found.scopes, found.expires_at, found.portal, found.user,
        found.session_id,
    )  # fmt: skip
    assert f"portal-{made.token_id.replace('-', '')}" == made.name
    facts = {
        "token_id": made.token_id,
        "tenant_id": "acme",
        "scopes": ["read", "manage", "operate"],
        "expires_at": made.expires_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "user": "jane doe",
        "session_id": "s-1",
        "generation": 1,
    }
    assert [
        {"action": "portal.added", "subject": f"token:{made.name}", "who": JANE, "before": None, "after": facts}
    ] == await audited(installation.pool)


async def test_one_of_every_tenant_lets_an_operator_in(admin: Admin, installation: Installation) -> None:
    """With the scopes read and operate and no other, which the table holds to, too; the installation has the rows."""
    made = await added(admin, "*", scopes=["read", "operate"], user="ole")
    session = await admin.portal.exchange(code=code_of(made))
    assert ("*", ("read", "operate"), "ole") == (session.tenant_id, session.scopes, session.user)
    assert ["portal.opened", "portal.code_spent", "portal.added"] == [
        row.action for row in (await admin.audit.list(tenant_id="_system", limit=3)).items
    ]
    for more in ("manage", "reveal", "publish"):
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.change(installation.pool, "api_tokens", made.token_id, scopes=["read", more])


async def test_it_lasts_as_long_as_was_asked_and_allowed(admin: Admin) -> None:
    week = await added(admin, expiry_seconds=604_800)
    assert timedelta(days=7) == week.expires_at - week.created_at
    end = week.created_at + timedelta(minutes=5)
    assert end == (await added(admin, not_after=end)).expires_at
    minute = await added(admin, expiry_seconds=60, not_after=end)
    assert timedelta(minutes=1) == minute.expires_at - minute.created_at
    assert "not_after" == await refused_field(added(admin, not_after=week.created_at - timedelta(seconds=1)))


async def test_a_code_makes_one_session(admin: Admin, installation: Installation) -> None:
    """Of two who use it at once one gets in. The session may do what the token of the code may, and ends with it."""
    made = await added(admin, user="jane", session_id="s-1", scopes=["reveal", "read"], refresh_url=BACK)
    tried = await asyncio.gather(*(admin.portal.exchange(code=code_of(made)) for _ in range(4)), return_exceptions=True)
    [session] = [each for each in tried if isinstance(each, PortalSession)]
    assert [("code", NotFound)] * 3 == [(each.field, type(each)) for each in tried if isinstance(each, HooksealError)]
    assert ("acme", ("read", "reveal"), "jane", "s-1", made.expires_at, BACK) == (
        session.tenant_id, session.scopes, session.user, session.session_id, session.expires_at, session.refresh_url
    )  # fmt: skip
    assert [True, True] == await may_be_used(admin, made, session)
    assert token_of(made) != token_of(session)
    opened = (await audited(installation.pool))[-1]
    assert ("portal.opened", f"token:{session.name}", f"token:{made.name}/jane", session.token_id) == (
        opened["action"], opened["subject"], opened["who"], opened["after"]["token_id"]
    )  # fmt: skip


async def test_a_code_ends_after_ten_minutes_and_with_its_token(admin: Admin, installation: Installation) -> None:
    """The address at which the product lets the user in again is known afterwards, too."""
    late, revoked, expired, used = [await added(admin, refresh_url=BACK) for _ in range(4)]
    session = await admin.portal.exchange(code=code_of(used))
    await installation.change_token(late.token_id, created_at=rows.ago(minutes=10, seconds=1))
    await installation.change_token(expired.token_id, expires_at=rows.ago(seconds=1))
    await admin.tokens.revoke(name=revoked.name, actor=JANE)
    for unusable in (late, revoked, expired, used):
        with pytest.raises(NotFound, match="the code was used, or has expired"):
            await admin.portal.exchange(code=code_of(unusable))
        assert BACK == await admin.portal.refresh_url(code=code_of(unusable))
    for text in ("", "whsc_", "whsc_" + "A" * 43, token_of(late), token_of(session), "\0", "é", "\udcff"):
        with pytest.raises(NotFound, match="the code was used, or has expired"):
            await admin.portal.exchange(code=text)
    assert [BACK, BACK] == [await admin.portal.refresh_url(code=token_of(each)) for each in (late, session)]
    usual = await admin.tokens.add(name="usual", tenant_id="acme", actor=JANE)
    without = await added(admin)
    for text in (usual.token.reveal().decode(), code_of(without), "whsc_", ""):
        assert await admin.portal.refresh_url(code=text) is None


async def test_a_code_is_good_for_ten_minutes(admin: Admin, installation: Installation) -> None:
    made = await added(admin)
    await installation.change_token(made.token_id, created_at=rows.ago(minutes=9, seconds=50))
    assert made.expires_at == (await admin.portal.exchange(code=code_of(made))).expires_at


async def test_only_digests_are_stored_and_no_repr_shows_a_text(
    admin: Admin, installation: Installation, environ: dict[str, str]
) -> None:
    """Neither the token nor the code is in any table, the audit log with them."""
    async with Admin.connect(environ=environ | {"HOOKSEAL_PORTAL_URL": "https://a.example/portal/"}) as of_pages:
        made = await added(of_pages)
        session = await of_pages.portal.exchange(code=code_of(made))
    assert made.url is not None
    assert f"https://a.example/portal/login?code={code_of(made)}" == made.url.reveal().decode()
    assert ("whst_", "whsc_", "whst_") == tuple(text[:5] for text in (token_of(made), code_of(made), token_of(session)))
    tables = await installation.pool.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'hookseal'")
    stored = "".join(
        [
            str(await installation.pool.fetchval(f"SELECT string_agg(t::text, '') FROM hookseal.{row[0]} AS t"))  # noqa: S608
            for row in tables
        ]
    )
    for text in (token_of(made), code_of(made), token_of(session)):
        assert hashlib.sha256(text.encode()).hexdigest() in stored
        assert text[5:] not in stored + repr(made) + repr(session)


async def test_all_portals_of_a_tenant_end(admin: Admin, installation: Installation) -> None:
    """With their sessions and codes; other tokens of it, and other tenants, stay."""
    one, two, theirs = await added(admin), await added(admin, session_id="s"), await added(admin, "globex")
    session = await admin.portal.exchange(code=code_of(one))
    usual = await admin.tokens.add(name="usual", tenant_id="acme", actor=JANE)
    before = len(await audited(installation.pool))
    ended = await admin.portal.expire_all(tenant_id="acme", actor=JANE)
    again = await admin.portal.expire_all(tenant_id="acme", actor=JANE)

    assert [("acme", 3), ("acme", 0)] == [(each.tenant_id, each.tokens) for each in (ended, again)]
    assert [False, False, False, True] == await may_be_used(admin, one, two, session, theirs)
    assert await admin.tokens.find(usual.token.reveal().decode()) is not None
    with pytest.raises(NotFound):
        await admin.portal.exchange(code=code_of(two))
    assert ["revoked"] * 3 == [each.state for each in (await admin.tokens.list(tenant_id="acme", portal=True)).items]
    *each_end, row = (await audited(installation.pool))[before:]
    assert {f"token:{each.name}" for each in (one, two, session)} == {end["subject"] for end in each_end}
    assert ("portal.expired", "tenant:acme", JANE, {"tokens": 3, "seconds": 0, "session_ids": []}) == (
        row["action"], row["subject"], row["who"], row["after"]
    )  # fmt: skip


async def test_the_portals_of_some_sessions_end(admin: Admin) -> None:
    made = [await added(admin, session_id=session) for session in ("a", "a", "b", None)]
    made_of_code = await admin.portal.exchange(code=code_of(made[0]))
    ended = await admin.portal.expire_all(tenant_id="acme", session_ids=["a", "c"], actor=JANE)

    assert 3 == ended.tokens
    assert [False, False, True, True, False] == await may_be_used(admin, *made, made_of_code)


async def test_the_portals_of_operators_end_together(admin: Admin) -> None:
    """Those of the tenants stay. The log of the installation has it."""
    made = [await added(admin, "*", scopes=["read"]) for _ in range(2)]
    theirs = await added(admin)
    ended = await admin.portal.expire_all(tenant_id="*", actor=JANE)

    assert ("*", 2) == (ended.tenant_id, ended.tokens)
    assert [False, False, True] == await may_be_used(admin, *made, theirs)
    [row] = (await admin.audit.list(tenant_id="_system", limit=1)).items
    assert ("portal.expired", "tenant:*") == (row.action, row.subject)


async def test_a_session_ends_with_the_token_whose_code_made_it(admin: Admin, installation: Installation) -> None:
    """It alone, and the audit log says that there was one. A session that ends leaves the token."""
    made, other = await added(admin), await added(admin)
    session, others = [await admin.portal.exchange(code=code_of(each)) for each in (made, other)]
    await admin.tokens.revoke(name=made.name, actor=JANE)
    assert [False, False, True, True] == await may_be_used(admin, made, session, other, others)
    assert {"sessions": 1, "generation": 3} == (await audited(installation.pool))[-1]["after"]

    await admin.tokens.revoke(name=others.name, actor=JANE)
    assert [True, False] == await may_be_used(admin, other, others)
    assert {"generation": 2} == (await audited(installation.pool))[-1]["after"]


async def test_wrong_codes_cost_one_look_up_together(admin: Admin) -> None:
    """Anybody may send one. What has not the form of a code costs none."""
    made = await added(admin, refresh_url=BACK)
    pool: Any = await admin.tokens._session.source()
    sent = await noted(pool)
    wrong = [f"whsc_{number:043}" for number in range(50)]
    asked = [admin.portal.exchange(code=code) for code in (*wrong, "", "whsc_", "x" * 100_000, f"{wrong[0]}\n")]
    *tried, back = await asyncio.gather(*asked, admin.portal.refresh_url(code=code_of(made)), return_exceptions=True)
    for _ in range(3):  # turns of the loop, until asyncpg has reported it
        await asyncio.sleep(0)

    assert {NotFound} == {type(each) for each in tried}
    assert BACK == back
    assert 1 == len(sent)


async def test_portals_may_end_later(admin: Admin) -> None:
    """What ends before that time stays as it is."""
    soon, later = await added(admin, expiry_seconds=60), await added(admin)
    assert 1 == (await admin.portal.expire_all(tenant_id="acme", after_seconds=600, actor=JANE)).tokens
    assert [True, True] == await may_be_used(admin, soon, later)
    [of_later, of_soon] = (await admin.tokens.list(tenant_id="acme", portal=True)).items
    assert soon.expires_at == of_soon.expires_at
    assert of_later.expires_at is not None
    assert timedelta(minutes=9) < of_later.expires_at - later.created_at < timedelta(minutes=11)


@pytest.mark.parametrize("ends", ["portals", "tenant", "token"])
async def test_a_session_that_begins_meanwhile_ends_with_the_others(
    ends: str, admin: Admin, installation: Installation
) -> None:
    """It is being made of a code when they are ended: nobody sees it yet."""
    await admin.tenants.add(tenant_id="acme", actor=JANE)
    made, text = await added(admin), tokens.drawn(os.urandom)
    async with installation.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        code = tokens.digest(made.code.reveal())
        await exchange_code(installation.operator(other), code=code, token=tokens.digest(text))
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "portals": lambda: admin.portal.expire_all(tenant_id="acme", actor=JANE),
            "tenant": lambda: admin.tenants.delete(tenant_id="acme", actor=JANE),
            "token": lambda: admin.tokens.revoke(name=made.name, actor=JANE),
        }
        ending = asyncio.ensure_future(calls[ends]())
        await eventually(lambda: _waits(installation.pool))
        await transaction.commit()
        await ending

    assert [False] == await may_be_used(admin, made)
    assert await admin.tokens.find(text.decode()) is None


async def _waits(pool: Pool) -> bool:
    return bool(await pool.fetchval(_WAITS))


async def test_a_token_of_a_portal_is_listed_and_revoked_as_others(admin: Admin) -> None:
    """In a list of its own, for each visit makes one."""
    made = await added(admin)
    await admin.tokens.add(name="usual", tenant_id="acme", actor=JANE)
    assert [["usual"], [made.name]] == [
        [each.name for each in (await admin.tokens.list(tenant_id="acme", portal=portal)).items]
        for portal in (False, True)
    ]
    assert "revoked" == (await admin.tokens.revoke(name=made.name, actor=JANE)).state
    assert [False] == await may_be_used(admin, made)


async def test_a_malformed_access_is_refused_by_name(admin: Admin) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"tenant_id": tenant}, "tenant_id") for tenant in ("", "_operator", "_system", "a b", None)),
        ({"tenant_id": "*"}, "scopes"),
        *(({"tenant_id": "*", "scopes": ["read", more]}, "scopes") for more in ("manage", "reveal", "publish")),
        *(({"scopes": scopes}, "scopes") for scopes in ([], ["manage"], ["all"], "read")),
        *(({"expiry_seconds": value}, "expiry_seconds") for value in (59, 604_801, 0, -1, True, "3600", 60.0)),
        *(({"user": user}, "user") for user in ("", " a", "é", "a" * 65, "a\nb", 5)),
        *(({"session_id": each}, "session_id") for each in ("", "a b", "a" * 129, 5)),
        *(
            ({"refresh_url": url}, "refresh_url")
            for url in (
                *("", "product.example", "javascript:alert(1)", "//product.example", "ftp://a.example", 5),
                *("https://user:pw@a.example", "https://a.example/ b", "https://a.example/#é", "https://a.example/\n"),
                *("https://a.example/" + "a" * 2_048, "https://a.example/#" + "a" * 2_048, "https://"),
            )
        ),
    ]
    ok: dict[str, Any] = {"tenant_id": "acme", "actor": JANE}
    assert cases == [(given, await refused_field(admin.portal.add(**ok | given))) for given, _ in cases]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tenant_id": "_operator"}, "tenant_id"),
        ({"session_ids": "abc"}, "session_ids"),
        ({"session_ids": ""}, "session_ids"),
        ({"session_ids": ["a b"]}, "session_ids"),
        ({"session_ids": [f"s{number}" for number in range(251)]}, "session_ids"),
        ({"session_ids": 5}, "session_ids"),
        ({"session_ids": None}, "session_ids"),
        ({"after_seconds": -1}, "after_seconds"),
        ({"after_seconds": 604_801}, "after_seconds"),
    ]
    assert wrong == [(given, await refused_field(admin.portal.expire_all(**ok | given))) for given, _ in wrong]
    no_text: Any = 5
    assert ["code"] * 2 == [
        await refused_field(call)
        for call in (admin.portal.exchange(code=no_text), admin.portal.refresh_url(code=no_text))
    ]
    assert () == (await admin.tokens.list(tenant_id="*", portal=True)).items


async def test_the_way_back_is_encrypted_in_production(
    admin: Admin, installation: Installation, environ: dict[str, str]
) -> None:
    local = "http://127.0.0.1:3000/settings"
    assert local == await admin.portal.refresh_url(code=code_of(await added(admin, refresh_url=local)))
    names = ("DATABASE_URL", "SECRETS_PROVIDER", "SECRETS_MASTER_KEY")
    async with Admin.connect(environ={name: environ[name] for name in names}) as production:
        assert "refresh_url" == await refused_field(added(production, refresh_url=local))
        assert "refresh_url" == await refused_field(added(production, refresh_url=local.replace("http", "HTTP")))
        await added(production, refresh_url=BACK)


async def test_without_a_master_key_nobody_is_let_in(admin: Admin, environ: dict[str, str]) -> None:
    """Who is in stays in, and the way back is known."""
    made = await added(admin, refresh_url=BACK)
    async with Admin.connect(environ={"DATABASE_URL": environ["DATABASE_URL"]}) as reader:
        assert [True] == await may_be_used(reader, made)
        assert BACK == await reader.portal.refresh_url(code=code_of(made))
        for call in (
            added(reader),
            reader.portal.exchange(code=code_of(made)),
            reader.portal.expire_all(tenant_id="acme", actor=JANE),
        ):
            with pytest.raises(ConfigError, match="no master key"):
                await call
    assert (await admin.portal.exchange(code=code_of(made))).tenant_id == "acme"


async def test_the_database_has_no_portal_of_every_tenant_or_for_longer(
    admin: Admin, installation: Installation
) -> None:
    """Also a login that may write tokens can make none."""
    made = await added(admin)
    changes: list[dict[str, Any]] = [
        {"tenant_id": "*"},
        {"expires_at": None},
        {"expires_at": rows.ahead(days=7, minutes=1)},
        {"portal": False},
    ]
    for change in changes:
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.change(installation.pool, "api_tokens", made.token_id, **change)
