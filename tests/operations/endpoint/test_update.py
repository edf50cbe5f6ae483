"""An update changes the given fields, all or none, and of two that expect one generation one succeeds."""

import asyncio
from typing import Any

import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from hookseal.dispatcher.core.model import Retries
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Conflict, NotFound, Refused, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.update import Updated, update_endpoint
from hookseal.secrets.endpoint import pointer
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

TENANT = TenantId("acme")
OTHER = "https://other.example/new?token=hunter2"


async def updated(
    installation: Installation, endpoint: EndpointId, *, expect: int | None = None, tenant: TenantId = TENANT, **to: Any
) -> Updated:
    return await installation.act(update_endpoint, tenant, endpoint, to, own_drain_seconds=25, expect_generation=expect)


async def row(installation: Installation) -> Any:
    return await installation.pool.fetchrow("SELECT * FROM hookseal.endpoints")


async def verified(installation: Installation, endpoint: EndpointId) -> None:
    """Fail unless the MAC of the row is valid."""
    async with installation.pool.acquire() as connection, connection.transaction():
        installation.unlocked.integrity.verify(await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint))


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("OPS-10")
async def test_all_fields_change_together(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    changes: dict[str, Any] = {
        "url": OTHER,
        "lead": "current",
        "event_types": ("invoice.*",),
        "name": "Billing",
        "timeout_ms": 8_000,
        "max_attempts": 3,
    }
    answer = await updated(installation, endpoint, **changes)

    assert {*changes, "retry_schedule"} == {*answer.changed}
    assert 2 == answer.generation
    found = await row(installation)
    assert changes | {"event_types": ["invoice.*"]} == {name: found[name] for name in changes}
    await verified(installation, endpoint)
    *_, entry = await audited(installation.pool)
    assert {
        "action": "endpoint.updated",
        "subject": f"endpoint:{endpoint}",
        "who": "ada@desk",
        "before": {
            "host": "receiver.example",
            "lead": "previous",
            "event_types": ["*"],
            "name": None,
            "timeout_ms": 5_000,
            "max_attempts": 10,
            "retry_schedule": list(DEFAULT_RETRY_SCHEDULE),
            "generation": 1,
        },
        "after": {
            "host": "other.example",
            "lead": "current",
            "event_types": ["invoice.*"],
            "name": "Billing",
            "timeout_ms": 8_000,
            "max_attempts": 3,
            "retry_schedule": None,
            "generation": 2,
        },
    } == entry


@pytest.mark.req("DEL-06")
async def test_the_next_claim_uses_the_new_url(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    (ring,) = await installation.deliveries()
    await updated(installation, endpoint, url=OTHER, retry_schedule=(5, 300), timeout_ms=100)
    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)

    assert claim is not None
    assert claim.target is not None
    assert (OTHER, 100) == (claim.target.pointer.url, claim.target.timeout_ms)
    expected = Retries(attempts_allowed=3, backoff_base_seconds=30, backoff_cap_seconds=43_200, schedule=(5, 300))
    assert expected == claim.target.retries
    async with installation.unlocked.service.signers(claim.target.pointer) as signers:
        assert 1 == len(signers)


async def test_other_fields_need_no_new_generation(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET mac = NULL")

    assert Updated(changed=("name",), generation=1) == await updated(installation, endpoint, name="Billing")


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_an_altered_pointer_is_not_changed(installation: Installation) -> None:
    """An altered pointer gets no valid MAC: nothing is changed or audited."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET lead = 'current'")
    with pytest.raises(SecretTampered):
        await updated(installation, endpoint, url=OTHER, name="Billing")

    found = await row(installation)
    assert ("https://receiver.example/hook", None, 1) == (found["url"], found["name"], found["generation"])
    assert ["endpoint.added"] == [entry["action"] for entry in await audited(installation.pool)]


async def test_present_values_change_nothing(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    same: dict[str, Any] = {
        "url": "https://receiver.example/hook",
        "lead": "previous",
        "event_types": ("*",),
        "retry_schedule": DEFAULT_RETRY_SCHEDULE,
    }

    assert Updated(changed=(), generation=1) == await updated(installation, endpoint, **same)
    assert ["endpoint.added"] == [entry["action"] for entry in await audited(installation.pool)]


@pytest.mark.req("SEC-09")
async def test_of_concurrent_updates_one_succeeds(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    ended = await asyncio.gather(
        *(updated(installation, endpoint, expect=1, url=f"https://other.example/{number}") for number in range(8)),
        return_exceptions=True,
    )

    lost = [each for each in ended if isinstance(each, Conflict)]
    assert [Updated(changed=("url",), generation=2)] == [each for each in ended if isinstance(each, Updated)]
    assert 7 == len(lost)
    assert {"expect_generation"} == {each.field for each in lost}
    assert "at generation 2, not 1" in str(lost[0])


async def test_a_url_in_use_is_a_conflict(installation: Installation) -> None:
    await installation.endpoint(url=OTHER)
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    with pytest.raises(Conflict) as caught:
        await updated(installation, endpoint, url=OTHER, name="Billing")

    assert "url" == caught.value.field
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE name IS NOT NULL")


@pytest.mark.req("SEC-08")
async def test_another_tenants_endpoint_is_not_found(installation: Installation) -> None:
    endpoint = (await installation.endpoint("globex")).pointer.endpoint_id
    with pytest.raises(NotFound):
        await updated(installation, endpoint, url=OTHER)
    with pytest.raises(NotFound):
        await updated(installation, endpoint, name="Billing")

    assert (None, 1) == ((await row(installation))["name"], (await row(installation))["generation"])


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("value", [10, 3])
async def test_back_off_replaces_the_default_schedule(installation: Installation, value: int) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    answer = await updated(installation, endpoint, max_attempts=value)

    assert "retry_schedule" in answer.changed
    found = await row(installation)
    assert (None, value) == (found["retry_schedule"], found["attempts_allowed"])


@pytest.mark.req("DEL-06")
async def test_back_off_with_a_schedule_is_refused(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await updated(installation, endpoint, retry_schedule=(5,))
    names = ("max_attempts", "backoff_base_seconds", "backoff_cap_seconds")
    refused: list[dict[str, Any]] = [{name: 7} for name in names]
    for backoff in refused:
        with pytest.raises(Conflict, match="--retry-schedule none"):
            await updated(installation, endpoint, **backoff)
    await updated(installation, endpoint, retry_schedule=None, max_attempts=7)

    assert (None, 7) == ((await row(installation))["retry_schedule"], (await row(installation))["attempts_allowed"])


async def test_a_time_out_must_fit_the_shortest_live_drain(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids)"
        " VALUES ('w', '1', 9, 45, '{}')"
    )
    with pytest.raises(Refused):
        await updated(installation, endpoint, timeout_ms=4_001)
    await updated(installation, endpoint, timeout_ms=4_000)
    await installation.pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 20000")
    await updated(installation, endpoint, timeout_ms=20_000, name="Billing")

    assert "Billing" == (await row(installation))["name"]


@pytest.mark.req("SEC-08")
async def test_a_url_of_another_tenant_is_free(installation: Installation) -> None:
    theirs = await installation.endpoint("globex", url=OTHER)
    mine = await installation.endpoint()
    assert ("url",) == (await updated(installation, mine.pointer.endpoint_id, url=OTHER)).changed
    another = await installation.endpoint(url="https://third.example/")
    with pytest.raises(Conflict) as caught:
        await updated(installation, another.pointer.endpoint_id, url=OTHER)
    assert mine.pointer.endpoint_id in str(caught.value)
    assert theirs.pointer.endpoint_id not in str(caught.value)
