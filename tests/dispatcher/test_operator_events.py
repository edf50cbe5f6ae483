"""Operator events: published once for each change, in the transaction of the change."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_health import Key
from hookseal.dispatcher.core.model import Attempt, FinishedAttempt, Outcome, Ring, State, Verdict
from hookseal.dispatcher.store.endpoint_health import mark_failing, mark_recovered
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import OPERATOR_TENANT, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint, disable_endpoint
from hookseal.operations.endpoint.rotation import rotate_secret, take_turn
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests import rows
from tests.doubles.stored import Installation, begin

pytestmark = pytest.mark.req("DEL-08", part="operator-events")
ACME = TenantId("acme")
ROW = Attempt(outcome=Outcome.SERVER_ERROR, status=503, duration_ms=12, snippet="later", signed_by=("db:acme:n:1",))
LAST = Verdict(state=State.DEAD_LETTER)


@pytest.fixture
async def stored(begun_pool: Pool) -> Installation:
    """Return an installation in which an endpoint of the operator subscribes to everything."""
    installation = await begin(begun_pool)
    await installation.add(
        NewEndpoint(tenant_id=OPERATOR_TENANT, url="https://operator.example/hook", event_types=("*",))
    )
    return installation


@pytest.fixture
async def key(stored: Installation) -> Key:
    """Return an endpoint of acme, whose url has a query."""
    return ACME, (await stored.endpoint(url="https://receiver.example/hook?token=abc")).pointer.endpoint_id


async def events(stored: Installation) -> list[tuple[str, dict[str, Any]]]:
    """Return the type and the data of every event of the operator that has a delivery, oldest first."""
    found = await stored.pool.fetch(
        "SELECT e.event_type, e.body FROM hookseal.events AS e JOIN hookseal.deliveries AS d"
        " ON d.tenant_id = e.tenant_id AND d.event_id = e.id WHERE e.tenant_id = '_operator' ORDER BY d.id"
    )
    return [(row["event_type"], json.loads(row["body"])["data"]) for row in found]


async def exhausted(stored: Installation, ring: Ring) -> None:
    """Record that the last attempt of this delivery failed, as a worker does."""
    ledger = PostgresLedger(stored.pool, worker="w1", lease_seconds=45)
    claim = await ledger.claim(ring)
    assert claim is not None
    await ledger.record_all([FinishedAttempt(claim=claim, attempt=ROW, verdict=LAST, error="503")])


async def disable(stored: Installation, key: Key) -> None:
    """Disable the endpoint, as an operator does."""
    async with stored.pool.acquire() as connection:
        await disable_endpoint(stored.operator(connection), *key, reason="maintenance")


async def rotate(stored: Installation, key: Key) -> None:
    """Rotate the secret of the endpoint."""
    wanted = RotationRequest(
        tenant_id=key[0], endpoint_id=key[1], overlap_seconds=3600, secret=generate_signing_secret()
    )
    async with stored.pool.acquire() as connection:
        await rotate_secret(stored.operator(connection), wanted)


async def announce(stored: Installation, key: Key) -> None:
    """Announce a rotation by schedule."""
    await rows.change(stored.pool, "endpoints", key[1], rotate_every_days=1, secret_updated_at=rows.ago(days=2))
    [due] = await schedule.upcoming(stored.pool, None)
    async with stored.pool.acquire() as connection:
        await take_turn(stored.operator(connection), due, overlap_seconds=DAY)


DAY = 86_400


async def fail(stored: Installation, key: Key) -> None:
    """Note that the endpoint is failing."""
    await mark_failing(stored.pool, [key])


async def recover(stored: Installation, key: Key) -> None:
    """Note that the endpoint is failing, then that it is not."""
    await mark_failing(stored.pool, [key])
    await mark_recovered(stored.pool, [key])


async def exhaust(stored: Installation, _key: Key) -> None:
    """Publish an event for acme, and spend the attempts of its delivery."""
    [ring] = await stored.deliveries()
    await exhausted(stored, ring)


Change = Callable[[Installation, Key], Awaitable[None]]


@pytest.mark.parametrize(
    ("change", "kind", "names"),
    [
        (disable, "endpoint.disabled", {"name", "url", "reason"} - {"name"}),
        (fail, "endpoint.failing", {"url", "failing_since"}),
        (recover, "endpoint.recovered", {"url", "failing_since"}),
        (exhaust, "message.attempt.exhausted", {"delivery_id", "event_id", "attempts"}),
        (
            rotate,
            "secret.rotated",
            {"url", "secret_ref", "previous_secret_ref", "previous_secret_expires_at", "generation"},
        ),
        (announce, "secret.expiring", {"generation", "secret_ref", "rotate_every_days", "rotates_at"}),
    ],
)
async def test_each_change_is_published_once(
    stored: Installation, key: Key, *, change: Change, kind: str, names: set[str]
) -> None:
    """Each change is published once, with the ids of the endpoint, and its url without the query."""
    await change(stored, key)

    [data] = [data for found, data in await events(stored) if found == kind]
    assert {"tenant_id": ACME, "endpoint_id": key[1], "suppressed": 0}.items() <= data.items()
    assert names == data.keys() - {"tenant_id", "endpoint_id", "suppressed"}
    assert "https://receiver.example/hook" == data.get("url", "https://receiver.example/hook")


async def test_repeats_within_ten_minutes_are_counted(stored: Installation, key: Key) -> None:
    """Further ones are counted, and the next one that is published says how many there were."""
    for _ in range(2):
        await exhaust(stored, key)
    await rows.change(stored.pool, "operator_notices", last_at=rows.ago(seconds=590))
    await exhaust(stored, key)
    assert 1 == len(await events(stored))
    await disable(stored, key)
    assert ["message.attempt.exhausted", "endpoint.disabled"] == [kind for kind, _ in await events(stored)]
    await rows.change(stored.pool, "endpoints", enabled=True)
    await rows.change(stored.pool, "operator_notices", last_at=rows.ago(seconds=601))
    await exhaust(stored, key)

    kind, data = (await events(stored))[-1]
    assert ("message.attempt.exhausted", 2) == (kind, data["suppressed"])


async def test_an_outcome_waits_for_no_other_publish(stored: Installation, key: Key) -> None:
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    await exhausted(stored, rings[0])
    async with stored.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.operator_notices FOR UPDATE")
        await exhausted(stored, rings[1])

    assert "dead_letter" == (await stored.delivery(rings[1]))["state"]


async def test_a_failed_event_keeps_the_change(stored: Installation, key: Key) -> None:
    """An operator event that fails does not undo the change: the outcome of an attempt matters more."""
    await stored.pool.execute("ALTER TABLE hookseal.events ADD CHECK (tenant_id <> '_operator')")
    [ring] = await stored.deliveries()
    await exhausted(stored, ring)

    assert "dead_letter" == (await stored.delivery(ring))["state"]
    assert [] == await events(stored)


async def test_the_operators_own_endpoints_publish_nothing(stored: Installation) -> None:
    own = OPERATOR_TENANT, (await stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints"))
    await recover(stored, own)
    await rotate(stored, own)
    await disable(stored, own)

    assert [] == await events(stored)
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.operator_notices")


@pytest.mark.parametrize(
    ("subscription", "kinds"),
    [
        ("endpoint.*", ["endpoint.disabled"]),
        ("message.*", ["message.attempt.exhausted"]),
        ("message.attempt.*", ["message.attempt.exhausted"]),
        ("secret.rotated", []),
    ],
)
async def test_only_subscribed_events_are_stored(
    stored: Installation, key: Key, *, subscription: str, kinds: list[str]
) -> None:
    await rows.change(stored.pool, "endpoints", where="tenant_id = '_operator'", event_types=[subscription])
    await exhaust(stored, key)
    await disable(stored, key)

    assert kinds == [kind for kind, _ in await events(stored)]
    assert len(kinds) == await stored.pool.fetchval(
        "SELECT count(*) FROM hookseal.events WHERE tenant_id = '_operator'"
    )


async def test_a_rolled_back_change_leaves_no_event(stored: Installation, key: Key) -> None:
    async with stored.pool.acquire() as connection:
        change = connection.transaction()
        await change.start()
        await rows.change(connection, "endpoints", key[1], enabled=False)
        await change.rollback()

    assert [] == await events(stored)


async def test_a_deleted_endpoint_leaves_nothing(stored: Installation, key: Key) -> None:
    await fail(stored, key)
    async with stored.pool.acquire() as connection:
        await delete_endpoint(stored.operator(connection), *key)

    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.operator_notices")


async def test_a_producer_cannot_publish_for_the_operator(stored: Installation) -> None:
    """The tenant `_operator` is refused by every publishing function, whatever the role."""
    for call in ("publish('_operator', 'a', '{}')", "publish_raw('_operator', 'a', 'b')"):
        with pytest.raises(asyncpg.PostgresError, match="tenant must be") as caught:
            await stored.pool.fetch(f"SELECT * FROM hookseal.{call}")  # noqa: S608 -- ours
        assert "HS422" == caught.value.sqlstate
