"""Enabling releases held deliveries, disabling holds new ones, and neither is done twice."""

import pytest

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import Disabled, Enabled, disable_endpoint, enable_endpoint
from tests.doubles.logbook import audited
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

TENANT = TenantId("acme")


async def enabled(installation: Installation, endpoint: EndpointId, *, tenant: TenantId = TENANT) -> Enabled:
    return await installation.act(enable_endpoint, tenant, endpoint, own_drain_seconds=25)


async def disabled(installation: Installation, endpoint: EndpointId, reason: str = "moves on Sunday") -> Disabled:
    return await installation.act(disable_endpoint, TENANT, endpoint, reason=reason)


@pytest.mark.req("OPS-10")
async def test_disabling_holds_new_deliveries(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    (ring,) = await installation.deliveries()

    assert Disabled(changed=True, reason="moves on Sunday") == await disabled(installation, endpoint)

    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    assert claim.target is not None
    assert not claim.target.enabled
    [later] = await installation.deliveries()
    assert "endpoint_disabled" == (await installation.delivery(later))["waiting_for"]
    row = await installation.pool.fetchrow("SELECT disabled_reason, disabled_at, generation FROM hookseal.endpoints")
    assert row is not None
    assert ("moves on Sunday", True, 1) == (row[0], row["disabled_at"] is not None, row["generation"])
    *_, entry = await audited(installation.pool)
    assert {
        "action": "endpoint.disabled",
        "subject": f"endpoint:{endpoint}",
        "who": "ada@desk",
        "before": {"enabled": True, "disabled_reason": None},
        "after": {"enabled": False, "disabled_reason": "moves on Sunday"},
    } == entry


@pytest.mark.req("OPS-10")
async def test_enabling_releases_held_deliveries(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    waiting, late = [(await installation.deliveries())[0] for _ in range(2)]
    await disabled(installation, endpoint)
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    claim = await ledger.claim(waiting)
    assert claim is not None
    await ledger.release(claim, Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=900.0, reason="disabled"))
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET rung_at = now(), next_attempt_at = now() + interval '1 hour'"
    )

    assert Enabled(changed=True, woken=1, probed=False) == await enabled(installation, endpoint)
    await installation.settle()

    woken, other = await installation.delivery(waiting), await installation.delivery(late)
    assert ("pending", None) == (woken["state"], woken["rung_at"])
    assert await ledger.claim(waiting) is not None
    assert other["rung_at"] is not None
    assert await ledger.claim(late) is None, "it waits for its own retry, not for the endpoint"
    row = await installation.pool.fetchrow("SELECT enabled, disabled_reason, disabled_at FROM hookseal.endpoints")
    assert row is not None
    assert (True, None, None) == tuple(row)
    *_, entry = await audited(installation.pool)
    assert {
        "action": "endpoint.enabled",
        "subject": f"endpoint:{endpoint}",
        "who": "ada@desk",
        "before": {"enabled": False, "disabled_reason": "moves on Sunday"},
        "after": {"enabled": True, "disabled_reason": None},
    } == entry


@pytest.mark.req("DEL-17")
async def test_enabling_counts_what_waits_in_line(installation: Installation) -> None:
    """Of the deliveries of an ordered endpoint only the head is released: the others wait in line behind it.

    If the head is not held, as a dead letter is not, nothing is released.
    """
    ordered = NewEndpoint(
        tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",), settings={"ordered": True}
    )
    endpoint = (await installation.add(ordered)).pointer.endpoint_id
    await disabled(installation, endpoint)
    [head, _, _] = [(await installation.deliveries())[0].delivery_id for _ in range(3)]
    waiting = Enabled(changed=True, woken=1, in_line=2, line_head=head, probed=False)
    assert waiting == await enabled(installation, endpoint)

    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL, waiting_for = NULL"
        " WHERE id = $1::text::uuid",
        head,
    )
    await disabled(installation, endpoint)
    assert replace(waiting, woken=0) == await enabled(installation, endpoint)

    await disabled(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.deliveries SET position = NULL WHERE state = 'dead_letter'")
    await installation.pool.execute("DELETE FROM hookseal.deliveries WHERE position = 3")
    assert Enabled(changed=True, woken=1, probed=False) == await enabled(installation, endpoint)


async def test_a_repeat_changes_nothing(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    assert Enabled(changed=False, woken=0, probed=False) == await enabled(installation, endpoint)
    await disabled(installation, endpoint, "first")
    assert Disabled(changed=False, reason="first") == await disabled(installation, endpoint, "second")

    assert ["endpoint.added", "endpoint.disabled"] == [row["action"] for row in await audited(installation.pool)]


@pytest.mark.req("OPS-10")
async def test_enabling_again_probes_a_held_endpoint(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for, probe_at) "
        "VALUES ('acme', $1::text::uuid, 'breaker', now() + interval '1 hour')",
        endpoint,
    )

    assert Enabled(changed=False, woken=0, probed=True) == await enabled(installation, endpoint)
    assert await installation.pool.fetchval("SELECT probe_at <= now() FROM hookseal.held_endpoints")
    *_, entry = await audited(installation.pool)
    assert {
        "action": "endpoint.probe_requested",
        "subject": f"endpoint:{endpoint}",
        "who": "ada@desk",
        "before": None,
        "after": {"held_for": "breaker"},
    } == entry


@pytest.mark.req("SEC-08")
async def test_another_tenants_endpoint_is_not_found(installation: Installation) -> None:
    endpoint = (await installation.endpoint("globex")).pointer.endpoint_id
    with pytest.raises(NotFound):
        await disabled(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    with pytest.raises(NotFound):
        await enabled(installation, endpoint)

    assert not await installation.pool.fetchval("SELECT enabled FROM hookseal.endpoints")


async def test_a_time_out_that_fits_no_drain_prevents_enabling(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await disabled(installation, endpoint)
    await installation.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids)"
        " VALUES ('w', '1', 9, 45, '{}')"
    )
    with pytest.raises(Refused, match="at most 4000 ms"):
        await enabled(installation, endpoint)

    assert not await installation.pool.fetchval("SELECT enabled FROM hookseal.endpoints")
