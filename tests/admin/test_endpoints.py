"""Endpoints from Python: their life, everything that can be set, and the audit of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import FrozenInstanceError, asdict
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
from standardwebhooks import Webhook

from hookseal import Admin
from hookseal.dispatcher.store import endpoint_health
from hookseal.errors import Conflict, Malformed, NotFound, Refused, with_advice
from hookseal.ground.ids import EndpointId, TenantId
from tests.admin.refusals import refused_field
from tests.doubles.client_certificates import Authority
from tests.doubles.logbook import audited
from tests.doubles.receivers import listening, status
from tests.doubles.sent import noted
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-18")

JANE = "jane@product.example"
URL = "https://receiver.example/hook"
NEW: dict[str, Any] = {"tenant_id": "acme", "url": URL, "event_types": ["invoice.*", "invoice.*"], "actor": JANE}


async def test_an_endpoint_is_switched_with_its_other_settings(admin: Admin, installation: Installation) -> None:
    """It is added disabled, and enabled or disabled with other changes, all in one transaction, each on record.

    One that is so already is not tried, and an error leaves everything as it was.
    """
    off: dict[str, Any] = {"enabled": False, "reason": "not yet"}
    added = await admin.endpoints.add(**NEW, **off)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    changing: dict[str, Any] = named | {"actor": JANE}
    found = await admin.endpoints.find(**named)
    assert (False, "not yet") == (found.enabled, found.disabled_reason)
    await installation.deliveries()

    updated = await admin.endpoints.update(**changing, rate=5, enabled=True)
    assert ("rate", "enabled") == updated.changed
    assert ({"rate": None, "enabled": False}, {"rate": 5, "enabled": True}) == (updated.before, updated.after)
    assert () == (await admin.endpoints.update(**changing, enabled=True)).changed
    again = await admin.endpoints.update(**changing, **off | {"reason": "it moves"})
    assert (("enabled",), {"enabled": False}) == (again.changed, again.after)
    before = await audited(installation.pool)
    await admin.endpoints.add(**NEW | {"url": "https://receiver.example/other"})
    with pytest.raises(Conflict):
        await admin.endpoints.update(**changing, url="https://receiver.example/other", enabled=True)
    assert not (await admin.endpoints.find(**named)).enabled
    actions = [row["action"].removeprefix("endpoint.") for row in await audited(installation.pool)]
    assert ["added", "disabled", "updated", "enabled", "disabled", "added"] == actions
    assert len(actions) == len(before) + 1


async def test_who_switches_an_endpoint_off_may_say_why(admin: Admin) -> None:
    """The reason is the same whatever switches it off without one; who switches it on, or nothing, gives none."""
    refused: tuple[tuple[dict[str, Any], str], ...] = (({"reason": "x"}, "reason"), ({"enabled": "no"}, "enabled"))
    for wrong, field in refused:
        assert field == await refused_field(admin.endpoints.add(**NEW, **wrong)), wrong
    added = await admin.endpoints.add(**NEW, enabled=False)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    changing: dict[str, Any] = named | {"actor": JANE}
    reasons = [(await admin.endpoints.find(**named)).disabled_reason]
    switches: list[Callable[..., Awaitable[object]]] = [
        partial(admin.endpoints.update, enabled=False),
        admin.endpoints.disable,
    ]
    for switch_off in switches:
        await admin.endpoints.enable(**changing)
        await switch_off(**changing)
        reasons.append((await admin.endpoints.find(**named)).disabled_reason)

    assert ["disabled by an operator"] * 3 == reasons
    assert "reason" == await refused_field(admin.endpoints.update(**changing, rate=5, reason="x"))


async def test_each_step_of_an_endpoint_is_audited(admin: Admin, installation: Installation) -> None:
    """An endpoint is added, found, changed, disabled, enabled and deleted, each on record with the caller's user."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    changing: dict[str, Any] = named | {"actor": JANE}
    [listed] = (await admin.endpoints.list(tenant_id="acme")).items
    assert (added.endpoint_id, URL, ("invoice.*",)) == (listed.endpoint_id, listed.url, listed.event_types)

    updated = await admin.endpoints.update(**changing, name="billing", timeout_ms=7000, expect_generation=1)
    assert ("name", "timeout_ms") == updated.changed
    assert () == (await admin.endpoints.update(**changing, name="billing")).changed
    disabled = await admin.endpoints.disable(**changing, reason="it moves")
    assert (True, False, "it moves") == (disabled.changed, disabled.enabled, disabled.disabled_reason)
    await installation.deliveries()
    waiting = await admin.endpoints.get(**named)
    assert ("billing", 7000, False) == (waiting.name, waiting.timeout_ms, waiting.enabled)
    assert 1 == waiting.waiting_deliveries
    assert [waiting.endpoint_id] == [
        each.endpoint_id for each in (await admin.endpoints.list(tenant_id="*", enabled=False)).items
    ]
    assert 1 == (await admin.endpoints.enable(**changing)).woken
    assert not (await admin.endpoints.enable(**changing)).changed
    assert 1 == (await admin.endpoints.delete(**changing)).cancelled
    with pytest.raises(NotFound) as caught:
        await admin.endpoints.get(**named)

    assert "endpoint_id" == caught.value.field
    done = [(row["action"], row["who"]) for row in await audited(installation.pool)]
    assert [(f"endpoint.{action}", JANE) for action in ("added", "updated", "disabled", "enabled", "deleted")] == done


async def test_every_setting_is_set_and_removed(admin: Admin) -> None:
    """Retries, headers and TLS are set and removed again; header values and keys are sealed, and never shown."""
    authority = Authority()
    client = authority.client("hookseal of acme")
    added = await admin.endpoints.add(
        **NEW,
        scheme="x-webhook",
        retry_schedule=(5, 300),
        rotate_every_days=30,
        headers={"X-Token": "canary-4f1d"},
        client_cert=client.certificate,
        client_key=client.key,
        ca=authority.pem,
        secret="a secret of our own",
    )
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    found = await admin.endpoints.get(**named)
    assert ((5, 300), 30, ("x-token",)) == (found.retry_schedule, found.rotate_every_days, found.header_names)
    assert found.tls is not None
    assert "hookseal of acme" in found.tls["client_certificate"]["subject"]
    assert b"a secret of our own" == (await admin.secrets.reveal(**named, actor=JANE)).secret.reveal()  # type: ignore[union-attr]
    assert "canary-4f1d" not in str(asdict(found)) + repr(added)

    await admin.endpoints.update(
        **named,
        actor=JANE,
        retry_schedule=None,
        rotate_every_days=None,
        headers={},
        client_cert=None,
        ca=None,
        lead="current",
        max_attempts=3,
    )
    found = await admin.endpoints.get(**named)
    assert (None, None, (), None, "current", 3) == (
        *(found.retry_schedule, found.rotate_every_days, found.header_names, found.tls, found.lead),
        found.attempts_allowed,
    )


async def test_what_the_product_keeps_is_shown_and_not_logged(admin: Admin, installation: Installation) -> None:
    """Uid, description and metadata are set, replaced and removed. The audit log, which nothing leaves, has the uid, of
    metadata the keys, and no text.
    """
    given: dict[str, Any] = {"uid": "crm-7", "description": "for\ncanary-1", "metadata": {"owner": "canary-2", "b": ""}}
    channels = ("b", "a")
    added = await admin.endpoints.add(**NEW, **given, channels=[*channels, "b"])
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    shown = await admin.endpoints.get(**named)
    [listed] = (await admin.endpoints.list(tenant_id="acme")).items
    for found in (shown, listed):
        assert given == {"uid": found.uid, "description": found.description, "metadata": found.metadata}
        assert (channels, False) == (found.channels, "canary" in repr(found))

    change: dict[str, Any] = {"uid": None, "description": "", "metadata": {"c": "canary-3"}, "channels": []}
    updated = await admin.endpoints.update(**named, actor=JANE, **change)
    assert tuple(change) == updated.changed
    shown = await admin.endpoints.get(**named)
    assert (None, "", {"c": "canary-3"}, ()) == (shown.uid, shown.description, shown.metadata, shown.channels)
    assert () == (await admin.endpoints.update(**named, actor=JANE, metadata={"c": "canary-3"})).changed

    before, changed = await audited(installation.pool)
    assert "canary" not in str((before, changed))
    assert ("crm-7", True, ["b", "owner"], ["b", "a"]) == tuple(
        before["after"][name] for name in ("uid", "has_description", "metadata_keys", "channels")
    )
    facts = {"uid": "crm-7", "has_description": True, "metadata_keys": ["b", "owner"], "channels": ["b", "a"]}
    assert facts | {"generation": 1} == changed["before"]
    assert {"uid": None, "has_description": False, "metadata_keys": ["c"], "channels": []} == changed["after"]


async def test_a_uid_is_of_one_endpoint_of_its_tenant(admin: Admin) -> None:
    """A second endpoint with the uid is a conflict; another tenant may have it, and after a deletion it is free."""
    first = await admin.endpoints.add(**NEW, uid="a")
    second = await admin.endpoints.add(**NEW | {"url": f"{URL}/2"}, uid="b")
    of: dict[str, Any] = {"tenant_id": "acme", "actor": JANE}
    for call in (
        lambda: admin.endpoints.add(**NEW | {"url": f"{URL}/3"}, uid="a"),
        lambda: admin.endpoints.update(**of, endpoint_id=second.endpoint_id, uid="a", name="x"),
    ):
        with pytest.raises(Conflict) as caught:
            await call()
        assert "uid" == caught.value.field
    assert (None, "b") == (
        *((found := await admin.endpoints.get(tenant_id="acme", endpoint_id=second.endpoint_id)).name, found.uid),
    )
    await admin.endpoints.add(**NEW | {"tenant_id": "globex"}, uid="a")
    await admin.endpoints.delete(**of, endpoint_id=first.endpoint_id)
    assert ("uid",) == (await admin.endpoints.update(**of, endpoint_id=second.endpoint_id, uid="a")).changed


@pytest.mark.req("SEC-08")
async def test_an_endpoint_is_found_by_its_id_or_its_uid(admin: Admin) -> None:
    """By one statement, as in a list. That of another tenant is not found, with the answer for one that is absent."""
    added = await admin.endpoints.add(**NEW, uid="crm-7")
    await admin.endpoints.add(**NEW | {"tenant_id": "globex"}, uid="globex-1")
    [listed] = (await admin.endpoints.list(tenant_id="acme")).items
    pool: Any = await admin.endpoints._session.source()
    sent = await noted(pool)
    by_id = await admin.endpoints.find(tenant_id="acme", endpoint_id=added.endpoint_id)
    by_uid = await admin.endpoints.find(tenant_id="acme", uid="crm-7")
    await asyncio.sleep(0)
    assert 2 == len(sent)
    assert listed == by_id == by_uid
    assert added.endpoint_id == (await admin.endpoints.get(tenant_id="acme", uid="crm-7")).endpoint_id

    answers = set()
    calls: tuple[Any, ...] = (admin.endpoints.find, admin.endpoints.get)
    for call, (tenant, uid) in product(calls, (("globex", "crm-7"), ("acme", "globex-1"), ("acme", "nobody"))):
        with pytest.raises(NotFound) as caught:
            await call(tenant_id=tenant, uid=uid)
        answers.add((caught.value.field, str(caught.value)))
    with pytest.raises(NotFound) as caught:
        await admin.endpoints.find(tenant_id="globex", endpoint_id=added.endpoint_id)
    assert [("endpoint_id", "uid")] == [(caught.value.field, field) for field, _ in answers]


async def test_a_list_is_read_in_both_orders_while_endpoints_are_added(admin: Admin) -> None:
    """Each endpoint that was there comes once. Those that are added meanwhile come at the newest end, if at all."""

    async def add() -> str:
        return (await admin.endpoints.add(**NEW, allow_same_url=True)).endpoint_id

    made = [await add() for _ in range(5)]
    later: list[str] = []
    for by, oldest_first in product(("cursor", "after"), (False, True)):
        seen: list[str] = []
        place: dict[str, Any] = {}
        more = True
        while more:
            page = await admin.endpoints.list(tenant_id="acme", limit=2, oldest_first=oldest_first, **place)
            seen += [each.endpoint_id for each in page.items]
            place = {by: page.next_cursor if by == "cursor" else seen[-1]}
            more = page.next_cursor is not None
            if len(later) < 8:
                later.append(await add())
        known = set(made) | set(later)
        assert len(seen) == len(set(seen))
        assert sorted(seen, reverse=not oldest_first) == seen
        assert set(made) <= set(seen) <= known
        if oldest_first:
            assert later == seen[5:][: len(later)]

    everything = [each.endpoint_id for each in (await admin.endpoints.list(tenant_id="acme")).items]
    for oldest_first in (False, True):
        of: dict[str, Any] = {"tenant_id": "acme", "limit": 2, "oldest_first": oldest_first}
        ids = everything[::-1] if oldest_first else everything
        backwards = await admin.endpoints.list(**of, before=ids[5])
        assert ids[3:5] == [each.endpoint_id for each in backwards.items]
        forwards = await admin.endpoints.list(**of, cursor=backwards.next_cursor)
        assert ids[5:7] == [each.endpoint_id for each in forwards.items]
        await add()
        assert ids[:1] == [each.endpoint_id for each in (await admin.endpoints.list(**of, before=ids[1])).items][-1:]
        everything = [each.endpoint_id for each in (await admin.endpoints.list(tenant_id="acme")).items]
    await admin.endpoints.delete(tenant_id="acme", endpoint_id=everything[3], actor=JANE)
    after = await admin.endpoints.list(tenant_id="*", limit=2, after=everything[3])
    assert everything[4:6] == [each.endpoint_id for each in after.items]


async def test_only_a_change_of_a_setting_moves_updated_at(admin: Admin, installation: Installation) -> None:
    """What workers note of an endpoint, and another secret, are no changes of its settings."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    changing = named | {"actor": JANE}
    key = (TenantId("acme"), EndpointId(added.endpoint_id))

    async def moves(*steps: Awaitable[object]) -> list[bool]:
        seen = [(await admin.endpoints.get(**named)).updated_at]
        for step in steps:
            await step
            seen.append((await admin.endpoints.get(**named)).updated_at)
        return [before < after for before, after in pairwise(seen)]

    found = await admin.endpoints.get(**named)
    assert found.created_at == found.updated_at
    assert [False] * 5 == await moves(
        endpoint_health.mark_failing(installation.pool, [key]),
        endpoint_health.mark_recovered(installation.pool, [key]),
        admin.secrets.rotate(**changing),
        admin.secrets.end_overlap(**changing),
        admin.endpoints.update(**changing, url=URL, metadata={}),
    )
    assert [True] * 8 == await moves(
        admin.endpoints.update(**changing, url=f"{URL}/2"),
        admin.endpoints.update(**changing, metadata={"a": "b"}),
        admin.endpoints.update(**changing, event_types=["a.b"]),
        admin.endpoints.update(**changing, channels=["a"]),
        admin.endpoints.update(**changing, headers={"x-a": "1"}),
        admin.endpoints.update(**changing, headers={"x-a": "2"}),
        admin.endpoints.disable(**changing, reason="x"),
        admin.endpoints.enable(**changing),
    )


async def test_some_headers_are_changed(admin: Admin) -> None:
    """A change of headers sets those with a value, removes those that are None, and leaves the others."""
    added = await admin.endpoints.add(**NEW, headers={"x-a": "1", "x-b": "2", "x-c": "3"})
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    changed = await admin.endpoints.update(**named, actor=JANE, change_headers={"X-B": "4", "X-C": None, "x-d": "5"})

    assert ("x-a", "x-b", "x-d") == (await admin.endpoints.get(**named)).header_names
    assert ("headers",) == changed.changed
    assert "4" not in str((changed.before, changed.after))


async def test_a_change_is_made_only_to_what_is_expected(admin: Admin) -> None:
    """Of two who have read the same, the second changes nothing, whichever field it is."""
    added = await admin.endpoints.add(**NEW, headers={"x-a": "1"})
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": JANE}
    seen = await admin.endpoints.find(tenant_id="acme", endpoint_id=added.endpoint_id)
    expected = {"url": seen.url, "description": seen.description, "event_types": seen.event_types, "headers": ("x-a",)}
    await admin.endpoints.update(**named, description="first", expect=expected)
    changes: tuple[dict[str, Any], ...] = ({"description": "b"}, {"name": "b"}, {"url": "https://b.example"})
    for change in changes:
        with pytest.raises(Conflict) as caught:
            await admin.endpoints.update(**named, **change, expect=expected)
        assert "expect" == caught.value.field
    assert "first" == (await admin.endpoints.find(tenant_id="acme", endpoint_id=added.endpoint_id)).description
    await admin.endpoints.update(**named, description="second", expect=expected | {"description": "first"})


async def test_a_refusal_names_its_field_and_changes_nothing(admin: Admin) -> None:
    """Each refusal has its class, with the argument in its field, and nothing is changed."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": JANE}
    other: dict[str, Any] = named | {"tenant_id": "globex"}
    for kind, field, call in (
        (Conflict, "url", lambda: admin.endpoints.add(**NEW)),
        (Refused, "url", lambda: admin.endpoints.add(**NEW | {"url": "https://10.0.0.1/"})),
        (Refused, "timeout_ms", lambda: admin.endpoints.update(**named, timeout_ms=20_000)),
        (Conflict, "expect_generation", lambda: admin.endpoints.update(**named, name="x", expect_generation=9)),
        (Conflict, "expect", lambda: admin.endpoints.update(**named, name="x", expect={"name": "y"})),
        (Malformed, "expect", lambda: admin.endpoints.update(**named, name="x", expect={"secret": "y"})),
        (NotFound, "headers", lambda: admin.endpoints.update(**named, ca=None)),
        (NotFound, "endpoint_id", lambda: admin.endpoints.update(**other, name="x")),
        (NotFound, "endpoint_id", lambda: admin.endpoints.disable(**other, reason="x")),
        (NotFound, "endpoint_id", lambda: admin.endpoints.delete(**other)),
        (NotFound, "endpoint_id", lambda: admin.endpoints.test(**other)),
        (NotFound, "endpoint_id", lambda: admin.secrets.rotate(**other)),
        (NotFound, "endpoint_id", lambda: admin.secrets.reveal(**other)),
    ):
        with pytest.raises(kind) as caught:
            await call()
        assert field == caught.value.field or kind is NotFound, caught.value
    assert 1 == (await admin.endpoints.get(tenant_id="acme", endpoint_id=added.endpoint_id)).generation


async def test_http_and_an_address_are_allowed_by_the_settings(
    installation: Installation, environ: dict[str, str]
) -> None:
    """A private address is allowed for the tenant that the setting names, and http only where it is allowed."""
    local = NEW | {"url": "http://127.0.0.1:8080/"}
    own = {"HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8@acme"}
    async with Admin.connect(environ=environ | own) as admin:
        await admin.endpoints.add(**local)
        with pytest.raises(Refused) as caught:
            await admin.endpoints.add(**local | {"tenant_id": "globex"})
    assert ("url", True) == (caught.value.field, "HOOKSEAL_EGRESS_ALLOW" in with_advice(caught.value))
    async with Admin.connect(environ=environ | own | {"HOOKSEAL_ALLOW_HTTP": "false"}) as admin:
        with pytest.raises(Refused) as caught:
            await admin.endpoints.add(**local)
    assert "url" == caught.value.field
    assert 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


MALFORMED: list[tuple[str, dict[str, Any], str | None]] = [
    ("add", {"tenant_id": "_system"}, "tenant_id"),
    ("add", {"tenant_id": None}, "tenant_id"),
    ("add", {"url": "ftp://a.example/"}, "url"),
    ("add", {"event_types": []}, "event_types"),
    ("add", {"event_types": ["a b"]}, "event_types"),
    ("add", {"event_types": [f"{number:064}" for number in range(257)]}, "event_types"),
    ("add", {"event_types": "invoice"}, "event_types"),
    ("add", {"actor": ""}, "actor"),
    ("add", {"actor": "x" * 129}, "actor"),
    ("add", {"actor": "a\nb"}, "actor"),
    ("add", {"actor": None}, "actor"),
    ("add", {"name": ""}, "name"),
    ("add", {"allow_same_url": "yes"}, "allow_same_url"),
    ("add", {"channels": "a"}, "channels"),
    ("add", {"channels": ["a b"]}, "channels"),
    ("add", {"channels": [None]}, "channels"),
    ("add", {"uid": ""}, "uid"),
    ("add", {"uid": 7}, "uid"),
    ("add", {"description": None}, "description"),
    ("add", {"description": "x" * 1025}, "description"),
    ("add", {"metadata": ["a"]}, "metadata"),
    ("add", {"metadata": {"a": 1}}, "metadata"),
    ("add", {"metadata": {1: "a"}}, "metadata"),
    ("add", {"metadata": {"": "a"}}, "metadata"),
    ("add", {"scheme": "github"}, "scheme"),
    ("add", {"algorithm": "rsa"}, "algorithm"),
    ("add", {"timeout_ms": 99}, "timeout_ms"),
    ("add", {"timeout_ms": 5000.5}, "timeout_ms"),
    ("add", {"max_attempts": "3"}, "max_attempts"),
    ("add", {"url": b"https://a.example/"}, "url"),
    ("add", {"retry_schedule": ["5s"]}, "retry_schedule"),
    ("add", {"retry_schedule": []}, "retry_schedule"),
    ("add", {"retry_schedule": [0]}, "retry_schedule"),
    ("add", {"retry_schedule": [5], "max_attempts": 3}, "retry_schedule"),
    ("add", {"rotate_every_days": 31}, "rotate_every_days"),
    ("add", {"headers": {"Host": "a"}}, "headers"),
    ("add", {"headers": {"A": "1", "a": "2"}}, "headers"),
    ("add", {"client_cert": "x"}, "client_cert"),
    ("add", {"client_cert": "x", "client_key": "y"}, "client_cert"),
    ("add", {"ca": "x"}, "ca"),
    ("add", {"secret": "short"}, "secret"),
    ("add", {"connection": object()}, "connection"),
    ("add", {"event_types": None}, "event_types"),
    ("add", {"event_types": 5}, "event_types"),
    ("add", {"event_types": {"a.b": 1}}, "event_types"),
    ("add", {"event_types": [5]}, "event_types"),
    ("add", {"retry_schedule": 5}, "retry_schedule"),
    ("add", {"retry_schedule": 0}, "retry_schedule"),
    ("add", {"retry_schedule": [None]}, "retry_schedule"),
    ("add", {"headers": []}, "headers"),
    ("add", {"headers": ["x-a"]}, "headers"),
    ("add", {"timeout_ms": None}, "timeout_ms"),
    ("add", {"max_attempts": None}, "max_attempts"),
    ("add", {"backoff_base_seconds": None}, "backoff_base_seconds"),
    ("add", {"backoff_cap_seconds": None}, "backoff_cap_seconds"),
    ("update", {}, None),
    ("update", {"event_types": None}, "event_types"),
    ("update", {"retry_schedule": 5}, "retry_schedule"),
    ("update", {"headers": None}, "headers"),
    ("update", {"headers": ["x-a"]}, "headers"),
    ("update", {"headers": {"a": "\n"}}, "headers"),
    ("update", {"change_headers": ["x-a"]}, "change_headers"),
    ("update", {"change_headers": {"a": "1", "A": None}}, "change_headers"),
    ("update", {"change_headers": {"Host": None}}, "change_headers"),
    ("update", {"change_headers": {"a": "1"}, "headers": {}}, "change_headers"),
    ("update", {"timeout_ms": None}, "timeout_ms"),
    ("update", {"max_attempts": None}, "max_attempts"),
    ("update", {"backoff_base_seconds": None}, "backoff_base_seconds"),
    ("update", {"backoff_cap_seconds": None}, "backoff_cap_seconds"),
    ("update", {"concurrency": "5"}, "concurrency"),
    ("update", {"lead": []}, "lead"),
    ("update", {"lead": None}, "lead"),
    ("update", {"name": None}, "name"),
    ("update", {"uid": "a b"}, "uid"),
    ("update", {"description": None}, "description"),
    ("update", {"metadata": None}, "metadata"),
    ("update", {"expect_generation": "1"}, "expect_generation"),
    ("update", {"expect": "url"}, "expect"),
    ("update", {"lead": "both"}, "lead"),
    ("update", {"client_key": "x"}, "client_cert"),
    ("disable", {"reason": ""}, "reason"),
    ("get", {"endpoint_id": "x"}, "endpoint_id"),
    ("get", {"uid": "x"}, "endpoint_id"),
    ("get", {"endpoint_id": None, "uid": "a b"}, "uid"),
    ("get", {"endpoint_id": None}, "endpoint_id"),
    ("list", {"after": "x"}, "after"),
    ("list", {"before": 5}, "before"),
    ("list", {"oldest_first": 1}, "oldest_first"),
    ("list", {"after": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394", "cursor": "x"}, "cursor"),
    ("list", {"enabled": "yes"}, "enabled"),
    ("list", {"enabled": 1}, "enabled"),
    ("list", {"limit": 0}, "limit"),
    ("list", {"limit": "5"}, "limit"),
    ("list", {"cursor": "!"}, "cursor"),
]


async def test_a_malformed_argument_is_named(admin: Admin) -> None:
    """A malformed argument is refused by its name."""
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"}
    whole: dict[str, Any] = {
        "add": NEW,
        "update": named | {"actor": JANE},
        "disable": named | {"actor": JANE},
        "get": named,
        "list": {"tenant_id": "acme"},
    }
    assert MALFORMED == [
        (method, given, await refused_field(getattr(admin.endpoints, method)(**(whole[method] | given))))
        for method, given, _ in MALFORMED
    ]


async def test_a_ping_is_signed_and_audited(admin: Admin, installation: Installation) -> None:
    """A ping is signed as a delivery is, its answer is the result, and it is on record."""
    async with listening(status(204)) as listener:
        added = await admin.endpoints.add(**NEW | {"url": listener.url})
        ping = await admin.endpoints.test(tenant_id="acme", endpoint_id=added.endpoint_id, actor=JANE)
    [raw] = listener.requests
    head, _, body = raw.decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.lower().splitlines()[1:])
    headers["webhook-signature"] = next(line for line in head.splitlines() if "v1," in line).split(": ", 1)[1]

    assert added.secret is not None
    Webhook(added.secret.reveal().decode()).verify(body, headers)
    assert (True, "delivered", 204, (added.secret_ref,)) == (ping.delivered, ping.outcome, ping.status, ping.signed_by)
    last = (await audited(installation.pool))[-1]
    assert ("endpoint.tested", JANE) == (last["action"], last["who"])
    gone = await admin.endpoints.test(tenant_id="acme", endpoint_id=added.endpoint_id, actor=JANE)
    assert (False, "connection", None) == (gone.delivered, gone.outcome, gone.status)


async def test_statistics_are_those_of_the_command(admin: Admin) -> None:
    """The statistics of the last hour and day are those of the command; another tenant has none."""
    added = await admin.endpoints.add(**NEW)
    [found] = (await admin.endpoints.stats(tenant_id="acme", endpoint_id=added.endpoint_id)).items
    assert (added.endpoint_id, 0, 0, None) == (
        *(found.endpoint_id, found.pending, found.last_day.attempts, found.last_hour.success_rate),
    )
    with pytest.raises(NotFound):
        await admin.endpoints.stats(tenant_id="globex", endpoint_id=added.endpoint_id)


async def test_results_are_frozen(admin: Admin) -> None:
    """A result is frozen, and so are the lists in it."""
    added = await admin.endpoints.add(**NEW)
    found = await admin.endpoints.get(tenant_id="acme", endpoint_id=added.endpoint_id)
    with pytest.raises(FrozenInstanceError):
        found.url = "https://elsewhere.example/"  # type: ignore[misc]

    assert isinstance(found.event_types, tuple)
