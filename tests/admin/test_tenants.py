"""Tenants: their ids and uids, the tenants that nobody added, and what ends with one that is deleted."""

import asyncio
import re
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import Tenant
from hookseal.dispatcher.store.publish import NewEvent, publish_json, publish_many, publish_raw
from hookseal.errors import Conflict, HooksealError, NotFound, Refused, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.tenants import MOST_ENDPOINTS
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

JANE = "jane@product.example"
LONG = "a" * 64
pytestmark = pytest.mark.req("DEL-18")
FAILS = """
CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '55P03'; END $$;
CREATE TRIGGER fail BEFORE UPDATE ON hookseal.tenants FOR EACH ROW EXECUTE FUNCTION public.fail()
"""


async def added(admin: Admin, **given: Any) -> Tenant:
    return await admin.tenants.add(**given, actor=JANE)


async def with_endpoint(admin: Admin, tenant: str, number: int = 1) -> str:
    url = f"https://receiver.example/{number}"
    made = await admin.endpoints.add(tenant_id=tenant, url=url, event_types=["*"], actor=JANE)
    return made.endpoint_id


async def test_a_tenant_is_found_by_its_id_and_uid(admin: Admin, installation: Installation) -> None:
    """A uid that can be an id is the id; for another one, and without a uid, the id is new."""
    named = await added(admin, uid="acme", name="Acme \u00e9", metadata={"plan": "pro", "\u00e9": ""})
    assert ("acme", "acme", "Acme \u00e9", {"plan": "pro", "\u00e9": ""}) == (
        named.tenant_id, named.uid, named.name, named.metadata,
    )  # fmt: skip
    assert named.created_at == named.updated_at
    for uid in (LONG, "-x", None):
        made = await added(admin, uid=uid)
        assert re.fullmatch(r"app_[0-9a-f]{32}", made.tenant_id)
        assert (uid, None, {}) == (made.uid, made.name, made.metadata)
        for known in {made.tenant_id, uid or made.tenant_id}:
            assert made == await admin.tenants.get(tenant_id=known)
    assert named == await admin.tenants.get(tenant_id="acme")
    assert ("globex", "globex") == ((both := await added(admin, tenant_id="globex", uid="globex")).tenant_id, both.uid)
    assert ("initech", LONG + "b") == (
        (one := await added(admin, tenant_id="initech", uid=LONG + "b")).tenant_id,
        one.uid,
    )
    with pytest.raises(NotFound):
        await admin.tenants.get(tenant_id="nobody")
    facts = {"uid": "acme", "name": "Acme \u00e9", "metadata": ["plan", "\u00e9"]}
    row = {"action": "tenant.added", "subject": "tenant:acme", "who": JANE, "before": None, "after": facts}
    assert [row] == await audited(installation.pool)


async def test_an_id_and_a_uid_are_taken_once(admin: Admin) -> None:
    """Also of concurrent ones, and an id by a tenant that is known from an endpoint."""
    await with_endpoint(admin, "globex")
    tried = await asyncio.gather(*(added(admin, uid="acme") for _ in range(4)), return_exceptions=True)
    assert 3 == sum(isinstance(each, Conflict) and each.field == "tenant_id" for each in tried)
    tried = await asyncio.gather(*(added(admin, uid=LONG) for _ in range(4)), return_exceptions=True)
    assert 3 == sum(isinstance(each, Conflict) and each.field == "uid" for each in tried)
    for given in ({"tenant_id": "acme"}, {"tenant_id": "globex"}, {"uid": "globex"}, {"tenant_id": "x", "uid": LONG}):
        with pytest.raises(Conflict):
            await added(admin, **given)


async def test_a_tenant_that_nobody_added_is_known_by_its_first_endpoint(
    admin: Admin, installation: Installation
) -> None:
    await with_endpoint(admin, "acme")
    await with_endpoint(admin, "acme", 2)
    await with_endpoint(admin, "_operator")
    [only] = (await admin.tenants.list()).items
    assert ("acme", None, None, {}) == (only.tenant_id, only.uid, only.name, only.metadata)
    assert only == await admin.tenants.get(tenant_id="acme")
    assert ["endpoint.added"] * 2 == [row["action"] for row in await audited(installation.pool)]


async def test_what_is_said_of_a_tenant_changes(admin: Admin, installation: Installation) -> None:
    """None removes, metadata is replaced, and what is not given stays. Without a difference nothing is written."""
    before = await added(admin, uid=LONG, name="Acme", metadata={"a": "1", "b": "2"})
    renamed = await admin.tenants.update(tenant_id=LONG, name="Acme Inc.", metadata={"b": "3"}, actor=JANE)
    assert (before.tenant_id, LONG, "Acme Inc.", {"b": "3"}, before.created_at) == (
        renamed.tenant_id, renamed.uid, renamed.name, renamed.metadata, renamed.created_at,
    )  # fmt: skip
    assert renamed.updated_at > before.updated_at
    same = await admin.tenants.update(tenant_id=renamed.tenant_id, name="Acme Inc.", actor=JANE)
    assert renamed == same == await admin.tenants.update(tenant_id=LONG, actor=JANE)
    bare = await admin.tenants.update(tenant_id=LONG, name=None, uid=None, metadata={}, actor=JANE)
    assert (None, None, {}) == (bare.uid, bare.name, bare.metadata)
    own = await admin.tenants.update(tenant_id=bare.tenant_id, uid=bare.tenant_id, actor=JANE)
    assert bare.tenant_id == own.uid
    rows_ = await audited(installation.pool, before.tenant_id)
    assert ["tenant.added", *["tenant.updated"] * 3] == [row["action"] for row in rows_]
    assert {"uid": LONG, "name": "Acme", "metadata": ["a", "b"]} == rows_[1]["before"]
    assert {"uid": LONG, "name": "Acme Inc.", "metadata": ["b"]} == rows_[1]["after"]


async def test_a_uid_never_means_another_tenant(admin: Admin) -> None:
    """A uid that could be the id of another tenant is refused, whether that tenant is there or not."""
    made = await added(admin)
    await added(admin, uid=LONG)
    for uid in ("acme", "globex"):
        with pytest.raises(Refused, match=f"must be the id of this one, {made.tenant_id}"):
            await admin.tenants.update(tenant_id=made.tenant_id, uid=uid, actor=JANE)
    with pytest.raises(Conflict, match="has this uid"):
        await admin.tenants.update(tenant_id=made.tenant_id, uid=LONG, actor=JANE)
    with pytest.raises(NotFound):
        await admin.tenants.update(tenant_id="acme", name="x", actor=JANE)


async def test_tenants_are_listed_in_both_orders(admin: Admin, installation: Installation) -> None:
    """From any tenant, also from one that is deleted; tenants of one moment are in the order of their ids."""
    for number in (2, 0, 1, 3):
        await added(admin, tenant_id=f"t{number}")
    await rows.change(installation.pool, "tenants", where="tenant_id IN ('t1', 't3')", created_at=rows.ago(days=1))

    async def pages(after: str | None = None, *, oldest_first: bool) -> list[list[str]]:
        found = []
        while True:
            page = await admin.tenants.list(limit=3, after=after, oldest_first=oldest_first)
            found.append([tenant.tenant_id for tenant in page.items])
            if (after := page.next_cursor) is None:
                return found

    assert [["t0", "t2", "t3"], ["t1"]] == await pages(oldest_first=False)
    assert [["t1", "t3", "t2"], ["t0"]] == await pages(oldest_first=True)
    await admin.tenants.delete(tenant_id="t3", actor=JANE)
    assert [["t1"]] == await pages("t3", oldest_first=False)
    assert [["t2", "t0"]] == await pages("t3", oldest_first=True)


async def test_a_tenant_is_deleted_with_what_acts_for_it(admin: Admin, installation: Installation) -> None:
    """Its endpoints and pending deliveries end, its tokens are revoked; its history, and others' tokens, stay."""
    for number in (1, 2):
        await with_endpoint(admin, "acme", number)
    await with_endpoint(admin, "globex")
    [first, *_] = await installation.deliveries()
    await rows.set_state(installation.pool, "delivered", first.delivery_id)
    tokens = [await admin.tokens.add(name=t, tenant_id=t, actor=JANE) for t in ("acme", "globex")]
    tokens.append(await admin.tokens.add(name="all", tenant_id="*", actor=JANE))
    deleted = await admin.tenants.delete(tenant_id="acme", actor=JANE)

    assert ("acme", 2, 1, 1) == (deleted.tenant_id, deleted.endpoints, deleted.cancelled, deleted.tokens)
    assert () == (await admin.endpoints.list(tenant_id="acme")).items
    assert ["cancelled", "delivered"] == sorted(
        delivery.state for delivery in (await admin.deliveries.list(tenant_id="acme")).items
    )
    found = [await admin.tokens.find(token.token.reveal().decode()) for token in tokens]
    assert [True, False, False] == [token is None for token in found]
    assert ["globex"] == [tenant.tenant_id for tenant in (await admin.tenants.list()).items]
    log = await audited(installation.pool)
    assert ["endpoint.deleted", "endpoint.deleted", "token.revoked", "tenant.deleted"] == [
        row["action"] for row in log[-4:]
    ]
    assert {"endpoints": 2, "cancelled_deliveries": 1, "revoked_tokens": 1} == log[-1]["after"]
    for call in (admin.tenants.get(tenant_id="acme"), admin.tenants.delete(tenant_id="acme", actor=JANE)):
        with pytest.raises(NotFound):
            await call


async def test_a_deleted_id_is_taken_while_its_history_is_kept(admin: Admin, installation: Installation) -> None:
    """Nobody sees the history of another one under an id that is used again. A uid that is no id is free at once."""
    made = await added(admin, uid=LONG, name="Acme")
    tenant = made.tenant_id
    await with_endpoint(admin, tenant)
    await installation.deliveries(tenant)
    assert tenant == (await admin.tenants.delete(tenant_id=LONG, actor=JANE)).tenant_id
    with pytest.raises(Conflict, match="was deleted") as caught:
        await with_endpoint(admin, tenant)
    assert "tenant_id" == caught.value.field
    assert tenant != (await added(admin, uid=LONG)).tenant_id
    pool = installation.pool
    for gone in ("DELETE FROM hookseal.deliveries", "DELETE FROM hookseal.events"):
        with pytest.raises(Conflict):
            await added(admin, tenant_id=tenant)
        await pool.execute(gone)
    again = await added(admin, tenant_id=tenant)
    assert (tenant, None, None) == (again.tenant_id, again.uid, again.name)
    assert again.created_at > made.created_at
    await with_endpoint(admin, tenant)


async def test_a_deleted_tenant_gets_no_event(admin: Admin, installation: Installation) -> None:
    """By each way of publishing: as if there had never been such a tenant, until one is added again."""
    await with_endpoint(admin, "acme")
    [first] = await installation.deliveries("acme")
    await admin.tenants.delete(tenant_id="acme", actor=JANE)
    event = NewEvent(tenant_id=TenantId("acme"), event_type="a", channels=("eu",))
    pool = installation.pool
    for call in (
        installation.published("acme"),
        publish_raw(pool, event, b"{}"),
        publish_json(pool, event, "1"),
        publish_many(pool, TenantId("acme"), ['{"event_type": "a", "data": 1}']),
    ):
        with pytest.raises(NotFound, match="the tenant is deleted") as caught:
            await call
        assert "tenant_id" == caught.value.field
    assert [first.delivery_id] == [each.delivery_id for each in (await admin.deliveries.list(tenant_id="acme")).items]
    for gone in ("DELETE FROM hookseal.deliveries", "DELETE FROM hookseal.events"):
        await pool.execute(gone)
    await added(admin, tenant_id="acme")
    await installation.published("acme")


async def test_a_tenant_with_many_endpoints_is_not_deleted(admin: Admin, installation: Installation) -> None:
    """Nothing of it is changed. One with as many as may be is deleted."""
    await rows.endpoints(installation.pool, MOST_ENDPOINTS + 1)
    with pytest.raises(Conflict, match=f"more than {MOST_ENDPOINTS} endpoints"):
        await admin.tenants.delete(tenant_id="acme", actor=JANE)
    assert MOST_ENDPOINTS + 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
    await rows.remove(
        installation.pool, "endpoints", await installation.pool.fetchval("SELECT min(id::text) FROM hookseal.endpoints")
    )
    assert MOST_ENDPOINTS == (await admin.tenants.delete(tenant_id="acme", actor=JANE)).endpoints
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_delete_that_fails_changes_nothing(admin: Admin, installation: Installation) -> None:
    await with_endpoint(admin, "acme")
    await installation.deliveries()
    await admin.tokens.add(name="t", tenant_id="acme", actor=JANE)
    await installation.pool.execute(FAILS)
    before = await audited(installation.pool)
    with pytest.raises(Unavailable):
        await admin.tenants.delete(tenant_id="acme", actor=JANE)
    assert before == await audited(installation.pool)
    assert "active" == (await admin.tokens.list(tenant_id="acme")).items[0].state
    assert "pending" == (await admin.deliveries.list(tenant_id="acme")).items[0].state
    assert "acme" == (await admin.tenants.get(tenant_id="acme")).tenant_id


async def test_no_endpoint_of_a_deleted_tenant_is_left(admin: Admin, installation: Installation) -> None:
    """Of an endpoint that is added and a tenant that is deleted at once, one sees the other."""
    for number in range(8):
        tenant = f"t{number}"
        await with_endpoint(admin, tenant)
        said = await asyncio.gather(
            with_endpoint(admin, tenant, 2), admin.tenants.delete(tenant_id=tenant, actor=JANE), return_exceptions=True
        )
        assert not isinstance(said[1], BaseException)
        assert (said[1].endpoints == 1) == isinstance(said[0], HooksealError), said
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_malformed_tenant_is_refused_by_name(admin: Admin) -> None:
    wrong: list[Any] = [[], {"a": 1}, {1: "a"}, {"a": "\udcff"}, {"a": "a" * 4_096}, {"a": None}]
    wrong += [{"\0": "a"}, {"a": "b\0"}]
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"tenant_id": tenant}, "tenant_id") for tenant in ("", "_system", "_operator", "*", "a" * 64, 5)),
        *(({"uid": uid}, "uid") for uid in ("", "_system", "_operator", "*", "a b", "a/b", "a" * 257, 5)),
        *(({"uid": uid}, "uid") for uid in (".", "..")),  # a client leaves them out of a path
        ({"tenant_id": "acme", "uid": "globex"}, "uid"),
        *(({"name": name}, "name") for name in ("", "a\n", "a" * 257, 5)),
        *(({"metadata": metadata}, "metadata") for metadata in wrong),
    ]
    assert cases == [(given, await refused_field(admin.tenants.add(**given, actor=JANE))) for given, _ in cases]
    lists: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"after": "nobody"}, "after"),
        ({"oldest_first": 1}, "oldest_first"),
    ]
    assert lists == [(given, await refused_field(admin.tenants.list(**given))) for given, _ in lists]
    assert () == (await admin.tenants.list()).items
