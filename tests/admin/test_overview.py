"""The overview: how much there is in the installation, with bounded reads."""

from dataclasses import asdict
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import TroubleName
from hookseal.dispatcher.store.event_queries import everywhere
from hookseal.dispatcher.store.overview import overview
from hookseal.errors import Malformed
from tests import rows
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-20")


async def test_the_overview_counts_each_kind(admin: Admin, installation: Installation) -> None:
    """What is deleted, released or has ended is not counted, and each count ends at a limit."""
    nothing = {"most": 10_000, "master_keys": {"active": 1}}
    assert nothing == {name: number for name, number in asdict((await admin.status()).overview).items() if number}
    pool = installation.pool
    one, disabled, held, released = await rows.endpoints(pool, 4)
    await rows.change(pool, "endpoints", one, first_failure_at=rows.NOW)
    await rows.change(pool, "endpoints", disabled, enabled=False)
    await rows.hold(pool, held)
    await rows.hold(pool, released, released_at=rows.NOW)
    await installation.endpoint("gone")
    await admin.tenants.delete(tenant_id="gone", actor="jane")
    for state in ("pending", "sending", "delivered", "dead_letter", "dead_letter", "failed", "cancelled"):
        await rows.delivery(pool, one, state=state)
    await rows.delivery(pool, one, next_attempt_at=rows.ahead(hours=1))
    await rows.wait_for(pool, "secret", await rows.delivery(pool, one))
    await rows.change(pool, "deliveries", where="state = 'pending' AND waiting_for IS NULL", rung_at=None)
    old, stopping = await rows.delivery(pool, one, state="dead_letter"), await rows.delivery(pool, held, state="failed")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", old, finished_at=rows.ago(days=2))
        await rows.change(connection, "deliveries", stopping, position=1)
        await rows.change(
            connection,
            "deliveries",
            where="state = 'pending' AND waiting_for IS NULL AND next_attempt_at <= now()",
            next_attempt_at=rows.ago(minutes=5),
        )
    await rows.change(pool, "endpoints", released, rotate_every_days=30, secret_updated_at=rows.ago(days=31))
    await rows.change(pool, "endpoints", one, rotate_every_days=30, secret_updated_at=rows.ago(days=29))
    await rows.worker(pool)
    await rows.worker(pool, "w-2", beaten_at=rows.ago(minutes=5))
    await admin.replays.start(tenant_id="acme", actor="jane", states=["failed"])

    expected = {
        "tenants": 1,
        "endpoints": 4,
        "disabled_endpoints": 1,
        "failing_endpoints": 1,
        "held_endpoints": 1,
        "stopped_endpoints": 1,
        "pending": 3,
        "due": 1,
        "not_due": 1,
        "waiting": 1,
        "waiting_for": {"secret": 1},
        "sending": 1,
        "dead_letters": 3,
        "dead_letters_of_day": 2,
        "failed": 2,
        "running_replays": 1,
        "rotations_due": 1,
        "master_keys": {"active": 1},
        "live_workers": 1,
        "most": 10_000,
    }
    found = asdict((await admin.status()).overview)
    assert 300 <= found.pop("oldest_due_seconds") < 400
    assert expected == found
    bounded = await overview(pool, most=1)
    assert 0 == bounded.pop("dead_letters_of_day")  # of the newest one
    assert {1} == {number for name, number in bounded.items() if name in expected and isinstance(number, int)}


async def test_an_id_is_found_in_every_tenant(admin: Admin, installation: Installation) -> None:
    """By the webhook-id a delivery, by its id or correlation id an event, by its id or uid a tenant; nothing else."""
    pool = installation.pool
    uid = "customer." * 8  # longer than an id may be
    await admin.tenants.add(tenant_id="globex", uid=uid, actor="jane")
    endpoint = await rows.endpoint(pool)
    await rows.endpoint(pool, "globex")
    event = await rows.event(pool, id="evt.1", correlation_id="order:7")
    await rows.event(pool, "globex", id="evt.1")
    await rows.event(pool, "globex", id="evt.2", correlation_id="order:7")
    await rows.event(pool, "silent", id="evt.1")  # it has never had an endpoint, so nothing was sent for it
    delivery = await rows.delivery(pool, endpoint, event)

    async def found(identifier: str) -> tuple[str | None, str | None, set[tuple[str, str]]]:
        result = await admin.find(identifier=identifier)
        assert result.complete
        return (
            None if result.tenant is None else result.tenant.tenant_id,
            None if result.delivery is None else result.delivery.delivery_id,
            {(each.tenant_id, each.event_id) for each in result.events},
        )

    assert (None, delivery, set()) == await found(delivery)
    assert (None, None, {("acme", "evt.1"), ("globex", "evt.1")}) == await found("evt.1")
    assert (None, None, {("acme", "evt.1"), ("globex", "evt.2")}) == await found("order:7")
    assert ("globex", None, set()) == await found("globex") == await found(uid)
    assert (None, None, set()) == await found("00000000-0000-7000-8000-000000000000") == await found("é".encode().hex())
    for wrong in ("", "a b", "é", "x" * 257):
        with pytest.raises(Malformed):
            await admin.find(identifier=wrong)


async def test_what_was_not_searched_is_said(installation: Installation) -> None:
    """With more tenants than are looked at, and with as many events as are returned, there may be more."""
    for tenant in ("acme", "globex"):
        await rows.endpoint(installation.pool, tenant)
        await rows.event(installation.pool, tenant, id="e")

    assert ([1, False], [2, True], [1, False]) == (
        *(
            [len(events), are_all]
            for events, are_all in [
                await everywhere(installation.pool, "e", tenants=1),
                await everywhere(installation.pool, "e", tenants=2),
                await everywhere(installation.pool, "e", most=1),
            ]
        ),
    )


async def test_endpoints_are_listed_by_what_is_wrong(admin: Admin, installation: Installation) -> None:
    """Of one tenant or all, page by page; a disabled one only if it is asked for, whatever else is true of it."""
    pool = installation.pool
    failing, held, stopped, due, healthy = await rows.endpoints(pool, 5)
    disabled, other = await rows.endpoint(pool, enabled=False), await rows.endpoint(pool, "globex")
    for endpoint in (failing, disabled, other):
        await rows.change(pool, "endpoints", endpoint, first_failure_at=rows.NOW)
    await rows.hold(pool, held)
    stopping = await rows.delivery(pool, stopped, state="dead_letter")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", stopping, position=1)
    await rows.change(pool, "endpoints", due, rotate_every_days=1, secret_updated_at=rows.ago(days=2))
    await rows.change(pool, "endpoints", healthy, rotate_every_days=9, secret_updated_at=rows.ago(days=2))

    async def listed(*states: TroubleName, tenant: str = "*", **more: Any) -> set[str]:
        page = await admin.endpoints.list(tenant_id=tenant, states=states, **more)
        return {each.endpoint_id for each in page.items}

    assert {failing, other} == await listed("failing")
    assert {failing} == await listed("failing", tenant="acme")
    assert ({held}, {stopped}, {due}) == (await listed("held"), await listed("stopped"), await listed("rotation_due"))
    assert {disabled} == await listed("disabled")
    assert {failing, other, disabled} == await listed("failing", "disabled")
    first = await admin.endpoints.list(tenant_id="*", states=["failing", "held"], limit=2)
    second = await admin.endpoints.list(tenant_id="*", states=["failing", "held"], limit=2, cursor=first.next_cursor)
    assert [other, held, failing] == [each.endpoint_id for each in (*first.items, *second.items)]
    assert second.next_cursor is None
    wrongs: list[dict[str, Any]] = [{"states": []}, {"states": ["healthy"]}]
    for wrong in (*wrongs, *({"states": ["held"], **more} for more in CANNOT)):
        with pytest.raises(Malformed):
            await admin.endpoints.list(tenant_id="*", **wrong)


CANNOT: tuple[dict[str, Any], ...] = (
    {"enabled": True},
    {"oldest_first": True},
    {"before": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"},
)
