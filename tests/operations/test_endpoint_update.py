"""An update changes what is given, all of it or nothing, and of two that expect one generation one wins."""

import asyncio
from typing import Any

import pytest

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Retries
from hookseal.ground.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint_update import Updated, update_endpoint
from hookseal.secrets import pointer
from hookseal.secrets.errors import SecretTampered
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

TENANT = TenantId("acme")
OTHER = "https://other.example/new?token=hunter2"


async def updated(
    installation: Installation, endpoint: EndpointId, *, expect: int | None = None, tenant: TenantId = TENANT, **to: Any
) -> Updated:
    """Update the endpoint on a connection of its own."""
    async with installation.pool.acquire() as connection:
        return await update_endpoint(
            installation.operator(connection), tenant, endpoint, to, own_drain_seconds=25, expect_generation=expect
        )


async def row(installation: Installation) -> Any:
    """Return the one endpoint."""
    return await installation.pool.fetchrow("SELECT * FROM hookseal.endpoints")


async def verified(installation: Installation, endpoint: EndpointId) -> None:
    """Return only if the MAC of the row holds."""
    async with installation.pool.acquire() as connection, connection.transaction():
        installation.unlocked.integrity.verify(await pointer.locked(connection, tenant=TENANT, endpoint_id=endpoint))


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("OPS-10")
async def test_everything_at_once(installation: Installation) -> None:
    """Both parts of the row change together: the pointer under a new MAC, one generation on; the log tells what."""
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

    assert {*changes} == {*answer.changed}
    assert 2 == answer.generation
    found = await row(installation)
    assert changes | {"event_types": ["invoice.*"]} == {name: found[name] for name in changes}
    await verified(installation, endpoint)
    *_, told = await audited(installation.pool)
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
            "generation": 1,
        },
        "after": {
            "host": "other.example",
            "lead": "current",
            "event_types": ["invoice.*"],
            "name": "Billing",
            "timeout_ms": 8_000,
            "max_attempts": 3,
            "generation": 2,
        },
    } == told


@pytest.mark.req("DEL-06")
async def test_the_next_claim_reads_it(installation: Installation) -> None:
    """The next claim of a delivery that was there before goes where the endpoint points now, by its new retries."""
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


async def test_beside_the_pointer(installation: Installation) -> None:
    """What the dispatcher decides by changes without the generation, even in a row whose MAC does not hold."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET mac = NULL")

    assert Updated(changed=("name",), generation=1) == await updated(installation, endpoint, name="Billing")


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_a_row_that_was_altered(installation: Installation) -> None:
    """A pointer that was altered is not given a MAC that holds: nothing is changed and nothing audited."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET lead = 'current'")
    with pytest.raises(SecretTampered):
        await updated(installation, endpoint, url=OTHER, name="Billing")

    found = await row(installation)
    assert ("https://receiver.example/hook", None, 1) == (found["url"], found["name"], found["generation"])
    assert ["endpoint.added"] == [told["action"] for told in await audited(installation.pool)]


async def test_what_is_so_already(installation: Installation) -> None:
    """Values that stand there already change nothing and are not audited."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    same: dict[str, Any] = {
        "url": "https://receiver.example/hook",
        "lead": "previous",
        "event_types": ("*",),
        "retry_schedule": None,
    }

    assert Updated(changed=(), generation=1) == await updated(installation, endpoint, **same)
    assert ["endpoint.added"] == [told["action"] for told in await audited(installation.pool)]


@pytest.mark.req("SEC-09")
async def test_one_winner(installation: Installation) -> None:
    """Of updates that expect one generation exactly one wins; the others are told which it is now."""
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


async def test_a_url_that_is_taken(installation: Installation) -> None:
    """The url of another endpoint of the tenant is a conflict, and nothing else of the update is done either."""
    await installation.endpoint(url=OTHER)
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    with pytest.raises(Conflict) as told:
        await updated(installation, endpoint, url=OTHER, name="Billing")

    assert "url" == told.value.field
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE name IS NOT NULL")


@pytest.mark.req("SEC-08")
async def test_another_tenants(installation: Installation) -> None:
    """Another tenant's endpoint is not found, and stays as it is."""
    endpoint = (await installation.endpoint("globex")).pointer.endpoint_id
    with pytest.raises(NotFound):
        await updated(installation, endpoint, url=OTHER)
    with pytest.raises(NotFound):
        await updated(installation, endpoint, name="Billing")

    assert (None, 1) == ((await row(installation))["name"], (await row(installation))["generation"])


@pytest.mark.req("DEL-06")
async def test_back_off_beside_a_schedule(installation: Installation) -> None:
    """Back-off that a schedule stands in place of is refused, until the schedule goes with the same update."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await updated(installation, endpoint, retry_schedule=(5,))
    names = ("max_attempts", "backoff_base_seconds", "backoff_cap_seconds")
    refused: list[dict[str, Any]] = [{name: 7} for name in names]
    for backoff in refused:
        with pytest.raises(Conflict, match="--retry-schedule none"):
            await updated(installation, endpoint, **backoff)
    await updated(installation, endpoint, retry_schedule=None, max_attempts=7)

    assert (None, 7) == ((await row(installation))["retry_schedule"], (await row(installation))["attempts_allowed"])


async def test_a_time_out_that_no_drain_lets_end(installation: Installation) -> None:
    """A time-out must fit the smallest live drain; one that stands there already is not asked about."""
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
