"""What waits for its endpoint is held as one: one probe at a time, and all of it let go when it is released."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from hookseal.dispatcher.deliver import attempt, take
from hookseal.dispatcher.holds import PostgresHolds
from hookseal.dispatcher.model import Claim, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.policy import Wait, admit
from hookseal.ground.errors import CannotSign, Exhausted, LocalFailure
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.caches import clear_caches
from hookseal.operations.endpoint_state import disable_endpoint, enable_endpoint
from hookseal.operations.endpoints import delete_endpoint
from hookseal.operations.rotation import rotate
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.dispatcher.scene import Scene
from tests.dispatcher.test_ledger import ROW, ledger
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
ACME = TenantId("acme")
REFUSED = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="the record was altered")
UNANSWERED = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="no answer", is_transient=True)
BEHIND_IT = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="held", is_refusal=False)
DISABLED = Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=15, reason="the endpoint is disabled")
DELIVERED = Verdict(state=State.DELIVERED)
_HELD = "SELECT * FROM hookseal.held_endpoints WHERE released_at IS NULL ORDER BY since"


@pytest.fixture
async def stored(pool: "Pool[asyncpg.Record]") -> Installation:
    """Give an installation with one endpoint of acme."""
    installation = await begin(pool)
    await installation.endpoint()
    return installation


async def one(stored: Installation) -> EndpointId:
    """Return the endpoint of acme."""
    return EndpointId(await stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints WHERE tenant_id = 'acme'"))


async def claimed(stored: Installation, ring: Ring) -> Claim:
    """Return the claim of what can be claimed."""
    claim = await ledger(stored.pool).claim(ring)
    assert claim is not None
    return claim


async def waiting(stored: Installation, rings: list[Ring]) -> list[str | None]:
    """Return what each of them waits for."""
    return [(await stored.delivery(ring))["waiting_for"] for ring in rings]


async def held(stored: Installation, number: int = 1, wait: Wait = REFUSED) -> list[Ring]:
    """Publish so many, have the secret of their endpoint refused for the first, and return them."""
    rings = [(await stored.deliveries())[0] for _ in range(number)]
    assert await ledger(stored.pool).release(await claimed(stored, rings[0]), wait)
    return rings


async def probe(stored: Installation) -> int:
    """Have every probe due now, let those deliveries go, and return how many."""
    await stored.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
    return await PostgresHolds(stored.pool).probe()


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
    """From then on what is published for it waits; what is claimed already is told that it is not the probe."""
    rings = await held(stored, 2)
    rings.append((await stored.deliveries())[0])
    behind = await claimed(stored, rings[1])

    assert behind.is_probe is False
    assert ["secret", None, "secret"] == await waiting(stored, rings)
    assert await ledger(stored.pool).release(behind, BEHIND_IT)
    assert ["secret", "secret", "secret"] == await waiting(stored, rings)
    assert {REFUSED.reason} == {(await stored.delivery(ring))["last_error"] for ring in rings}, "each says why"
    [row] = await stored.pool.fetch(_HELD)
    assert timedelta(seconds=14) < row["probe_at"] - row["since"] <= timedelta(seconds=15)
    assert isinstance(admit(behind, allow_http=False, jitter=0.5), Wait)


@pytest.mark.req("SEC-07")
@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("error", "holds"),
    [(CannotSign("altered"), True), (Exhausted("no descriptor"), False), (LocalFailure("too many"), False)],
)
async def test_what_one_worker_lacks_holds_no_endpoint(error: Exception, holds: bool, stored: Installation) -> None:
    """A secret that is refused is refused to all workers; what one of them lacks keeps no other from delivering."""
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    parts = replace(Scene(signers=FixedSigners("db:acme:n:1", error=error)).parts, ledger=ledger(stored.pool))
    taken = await take(rings[0], parts)
    assert taken is not None
    with suppress(Exhausted):
        await attempt(*taken, parts)
    rings += await stored.deliveries()

    assert [holds, False, holds] == [each is not None for each in await waiting(stored, rings)]
    assert holds == bool(await stored.pool.fetch(_HELD))
    assert holds == ((await claimed(stored, rings[1])).is_probe is False)


@pytest.mark.req("SEC-07")
async def test_one_probe_at_a_time_ever_further_apart(stored: Installation) -> None:
    """The oldest is let go and no other, after 15 s, 30 s and so on, and in the end at least every five minutes."""
    rings = await held(stored, 3)
    await ledger(stored.pool).release(await claimed(stored, rings[1]), BEHIND_IT)
    steps: list[float] = []
    for _ in range(7):
        assert 0 == await PostgresHolds(stored.pool).probe(), "it is not yet time"
        assert 1 == await probe(stored)
        assert [None, "secret", None] == await waiting(stored, rings)
        claim = await claimed(stored, rings[0])
        assert claim.is_probe is True
        await ledger(stored.pool).release(claim, REFUSED)
        steps.append(await stored.pool.fetchval("SELECT step_seconds FROM hookseal.held_endpoints"))
        assert await stored.pool.fetchval(
            "SELECT probe_at - now() BETWEEN make_interval(secs => step_seconds * 0.7)"
            " AND make_interval(secs => step_seconds * 1.25) FROM hookseal.held_endpoints"
        )

    assert [30, 60, 120, 240, 240, 240, 240] == steps


@pytest.mark.req("SEC-07")
async def test_a_refused_probe_says_why(stored: Installation) -> None:
    """Of an endpoint that was found held without a reason, what is published then has that of the probe."""
    [ring] = await stored.deliveries()
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = 'secret'")
    assert 1 == await PostgresHolds(stored.pool).release_strays()
    await stored.settle()
    claim = await claimed(stored, ring)
    assert claim.is_probe is True
    await ledger(stored.pool).release(claim, REFUSED)
    rings = await stored.deliveries()

    assert ["secret"] * 2 == await waiting(stored, [ring, *rings])
    assert REFUSED.reason == (await stored.delivery(rings[0]))["last_error"]


@pytest.mark.req("SEC-07")
async def test_a_probe_that_was_signed_releases_the_rest(stored: Installation) -> None:
    """Once its attempt is on record, whatever the answer, the others are let go in batches, the oldest first."""
    rings = await held(stored)
    rings += [(await stored.deliveries())[0] for _ in range(5)]
    await probe(stored)
    failed = Verdict(state=State.PENDING, retry_in_seconds=60)
    assert failed == await ledger(stored.pool).record(await claimed(stored, rings[0]), ROW, failed, "503")
    assert [None, *["secret"] * 5] == await waiting(stored, rings), "in batches, by the worker that leads"
    assert [None] == await waiting(stored, [*await stored.deliveries()]), "and what is published now does not wait"
    holds = PostgresHolds(stored.pool)
    found = []
    while (settled := await holds.settle(at_most=2)) is not None:
        found.append((settled.let_go, [each is None for each in await waiting(stored, rings)].count(True)))

    assert [(2, 3), (2, 5), (1, 6)] == found
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    row = await stored.delivery(rings[1])
    assert (None, None, "pending") == (row["rung_at"], row["held_at"], row["state"])


@pytest.mark.req("SEC-07")
async def test_a_probe_that_ends_releases_the_rest(stored: Installation) -> None:
    """What ends without a secret holds nothing back: neither does another delivery of the endpoint that ends."""
    rings = await held(stored, 2)
    rings += [(await stored.deliveries())[0] for _ in range(3)]
    real = ledger(stored.pool)
    assert await real.end(await claimed(stored, rings[1]), State.FAILED, "the url is not allowed")
    await stored.settle()
    assert ["secret"] * 4 == await waiting(stored, [rings[0], *rings[2:]]), "it was not the probe"
    await probe(stored)
    assert await real.end(await claimed(stored, rings[0]), State.FAILED, "the url is not allowed")
    await stored.settle()

    assert [None] * 3 == await waiting(stored, rings[2:])
    assert [] == await stored.pool.fetch(_HELD)


@pytest.mark.req("SEC-07")
async def test_a_refusal_while_it_is_released_holds_it_again(stored: Installation) -> None:
    """What was not let go yet stays: a secret that is refused again costs a batch, and not all."""
    rings = await held(stored)
    rings += [(await stored.deliveries())[0] for _ in range(4)]
    await probe(stored)
    await ledger(stored.pool).record(await claimed(stored, rings[0]), ROW, DELIVERED, None)
    await PostgresHolds(stored.pool).settle(at_most=2)
    await ledger(stored.pool).release(await claimed(stored, rings[1]), REFUSED)

    assert await PostgresHolds(stored.pool).settle() is None
    assert [None, "secret", None, "secret", "secret"] == await waiting(stored, rings)
    assert 1 == len(await stored.pool.fetch(_HELD))


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("change", ["rotate", "cache-clear"])
async def test_a_refusal_of_before_holds_nothing(stored: Installation, change: str) -> None:
    """What was refused before a rotation or `cache-clear`, and comes after it, is due at once, with the others."""
    [ring] = await stored.deliveries()
    claim = await claimed(stored, ring)
    async with stored.pool.acquire() as connection:
        operator = stored.operator(connection)
        if change == "rotate":
            secret = generate_signing_secret()
            endpoint = await one(stored)
            await rotate(operator, Wanted(tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=60, secret=secret))
        else:
            await clear_caches(operator)

    assert await ledger(stored.pool).release(claim, REFUSED)
    assert [None] == await waiting(stored, [ring])
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    assert await ledger(stored.pool).claim(ring) is not None


@pytest.mark.req("SEC-07")
async def test_a_store_that_answers_again(stored: Installation) -> None:
    """As soon as one endpoint is released that it did not answer for, all such endpoints are probed, and no other."""
    await held(stored, wait=UNANSWERED)
    for tenant, wait in (("globex", UNANSWERED), ("initech", REFUSED)):
        await stored.endpoint(tenant)
        [ring] = await stored.deliveries(tenant)
        await ledger(stored.pool).release(await claimed(stored, ring), wait)
    holds = PostgresHolds(stored.pool)
    await holds.hasten()

    assert [True, True, False] == [
        row["due"]
        for row in await stored.pool.fetch(
            "SELECT probe_at <= now() AS due FROM hookseal.held_endpoints ORDER BY tenant_id"
        )
    ]
    assert 2 == await holds.probe()


@pytest.mark.req("DEL-22")
async def test_disabled_is_a_pause(stored: Installation) -> None:
    """What is published while it is disabled waits, and is let go when it is enabled: nothing is lost."""
    [before] = await stored.deliveries()
    await disable(stored)
    rings = [before, *[(await stored.deliveries())[0] for _ in range(3)]]
    assert [None, *["endpoint_disabled"] * 3] == await waiting(stored, rings)
    claim = await claimed(stored, before)
    await ledger(stored.pool).release(claim, DISABLED)
    assert ["endpoint_disabled"] * 4 == await waiting(stored, rings)
    await stored.settle()
    assert 0 == await PostgresHolds(stored.pool).release_strays()

    await enable(stored)
    await stored.settle()

    assert [None] * 4 == await waiting(stored, rings)
    for ring in rings:
        assert await ledger(stored.pool).claim(ring) is not None


@pytest.mark.req("DEL-22")
async def test_a_claim_beside_enable(stored: Installation) -> None:
    """A claim that found the endpoint disabled never leaves its delivery waiting once that is enabled."""
    await disable(stored)
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL")
    first, second = [await claimed(stored, ring) for ring in rings]
    async with stored.pool.acquire() as connection, connection.transaction():
        await enable_endpoint(stored.operator(connection), ACME, await one(stored), own_drain_seconds=25)
        async with asyncio.timeout(2):
            assert await ledger(stored.pool).release(first, DISABLED), "it does not wait for who enables"
        assert [None, None] == await waiting(stored, rings)
    await ledger(stored.pool).release(second, DISABLED)

    assert [None, None] == await waiting(stored, rings)
    late = "SELECT next_attempt_at - now() FROM hookseal.deliveries WHERE id = $1::text::uuid"
    assert timedelta(0) < await stored.pool.fetchval(late, rings[0].delivery_id) <= timedelta(seconds=15)
    assert await ledger(stored.pool).claim(rings[1]) is not None


@pytest.mark.req("DEL-22")
async def test_a_publish_beside_enable(stored: Installation) -> None:
    """What is published in a transaction that saw it disabled, and commits later, is let go by the next look."""
    await disable(stored)
    async with stored.pool.acquire() as publishing, publishing.transaction():
        await publishing.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}')")
        await enable(stored)
        await stored.settle()
        assert 0 == await PostgresHolds(stored.pool).release_strays()
    assert "endpoint_disabled" == await stored.pool.fetchval("SELECT waiting_for FROM hookseal.deliveries")

    assert 1 == await PostgresHolds(stored.pool).release_strays()
    await stored.settle()
    assert await stored.pool.fetchval("SELECT waiting_for IS NULL AND rung_at IS NULL FROM hookseal.deliveries")


@pytest.mark.req("DEL-22")
async def test_a_publish_beside_disable(stored: Installation) -> None:
    """What was published for an enabled endpoint, and commits once it is disabled, waits after one claim."""
    async with stored.pool.acquire() as publishing, publishing.transaction():
        await publishing.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}')")
        await disable(stored)
    row = await stored.pool.fetchrow(
        "SELECT tenant_id, endpoint_id::text, id::text AS delivery_id FROM hookseal.deliveries"
    )
    assert row is not None
    ring = Ring(**dict(row))
    claim = await claimed(stored, ring)
    verdict = admit(claim, allow_http=False, jitter=0.5)
    assert isinstance(verdict, Wait)
    await ledger(stored.pool).release(claim, verdict)

    assert ["endpoint_disabled"] == await waiting(stored, [ring])


async def test_strays_are_found_page_by_page(stored: Installation) -> None:
    """Every endpoint for which deliveries wait without a reason is released, however few are walked at a time."""
    for number in range(7):
        await stored.endpoint(f"t{number}")
        await stored.deliveries(f"t{number}")
    await stored.pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE tenant_id IN ('t1', 't4')")
    await stored.pool.execute(
        "UPDATE hookseal.deliveries SET held_at = now(), waiting_for ="
        " (ARRAY['secret', 'endpoint_disabled', 'rate', 'order'])[1 + substr(tenant_id, 2)::integer % 4]"
    )
    assert 6 == await PostgresHolds(stored.pool).release_strays(at_most=2), "t1 is disabled, and waits for that"
    assert ["t0", "t4"] == [row["tenant_id"] for row in await stored.pool.fetch(_HELD + ", tenant_id")]
    await stored.settle()

    rows = await stored.pool.fetch("SELECT tenant_id, waiting_for FROM hookseal.deliveries WHERE waiting_for <> ''")
    assert {"t1": "endpoint_disabled", "t4": "endpoint_disabled"} == {row[0]: row[1] for row in rows}
    assert 0 == await PostgresHolds(stored.pool).release_strays(at_most=2)


async def test_a_held_endpoint_that_is_disabled(stored: Installation) -> None:
    """Its deliveries wait for that from then on; once it is enabled they are let go."""
    rings = await held(stored)
    rings += await stored.deliveries()
    await disable(stored)
    await stored.settle()
    assert ["endpoint_disabled"] * 2 == await waiting(stored, rings)
    assert 0 == await probe(stored)
    await enable(stored)
    await stored.settle()

    assert [None, None] == await waiting(stored, rings)


async def test_a_held_endpoint_that_is_deleted(stored: Installation) -> None:
    """Nothing of it waits any more, and nothing holds it."""
    await held(stored)
    async with stored.pool.acquire() as connection:
        assert 1 == await delete_endpoint(stored.operator(connection), ACME, await one(stored))

    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
    assert 0 == await stored.pool.fetchval("SELECT count(waiting_for) FROM hookseal.deliveries")


async def test_a_probe_time_that_is_not_ours(stored: Installation) -> None:
    """A time further away than any of ours does not keep the endpoint from being probed."""
    await held(stored)
    await stored.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now() + interval '1 y'")

    assert 1 == await PostgresHolds(stored.pool).probe()


@pytest.mark.req("DEL-22")
async def test_since_when_it_waits_is_always_known(stored: Installation) -> None:
    """An older worker, and a hand, write no `held_at`: what waits has one all the same, and what does not has none."""
    [ring] = await stored.deliveries()
    write = "UPDATE hookseal.deliveries SET waiting_for = $1"
    is_now = "SELECT held_at = now() FROM hookseal.deliveries"
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute(write, "endpoint_disabled")
        assert await connection.fetchval(is_now)
        await connection.execute(write, None)
        assert await connection.fetchval(is_now) is None
    await stored.pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    await stored.pool.execute(write, "endpoint_disabled")
    await stored.pool.execute("UPDATE hookseal.deliveries SET held_at = now() - interval '8 days'")
    await stored.pool.execute(write, "endpoint_disabled")

    assert 1 == await PostgresHolds(stored.pool).cancel(days=7), "to write the same again does not begin anew"
    assert "cancelled" == (await stored.delivery(ring))["state"]


@pytest.mark.req("DEL-22")
async def test_what_waits_for_too_long_is_cancelled(stored: Installation) -> None:
    """After so many days, by the clock of the database, it ends with the reason; what waits for a secret never does."""
    await disable(stored)
    old, young = [(await stored.deliveries())[0] for _ in range(2)]
    await stored.endpoint("globex")
    [other] = await stored.deliveries("globex")
    await ledger(stored.pool).release(await claimed(stored, other), REFUSED)
    await stored.pool.execute(
        "UPDATE hookseal.deliveries SET held_at = now() - interval '7 days 1 s' WHERE id <> $1::text::uuid",
        young.delivery_id,
    )
    holds = PostgresHolds(stored.pool)

    assert [1, 0] == [await holds.cancel(days=7), await holds.cancel(days=7)]
    row = await stored.delivery(old)
    assert ("cancelled", None, None, None) == tuple(
        row[name] for name in ("state", "waiting_for", "held_at", "next_attempt_at")
    )
    assert "HOOKSEAL_HELD_DAYS is 7" in row["last_error"]
    assert ["endpoint_disabled", "secret"] == await waiting(stored, [young, other])


@pytest.mark.req("DEL-22")
async def test_what_was_enabled_is_not_cancelled(stored: Installation) -> None:
    """What waits still to be let go after `enable`, however long it has waited, is not cancelled."""
    await disable(stored)
    [ring] = await stored.deliveries()
    await enable(stored)
    await stored.pool.execute("UPDATE hookseal.deliveries SET held_at = now() - interval '30 days'")

    assert 0 == await PostgresHolds(stored.pool).cancel(days=7)
    await stored.settle()
    claim = await claimed(stored, ring)
    delivered = await ledger(stored.pool).record(claim, ROW, DELIVERED, None)
    assert (DELIVERED, Outcome.SERVER_ERROR) == (delivered, ROW.outcome)
