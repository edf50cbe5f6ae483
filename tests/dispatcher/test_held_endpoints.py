"""The deliveries of a held endpoint wait together: one probe at a time, and all are released together."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from hookseal.dispatcher.core.model import FinishedAttempt, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.policy import Wait, admit, await_other_worker, await_repair
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.errors import CannotSign, Exhausted, LocalFailure
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint, disable_endpoint, enable_endpoint
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.operations.secret import clear_caches
from hookseal.postgres.pool import ANSWER_SECONDS
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests import rows
from tests.dispatcher.scene import Scene, attempt, take
from tests.dispatcher.test_lane_store import unrung
from tests.dispatcher.test_ledger import ROW, ledger
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import Installation

ACME = TenantId("acme")
REFUSED = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="the record was altered")
UNANSWERED = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="no answer", is_transient=True)
BEHIND_IT = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="held", is_refusal=False)
DISABLED = Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=15, reason="the endpoint is disabled")
DELIVERED = Verdict(state=State.DELIVERED)
_HELD = "SELECT * FROM hookseal.held_endpoints WHERE released_at IS NULL ORDER BY since"


async def one(stored: Installation) -> EndpointId:
    """Return the id of acme's endpoint."""
    return EndpointId(await stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints WHERE tenant_id = 'acme'"))


async def waiting(stored: Installation, rings: list[Ring]) -> list[str | None]:
    """Return what each of these deliveries waits for."""
    return [(await stored.delivery(ring))["waiting_for"] for ring in rings]


async def held(stored: Installation, number: int = 1, wait: Wait = REFUSED) -> list[Ring]:
    """Publish that many events, report that the secret is refused for the first delivery, and return the rings."""
    rings = [(await stored.deliveries())[0] for _ in range(number)]
    assert await ledger(stored.pool).release(await stored.claim(rings[0]), wait)
    return rings


async def probe(stored: Installation) -> int:
    """Make every probe due now, release the probes, and return how many there were."""
    await rows.change(stored.pool, "held_endpoints", probe_at=rows.NOW)
    return await PostgresHeldEndpoints(stored.pool).probe()


async def enable(stored: Installation) -> None:
    """Enable the endpoint of acme."""
    async with stored.pool.acquire() as connection:
        await enable_endpoint(stored.operator(connection), ACME, await one(stored), own_drain_seconds=25)


async def disable(stored: Installation) -> None:
    """Disable the endpoint of acme."""
    async with stored.pool.acquire() as connection:
        await disable_endpoint(stored.operator(connection), ACME, await one(stored), reason="x")


@pytest.mark.req("SEC-07")
async def test_the_first_refusal_holds_the_endpoint(stored: Installation) -> None:
    """After a refused secret, new deliveries of the endpoint wait; one that is claimed already is not the probe."""
    rings = await held(stored, 2)
    rings.append((await stored.deliveries())[0])
    behind = await stored.claim(rings[1])

    assert behind.is_probe is False
    assert ["secret", None, "secret"] == await waiting(stored, rings)
    assert await ledger(stored.pool).release(behind, BEHIND_IT)
    assert ["secret", "secret", "secret"] == await waiting(stored, rings)
    assert {REFUSED.reason} == {(await stored.delivery(ring))["last_error"] for ring in rings}, (
        "a delivery does not state the reason"
    )
    [row] = await stored.pool.fetch(_HELD)
    assert timedelta(seconds=14) < row["probe_at"] - row["since"] <= timedelta(seconds=15)
    assert isinstance(admit(behind, allow_http=False, jitter=0.5), Wait)


@pytest.mark.req("SEC-07", "DEL-06")
@pytest.mark.parametrize(
    ("error", "holds"),
    [(CannotSign("altered"), True), (Exhausted("no descriptor"), False), (LocalFailure("too many"), False)],
)
async def test_a_failure_of_one_worker_holds_no_endpoint(error: Exception, holds: bool, stored: Installation) -> None:
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    store = ledger(stored.pool)
    parts = replace(Scene(signers=FixedSigners("db:acme:n:1", error=error)).parts, claims=store, ledger=store)
    taken = await take(rings[0], parts)
    assert taken is not None
    with suppress(Exhausted):
        await attempt(*taken, parts)
    rings += await stored.deliveries()

    assert [holds, False, holds] == [each is not None for each in await waiting(stored, rings)]
    assert holds == bool(await stored.pool.fetch(_HELD))
    assert holds == ((await stored.claim(rings[1])).is_probe is False)


@pytest.mark.req("SEC-07")
async def test_probes_come_one_at_a_time_with_growing_distance(stored: Installation) -> None:
    """Only the oldest delivery is the probe, after 15 s, 30 s and so on, in the end at least every five minutes."""
    rings = await held(stored, 3)
    await ledger(stored.pool).release(await stored.claim(rings[1]), BEHIND_IT)
    steps: list[float] = []
    for _ in range(7):
        assert 0 == await PostgresHeldEndpoints(stored.pool).probe(), "a probe was released before its time"
        assert 1 == await probe(stored)
        assert [None, "secret", None] == await waiting(stored, rings)
        claim = await stored.claim(rings[0])
        assert claim.is_probe is True
        await ledger(stored.pool).release(claim, REFUSED)
        steps.append(await stored.pool.fetchval("SELECT step_seconds FROM hookseal.held_endpoints"))
        assert await stored.pool.fetchval(
            "SELECT probe_at - now() BETWEEN make_interval(secs => step_seconds * 0.7)"
            " AND make_interval(secs => step_seconds * 1.25) FROM hookseal.held_endpoints"
        )

    assert [30, 60, 120, 240, 240, 240, 240] == steps


@pytest.mark.req("SEC-07")
async def test_a_refused_probe_gives_the_reason(stored: Installation) -> None:
    """If an endpoint was held without a reason, later deliveries get the reason of the refused probe."""
    [ring] = await stored.deliveries()
    await rows.change(stored.pool, "deliveries", waiting_for="secret")
    assert 1 == await PostgresHeldEndpoints(stored.pool).release_strays()
    await stored.settle()
    claim = await stored.claim(ring)
    assert claim.is_probe is True
    await ledger(stored.pool).release(claim, REFUSED)
    rings = await stored.deliveries()

    assert ["secret"] * 2 == await waiting(stored, [ring, *rings])
    assert REFUSED.reason == (await stored.delivery(rings[0]))["last_error"]


@pytest.mark.req("SEC-07")
async def test_a_probe_that_was_signed_releases_the_rest(stored: Installation) -> None:
    """Once the probe's attempt is on record, whatever the answer, the others are released in batches, oldest first."""
    rings = await held(stored)
    rings += [(await stored.deliveries())[0] for _ in range(5)]
    await probe(stored)
    failed = Verdict(state=State.PENDING, retry_in_seconds=60)
    assert failed == await ledger(stored.pool).record(await stored.claim(rings[0]), ROW, failed, "503")
    assert [None, *["secret"] * 5] == await waiting(stored, rings), "only the leader releases them"
    assert [None] == await waiting(stored, [*await stored.deliveries()]), "a new delivery waits"
    holds = PostgresHeldEndpoints(stored.pool)
    found = []
    while (settled := await holds.release_batch(at_most=2)) is not None:
        found.append((settled.due, [each is None for each in await waiting(stored, rings)].count(True)))

    assert [(2, 3), (2, 5), (1, 6)] == found
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    row = await stored.delivery(rings[1])
    assert (None, None, "pending") == (row["rung_at"], row["held_at"], row["state"])


@pytest.mark.req("SEC-07")
async def test_a_probe_that_ends_releases_the_rest(stored: Installation) -> None:
    rings = await held(stored, 2)
    rings += [(await stored.deliveries())[0] for _ in range(3)]
    real = ledger(stored.pool)
    assert await real.end(await stored.claim(rings[1]), State.FAILED, "the url is not allowed")
    await stored.settle()
    assert ["secret"] * 4 == await waiting(stored, [rings[0], *rings[2:]]), (
        "a delivery that is not the probe released them"
    )
    await probe(stored)
    assert await real.end(await stored.claim(rings[0]), State.FAILED, "the url is not allowed")
    await stored.settle()

    assert [None] * 3 == await waiting(stored, rings[2:])
    assert [] == await stored.pool.fetch(_HELD)


@pytest.mark.req("SEC-07")
async def test_a_refusal_while_it_is_released_holds_it_again(stored: Installation) -> None:
    """If the secret is refused again during a release, the deliveries that were not yet released stay held."""
    rings = await held(stored)
    rings += [(await stored.deliveries())[0] for _ in range(4)]
    await probe(stored)
    await ledger(stored.pool).record(await stored.claim(rings[0]), ROW, DELIVERED, None)
    await PostgresHeldEndpoints(stored.pool).release_batch(at_most=2)
    await ledger(stored.pool).release(await stored.claim(rings[1]), REFUSED)

    assert await PostgresHeldEndpoints(stored.pool).release_batch() is None
    assert [None, "secret", None, "secret", "secret"] == await waiting(stored, rings)
    assert 1 == len(await stored.pool.fetch(_HELD))


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("change", ["rotate", "cache-clear"])
async def test_a_refusal_from_before_a_rotation_holds_nothing(stored: Installation, change: str) -> None:
    """A refusal from before a rotation or `cache-clear` holds nothing afterwards: the delivery is due at once."""
    [ring] = await stored.deliveries()
    claim = await stored.claim(ring)
    async with stored.pool.acquire() as connection:
        operator = stored.operator(connection)
        if change == "rotate":
            secret = generate_signing_secret()
            endpoint = await one(stored)
            await rotate_secret(
                operator, RotationRequest(tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=60, secret=secret)
            )
        else:
            await clear_caches(operator)

    assert await ledger(stored.pool).release(claim, REFUSED)
    assert [None] == await waiting(stored, [ring])
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    assert await ledger(stored.pool).claim(ring) is not None


@pytest.mark.req("SEC-07")
async def test_a_recovered_store_probes_its_endpoints(stored: Installation) -> None:
    await held(stored, wait=UNANSWERED)
    for tenant, wait in (("globex", UNANSWERED), ("initech", REFUSED)):
        await stored.endpoint(tenant)
        [ring] = await stored.deliveries(tenant)
        await ledger(stored.pool).release(await stored.claim(ring), wait)
    holds = PostgresHeldEndpoints(stored.pool)
    await holds.probe_transient()

    assert [True, True, False] == [
        row["due"]
        for row in await stored.pool.fetch(
            "SELECT probe_at <= now() AS due FROM hookseal.held_endpoints ORDER BY tenant_id"
        )
    ]
    assert 2 == await holds.probe()


@pytest.mark.req("DEL-22")
async def test_a_disabled_endpoint_loses_nothing(stored: Installation) -> None:
    """Deliveries of a disabled endpoint wait and are released when it is enabled: none is lost."""
    [before] = await stored.deliveries()
    await disable(stored)
    rings = [before, *[(await stored.deliveries())[0] for _ in range(3)]]
    assert [None, *["endpoint_disabled"] * 3] == await waiting(stored, rings)
    claim = await stored.claim(before)
    await ledger(stored.pool).release(claim, DISABLED)
    assert ["endpoint_disabled"] * 4 == await waiting(stored, rings)
    await stored.settle()
    assert 0 == await PostgresHeldEndpoints(stored.pool).release_strays()

    await enable(stored)
    await stored.settle()

    assert [None] * 4 == await waiting(stored, rings)
    for ring in rings:
        assert await ledger(stored.pool).claim(ring) is not None


@pytest.mark.req("DEL-22")
async def test_a_claim_during_enable_releases_its_delivery(stored: Installation) -> None:
    """A claim that read the endpoint as disabled does not leave its delivery waiting once the endpoint is enabled."""
    await disable(stored)
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    await rows.wait_for(stored.pool, None)
    first, second = [await stored.claim(ring) for ring in rings]
    async with stored.pool.acquire() as connection, connection.transaction():
        await enable_endpoint(stored.operator(connection), ACME, await one(stored), own_drain_seconds=25)
        async with asyncio.timeout(ANSWER_SECONDS - 0.5):  # then the statement gives up by itself
            assert await ledger(stored.pool).release(first, DISABLED), (
                "the release waited for the transaction that enables"
            )
        assert [None, None] == await waiting(stored, rings)
    await ledger(stored.pool).release(second, DISABLED)

    assert [None, None] == await waiting(stored, rings)
    late = "SELECT next_attempt_at - now() FROM hookseal.deliveries WHERE id = $1::text::uuid"
    assert timedelta(0) < await stored.pool.fetchval(late, rings[0].delivery_id) <= timedelta(seconds=15)
    assert await ledger(stored.pool).claim(rings[1]) is not None


@pytest.mark.req("DEL-22")
async def test_an_event_published_during_enable_is_released(stored: Installation) -> None:
    """A publish that read the endpoint as disabled, and commits after `enable`, is released by the next search."""
    await disable(stored)
    async with stored.pool.acquire() as publishing, publishing.transaction():
        await publishing.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}')")
        await enable(stored)
        await stored.settle()
        assert 0 == await PostgresHeldEndpoints(stored.pool).release_strays()
    assert "endpoint_disabled" == await stored.pool.fetchval("SELECT waiting_for FROM hookseal.deliveries")

    assert 1 == await PostgresHeldEndpoints(stored.pool).release_strays()
    await stored.settle()
    assert await stored.pool.fetchval("SELECT waiting_for IS NULL AND rung_at IS NULL FROM hookseal.deliveries")


@pytest.mark.req("DEL-22")
async def test_an_event_published_during_disable_waits(stored: Installation) -> None:
    async with stored.pool.acquire() as publishing, publishing.transaction():
        await publishing.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}')")
        await disable(stored)
    row = await stored.pool.fetchrow(
        "SELECT tenant_id, endpoint_id::text, id::text AS delivery_id FROM hookseal.deliveries"
    )
    assert row is not None
    ring = Ring(**dict(row))
    claim = await stored.claim(ring)
    verdict = admit(claim, allow_http=False, jitter=0.5)
    assert isinstance(verdict, Wait)
    await ledger(stored.pool).release(claim, verdict)

    assert ["endpoint_disabled"] == await waiting(stored, [ring])


async def test_deliveries_without_a_reason_to_wait_are_found_in_pages(stored: Installation) -> None:
    """Every endpoint whose deliveries wait although nothing holds it is released, for any page size of the search.

    If they wait for their turn, its lane is crowded from then on, and they stay in it.
    """
    for number in range(7):
        await stored.endpoint(f"t{number}")
        await stored.deliveries(f"t{number}")
    await rows.change(stored.pool, "endpoints", where="tenant_id IN ('t1', 't4')", enabled=False)
    await rows.wait_for(
        stored.pool,
        rows.Sql("(ARRAY['secret', 'endpoint_disabled', 'rate', 'order'])[1 + substr(tenant_id, 2)::integer % 4]"),
    )
    assert 6 == await PostgresHeldEndpoints(stored.pool).release_strays(at_most=2), (
        "all but t1, whose deliveries wait because it is disabled"
    )
    assert ["t0", "t4"] == [row["tenant_id"] for row in await stored.pool.fetch(_HELD + ", tenant_id")]
    await stored.settle()

    found = await stored.pool.fetch("SELECT tenant_id, waiting_for FROM hookseal.deliveries WHERE waiting_for <> ''")
    crowded = {"t2": "rate", "t6": "rate"}
    assert {"t1": "endpoint_disabled", "t4": "endpoint_disabled"} | crowded == {row[0]: row[1] for row in found}
    assert list(crowded) == [
        row[0] for row in await stored.pool.fetch("SELECT tenant_id FROM hookseal.lanes ORDER BY 1")
    ]
    assert 0 == await PostgresHeldEndpoints(stored.pool).release_strays(at_most=2)


async def test_a_disabled_held_endpoint_waits_for_enable(stored: Installation) -> None:
    rings = await held(stored)
    rings += await stored.deliveries()
    await disable(stored)
    await stored.settle()
    assert ["endpoint_disabled"] * 2 == await waiting(stored, rings)
    assert 0 == await probe(stored)
    await enable(stored)
    await stored.settle()

    assert [None, None] == await waiting(stored, rings)


async def test_a_deleted_endpoint_holds_no_delivery(stored: Installation) -> None:
    await held(stored)
    async with stored.pool.acquire() as connection:
        assert 1 == await delete_endpoint(stored.operator(connection), ACME, await one(stored))

    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    assert 0 == await stored.pool.fetchval("SELECT count(waiting_for) FROM hookseal.deliveries")


async def test_a_forged_probe_time_does_not_prevent_the_probe(stored: Installation) -> None:
    await held(stored)
    await rows.change(stored.pool, "held_endpoints", probe_at=rows.Sql("now() + interval '1 y'"))

    assert 1 == await PostgresHeldEndpoints(stored.pool).probe()


@pytest.mark.req("DEL-22")
async def test_held_at_is_set_for_waiting_deliveries(stored: Installation) -> None:
    [ring] = await stored.deliveries()
    write = "UPDATE hookseal.deliveries SET waiting_for = $1"
    is_now = "SELECT held_at = now() FROM hookseal.deliveries"
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute(write, "endpoint_disabled")
        assert await connection.fetchval(is_now)
        await connection.execute(write, None)
        assert await connection.fetchval(is_now) is None
    await rows.change(stored.pool, "endpoints", enabled=False)
    await stored.pool.execute(write, "endpoint_disabled")
    await rows.change(stored.pool, "deliveries", held_at=rows.ago(days=8))
    await stored.pool.execute(write, "endpoint_disabled")

    assert (1, None) == await PostgresHeldEndpoints(stored.pool).cancel(days=7), (
        "writing the same value again restarted the wait"
    )
    assert "cancelled" == (await stored.delivery(ring))["state"]


@pytest.mark.req("DEL-22")
async def test_a_delivery_held_too_long_is_cancelled(stored: Installation) -> None:
    """A delivery of a disabled endpoint is cancelled after HOOKSEAL_HELD_DAYS; one that waits for a secret never is."""
    await disable(stored)
    old, young = [(await stored.deliveries())[0] for _ in range(2)]
    await stored.endpoint("globex")
    [other] = await stored.deliveries("globex")
    await ledger(stored.pool).release(await stored.claim(other), REFUSED)
    await rows.change(
        stored.pool, "deliveries", old.delivery_id, other.delivery_id, held_at=rows.ago(days=7, seconds=1)
    )
    holds = PostgresHeldEndpoints(stored.pool)

    assert [(1, None), (0, None)] == [await holds.cancel(days=7), await holds.cancel(days=7)]
    row = await stored.delivery(old)
    assert ("cancelled", None, None, None) == tuple(
        row[name] for name in ("state", "waiting_for", "held_at", "next_attempt_at")
    )
    assert "HOOKSEAL_HELD_DAYS is 7" in row["last_error"]
    assert ["endpoint_disabled", "secret"] == await waiting(stored, [young, other])


@pytest.mark.req("DEL-22")
async def test_a_stopped_release_does_not_stop_cancellations(stored: Installation) -> None:
    """What waits too long is cancelled, however many older deliveries of an enabled endpoint are still held."""
    await stored.endpoint("globex")
    await rows.change(stored.pool, "endpoints", where="tenant_id = 'globex'", enabled=False)
    await stored.pool.execute(
        "SELECT hookseal.publish(tenant, 'invoice.paid', '{}'::json)"
        " FROM (VALUES ('acme', 9), ('globex', 1)) AS of (tenant, number) CROSS JOIN generate_series(1, number)"
    )
    await rows.change(
        stored.pool,
        "deliveries",
        waiting_for="endpoint_disabled",
        held_at=rows.Sql("now() - make_interval(days => CASE tenant_id WHEN 'acme' THEN 9 ELSE 8 END)"),
    )

    holds = PostgresHeldEndpoints(stored.pool)
    cancelled, after = await holds.cancel(days=7, at_most=9)

    assert (0, (1, None)) == (cancelled, await holds.cancel(days=7, after=after, at_most=9))


@pytest.mark.req("DEL-22")
async def test_an_enabled_endpoints_delivery_is_not_cancelled(stored: Installation) -> None:
    """After `enable`, a delivery that is not yet released is not cancelled, however long it has waited."""
    await disable(stored)
    [ring] = await stored.deliveries()
    await enable(stored)
    await rows.change(stored.pool, "deliveries", held_at=rows.ago(days=30))

    assert (0, None) == await PostgresHeldEndpoints(stored.pool).cancel(days=7)
    await stored.settle()
    claim = await stored.claim(ring)
    delivered = await ledger(stored.pool).record(claim, ROW, DELIVERED, None)
    assert (DELIVERED, Outcome.SERVER_ERROR) == (delivered, ROW.outcome)


@pytest.mark.req("OPS-02", part="counted")
async def test_a_claim_says_whether_its_delivery_was_held(stored: Installation) -> None:
    """One that waited for a secret or a disabled endpoint was held; one that was only given back was not."""
    pool = stored.pool
    [plain] = await stored.deliveries()
    first = await stored.claim(plain)
    assert await ledger(pool).release(first, None)
    assert (False, False) == (first.was_held, (await stored.claim(plain)).was_held)

    rings = await held(stored, 2)
    assert await ledger(pool).release(await stored.claim(rings[1]), BEHIND_IT)
    assert await probe(stored) == 1
    probed = await stored.claim(rings[0])
    assert (True, True) == (probed.is_probe, probed.was_held)
    await rows.change(pool, "held_endpoints", released_at=rows.NOW)
    await PostgresHeldEndpoints(pool).release_batch()
    later = [(await stored.deliveries())[0]]
    assert [True, False] == [(await stored.claim(each)).was_held for each in (rings[1], *later)]

    await disable(stored)
    [disabled] = await stored.deliveries()
    await enable(stored)
    await PostgresHeldEndpoints(pool).release_batch()
    assert (await stored.claim(disabled)).was_held


@pytest.mark.req("OPS-02", part="counted")
async def test_what_waited_for_room_was_held_if_its_endpoint_was(stored: Installation) -> None:
    """A delivery may wait for room, with no error, while its endpoint is disabled or its breaker opens and closes."""
    pool = stored.pool
    endpoint = await one(stored)
    paused, before, after = [(await stored.deliveries())[0] for _ in range(3)]
    await rows.wait_for(pool, "concurrency", paused.delivery_id)
    await disable(stored)
    await PostgresHeldEndpoints(pool).release_batch()
    assert "the endpoint is disabled" == (await stored.delivery(paused))["last_error"]
    await enable(stored)
    await PostgresHeldEndpoints(pool).release_batch()
    await rows.lane(pool, endpoint, reopened_at=rows.NOW)
    for each in (before, after):
        await rows.wait_for(pool, "concurrency", each.delivery_id)
    await rows.change(pool, "deliveries", after.delivery_id, created_at=rows.ahead(seconds=1))

    assert [True, True, False] == [(await stored.claim(each)).was_held for each in (paused, before, after)]


@pytest.mark.req("OPS-02", part="counted")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("delay", [await_repair(0.5), await_other_worker("no TLS context", 0.5)])
async def test_what_hookseal_itself_delays_was_not_held(stored: Installation, delay: Wait, ordered: bool) -> None:
    """Its first attempt is late for a reason of hookseal, unless something else held it before that."""
    pool = stored.pool
    await rows.change(pool, "endpoints", await one(stored), ordered=ordered)

    async def delayed(ring: Ring) -> bool:
        claim = await stored.claim(ring)
        assert await ledger(pool).release(claim, delay)
        await rows.change(pool, "deliveries", ring.delivery_id, next_attempt_at=rows.NOW)
        again = await stored.claim(ring)
        assert delay.reason in str((await stored.delivery(ring))["last_error"])
        assert await ledger(pool).record(again, ROW, DELIVERED, None) == DELIVERED
        assert again.was_held is ((await stored.delivery(ring))["rung_at"] is None)
        return again.was_held

    [plain] = await stored.deliveries()
    assert not await delayed(plain)

    await disable(stored)
    [disabled] = await stored.deliveries()
    await enable(stored)
    await PostgresHeldEndpoints(pool).release_batch()
    assert await delayed(disabled)


@pytest.mark.req("OPS-15", part="status")
@pytest.mark.parametrize("in_batch", [False, True])
async def test_the_record_of_an_attempt_says_whether_something_held_it(stored: Installation, in_batch: bool) -> None:
    """A delivery that has ended was rung at some time, unless something held it before its last attempt."""
    real = ledger(stored.pool)
    rung = []
    for was_held in (False, True):
        [ring] = await stored.deliveries()
        claim = replace(await stored.claim(ring), was_held=was_held)
        if in_batch:
            await real.record_all([FinishedAttempt(claim=claim, attempt=ROW, verdict=DELIVERED, error=None)])
        else:
            await real.record(claim, ROW, DELIVERED, None)
        rung.append((await stored.delivery(ring))["rung_at"] is not None)

    assert [True, False] == rung


async def test_what_the_outbox_holds_has_the_reason(stored: Installation) -> None:
    """A delivery that was due when its endpoint was held waits with the reason, and was held afterwards."""
    [ring] = await stored.deliveries()
    await rows.hold(
        stored.pool, ring.endpoint_id, waiting_for="breaker", reason="it failed", probe_at=rows.ahead(hours=1)
    )
    assert [] == await unrung(stored)
    found = await stored.delivery(ring)
    assert ("breaker", "it failed") == (found["waiting_for"], found["last_error"])
    await probe(stored)

    assert (await stored.claim(ring)).was_held
