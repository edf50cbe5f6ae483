"""What the ledger stores in PostgreSQL, and what the sweep asks of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE, LIVE_SECONDS
from hookseal.dispatcher.core.model import (
    Attempt,
    FinishedAttempt,
    Outcome,
    Recorded,
    Retries,
    State,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.store.delivery_queries import show
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.ids import TenantId
from tests.doubles.claims import RING
from tests.doubles.replaced import replace
from tests.doubles.stored import begin

Pool = asyncpg.Pool
pytestmark = pytest.mark.usefixtures("begun_pool")
ROW = Attempt(outcome=Outcome.SERVER_ERROR, status=503, duration_ms=12, snippet="later", signed_by=("db:acme:n:1",))
DELIVERED = Verdict(state=State.DELIVERED)
FAILED = Verdict(state=State.FAILED)
WAIT = Wait(waiting_for=WaitingFor.SECRET, seconds=60, reason="why")
NOBODY = "00000000-0000-4000-8000-000000000000"


def ledger(pool: "Pool[asyncpg.Record]", *, lease_seconds: float = 45) -> PostgresLedger:
    """Return the ledger of worker w1."""
    return PostgresLedger(pool, worker="w1", lease_seconds=lease_seconds)


@pytest.mark.req("DEL-15")
@pytest.mark.parametrize("in_batch", [False, True])
async def test_an_attempt_is_stored_with_every_field(pool: "Pool[asyncpg.Record]", in_batch: bool) -> None:
    """An attempt is stored with its number, start, duration, status, outcome, snippet, signers and worker."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    why = "the receiver answered 503"
    if in_batch:
        made = FinishedAttempt(claim=claim, attempt=ROW, verdict=FAILED, error=why)
        assert [Recorded.STORED] == await ledger(pool).record_all([made])
    else:
        await ledger(pool).record(claim, ROW, FAILED, why)

    [kept] = await installation.attempts(ring)
    row = await installation.delivery(ring)
    assert (1, claim.claimed_at, 12, 503, "server_error", "later", ["db:acme:n:1"], "w1") == tuple(
        kept[name]
        for name in ("number", "started_at", "duration_ms", "status", "outcome", "snippet", "signed_by", "worker")
    )
    assert ("failed", 1, "the receiver answered 503", None, None) == tuple(
        row[name] for name in ("state", "attempts", "last_error", "lease_token", "next_attempt_at")
    )


async def test_a_shown_delivery_lists_as_many_attempts_as_it_counts(
    pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that is recorded between two statements of `show` would be listed, and not counted."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None

    def record_between_statements(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run(*arguments: Any, **options: Any) -> Any:
            found = await read(*arguments, **options)
            monkeypatch.undo()
            await ledger(pool).record(claim, ROW, FAILED, "the receiver answered 503")
            return found

        return run

    async with pool.acquire() as reading:
        for name in ("fetch", "fetchrow"):
            monkeypatch.setattr(asyncpg.Connection, name, record_between_statements(getattr(asyncpg.Connection, name)))
        shown = await show(reading, ring.delivery_id)
    assert (0, []) == (shown["attempts"], shown["attempt_log"])
    shown = await show(pool, ring.delivery_id)
    assert (1, [1]) == (shown["attempts"], [attempt["number"] for attempt in shown["attempt_log"]])


@pytest.mark.req("DEL-03")
async def test_a_claim_stores_what_its_attempt_needs(pool: "Pool[asyncpg.Record]") -> None:
    """A claim stores its owner, number, start, refs and generation, from which an attempt can be written later."""
    installation = await begin(pool)
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)

    row = await installation.delivery(ring)
    assert ("sending", "w1", 1, [added.pointer.secret_ref], 1) == tuple(
        row[name] for name in ("state", "lease_owner", "claimed_number", "claimed_refs", "claimed_generation")
    )
    assert row["lease_expires_at"] > row["claimed_at"]


@pytest.mark.req("DEL-15")
@pytest.mark.req("SEC-09")
async def test_a_claim_during_an_overlap_stores_both_secrets(pool: "Pool[asyncpg.Record]") -> None:
    """A claim stores every secret that signs its attempt, so that neither is destroyed, nor missing on record."""
    installation = await begin(pool)
    added = await installation.endpoint()
    rotated = await installation.rotate(added.pointer.endpoint_id, overlap_seconds=3600)
    [ring] = await installation.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    await ledger(pool).end_lost_leases()

    [kept] = await installation.attempts(ring)
    assert [rotated.secret_ref, added.pointer.secret_ref] == kept["signed_by"]


@pytest.mark.req("DEL-15")
async def test_a_dead_workers_attempt_is_on_record(pool: "Pool[asyncpg.Record]") -> None:
    """An expired lease is ended: its attempt is recorded as unknown, with its refs, and the delivery is due."""
    installation = await begin(pool)
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    lost = await ledger(pool, lease_seconds=0).claim(ring)
    assert lost is not None

    assert [State.PENDING] == await ledger(pool).end_lost_leases()
    assert [] == await ledger(pool).end_lost_leases()
    [kept] = await installation.attempts(ring)
    assert (1, "unknown", [added.pointer.secret_ref], "w1") == tuple(
        kept[name] for name in ("number", "outcome", "signed_by", "worker")
    )
    assert not await ledger(pool).record(lost, ROW, DELIVERED, None), "the lost claim recorded an outcome"
    again = await ledger(pool).claim(ring)
    assert again is not None
    assert 2 == again.number


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.req("DEL-15")
async def test_a_dead_workers_last_attempt_is_a_dead_letter(pool: "Pool[asyncpg.Record]") -> None:
    """If a worker dies during the last attempt of the budget, it is recorded as unknown, and nothing is due."""
    installation = await begin(pool)
    added = await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET retry_schedule = NULL, max_attempts = 2")
    [ring] = await installation.deliveries()
    dying = ledger(pool, lease_seconds=0)
    states: list[tuple[str, int, int, bool]] = []
    for _ in range(2):
        await dying.claim(ring)
        [state] = await dying.end_lost_leases()
        row = await installation.delivery(ring)
        assert state == row["state"]
        states.append((row["state"], row["attempts"], row["budget_spent"], row["next_attempt_at"] is not None))

    assert [("pending", 1, 1, True), ("dead_letter", 2, 2, False)] == states
    assert [(1, "unknown", [added.pointer.secret_ref]), (2, "unknown", [added.pointer.secret_ref])] == [
        (kept["number"], kept["outcome"], kept["signed_by"]) for kept in await installation.attempts(ring)
    ]
    assert await ledger(pool).claim(ring) is None


async def test_a_locked_delivery_delays_no_lost_lease(pool: "Pool[asyncpg.Record]") -> None:
    """A lost lease whose row another transaction has locked is left for the next sweep, and all others are ended."""
    installation = await begin(pool)
    await installation.endpoint()
    locked, free = (await installation.deliveries())[0], (await installation.deliveries())[0]
    for ring in (locked, free):
        await ledger(pool, lease_seconds=0).claim(ring)
    async with pool.acquire() as other, other.transaction():
        await other.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR KEY SHARE", locked.delivery_id
        )
        async with pool.acquire() as sweeping:
            await sweeping.execute("SET lock_timeout = '1s'")
            assert [State.PENDING] == await PostgresLedger(sweeping, worker="w2", lease_seconds=45).end_lost_leases()
        assert "sending" == (await installation.delivery(locked))["state"]
    assert [State.PENDING] == await ledger(pool).end_lost_leases()


async def test_a_delivery_given_back_keeps_its_last_error(pool: "Pool[asyncpg.Record]") -> None:
    """A delivery that is given back without a reason still says how its last attempt ended."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    retry = Verdict(state=State.PENDING, retry_in_seconds=0)
    for end in (
        lambda claim: ledger(pool).record(claim, ROW, retry, "the receiver answered 503"),
        lambda claim: ledger(pool).release(claim, None),
    ):
        claim = await ledger(pool).claim(ring)
        assert claim is not None
        assert await end(claim)
        assert "the receiver answered 503" == (await installation.delivery(ring))["last_error"]


async def test_an_expired_lease_of_a_deleted_endpoint_is_ended(pool: "Pool[asyncpg.Record]") -> None:
    """An expired lease is ended even if the endpoint is missing; the next claim has no target."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    await pool.execute("DELETE FROM hookseal.endpoints")

    assert [State.PENDING] == await ledger(pool).end_lost_leases()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    assert claim.target is None


async def test_a_running_lease_is_not_ended(pool: "Pool[asyncpg.Record]") -> None:
    """The sweep does not end a lease that has not expired."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)

    assert [] == await ledger(pool).end_lost_leases()


@pytest.mark.req("DUR-02", "DUR-04")
@pytest.mark.parametrize(
    ("unrecorded", "beaten", "ended"),
    [
        pytest.param(3_600, LIVE_SECONDS - 5, [], id="it cannot record"),
        pytest.param(3_600, LIVE_SECONDS, [State.PENDING], id="it could not, and died"),
        pytest.param(None, 0, [State.PENDING], id="it can record"),
    ],
)
async def test_a_lease_is_left_to_a_live_worker_that_cannot_record(
    pool: "Pool[asyncpg.Record]", unrecorded: float | None, beaten: float, ended: list[State]
) -> None:
    """The expired lease of a worker that knows outcomes which it cannot record is ended once its heartbeat is old."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    assert await ledger(pool, lease_seconds=0).claim(ring)
    await pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, unrecorded_since, beaten_at)"
        " VALUES ('w1', '', 25, 45, '{}', now() - make_interval(secs => $1), now() - make_interval(secs => $2))",
        unrecorded,
        beaten,
    )

    assert ended == await PostgresLedger(pool, worker="w2", lease_seconds=45).end_lost_leases()


@pytest.mark.req("DUR-04")
async def test_only_own_leases_are_prolonged(pool: "Pool[asyncpg.Record]") -> None:
    """A worker prolongs the leases of its claims, expired or not, and no other worker's; a locked row is left out."""
    installation = await begin(pool)
    await installation.endpoint()
    expired, running, locked, of_other = [(await installation.deliveries())[0] for _ in range(4)]
    await ledger(pool, lease_seconds=0).claim(expired)
    await ledger(pool).claim(running)
    await ledger(pool, lease_seconds=0).claim(locked)
    await PostgresLedger(pool, worker="w2", lease_seconds=0).claim(of_other)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", locked.delivery_id)
        assert 2 == await ledger(pool).prolong_leases()

    valid = await pool.fetch(
        "SELECT id::text FROM hookseal.deliveries WHERE lease_expires_at > now() + interval '30 seconds'"
    )
    assert {expired.delivery_id, running.delivery_id} == {row["id"] for row in valid}


@pytest.mark.req("SEC-10")
async def test_a_prolongation_does_not_delay_a_revocation(pool: "Pool[asyncpg.Record]") -> None:
    """A claim that has read an older generation of its endpoint keeps the lease that it has."""
    installation = await begin(pool)
    pointer = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    assert await ledger(pool).claim(ring)
    before = (await installation.delivery(ring))["lease_expires_at"]
    await installation.rotate(pointer.endpoint_id, tenant=pointer.tenant_id, overlap_seconds=0)

    assert 0 == await ledger(pool).prolong_leases()
    assert before == (await installation.delivery(ring))["lease_expires_at"]


@pytest.mark.req("DEL-03")
async def test_a_lease_ends_after_its_expiry(pool: "Pool[asyncpg.Record]") -> None:
    """The sweep ends a lease after its expiry, not at it. `now()` is constant within a transaction."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)
    async with pool.acquire() as connection, connection.transaction():
        sweeping = PostgresLedger(connection, worker="w2", lease_seconds=45)
        await connection.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
        assert [] == await sweeping.end_lost_leases()
        await connection.execute("UPDATE hookseal.deliveries SET lease_expires_at = now() - interval '1 microsecond'")
        assert [State.PENDING] == await sweeping.end_lost_leases()


@pytest.mark.req("DEL-15")
async def test_an_attempt_counts_as_recorded_if_all_fields_match(pool: "Pool[asyncpg.Record]") -> None:
    """An attempt counts as recorded only if delivery, number, worker and outcome match."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    made = FinishedAttempt(claim=claim, attempt=ROW, verdict=FAILED, error=None)
    assert set() == await ledger(pool).recorded([made])
    await ledger(pool).record(claim, ROW, FAILED, "the receiver answered 503")

    assert {ring.delivery_id} == await ledger(pool).recorded([made])
    others = [
        replace(made, attempt=replace(ROW, outcome=Outcome.UNKNOWN)),
        replace(made, claim=replace(claim, number=2)),
        replace(made, claim=replace(claim, ring=replace(ring, tenant_id=TenantId("globex")))),
        replace(made, claim=replace(claim, ring=replace(ring, delivery_id=RING.delivery_id))),
    ]
    assert set() == await ledger(pool).recorded(others)
    assert set() == await PostgresLedger(pool, worker="w2", lease_seconds=45).recorded([made])


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_the_first_reason_for_disabling_is_kept(pool: "Pool[asyncpg.Record]") -> None:
    """The verdict that disables an endpoint stores reason and time; a later one changes neither."""
    installation = await begin(pool)
    await installation.endpoint()
    kept: list[tuple[object, ...]] = []
    claims = [await ledger(pool).claim((await installation.deliveries())[0]) for _ in range(2)]
    for reason, claim in zip(("first", "second"), claims, strict=True):
        assert claim is not None
        await ledger(pool).record(claim, ROW, Verdict(state=State.FAILED, disable=reason), "why")
        [row] = await pool.fetch("SELECT enabled, disabled_reason, disabled_at FROM hookseal.endpoints")
        kept.append(tuple(row))

    assert (False, "first") == kept[0][:2]
    assert kept[0][2] is not None
    assert kept[0] == kept[1]


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("columns", "retries"),
    [
        ("enabled = true", (11, 30, 43_200, DEFAULT_RETRY_SCHEDULE)),
        (
            "retry_schedule = NULL, max_attempts = 3, backoff_base_seconds = 5, backoff_cap_seconds = 60",
            (3, 5, 60, None),
        ),
        ("retry_schedule = '{5,300,7200}'", (4, 30, 43_200, (5, 300, 7200))),
    ],
)
async def test_a_claim_contains_the_retry_settings(
    pool: "Pool[asyncpg.Record]", columns: str, retries: tuple[int, int, int, tuple[int, ...] | None]
) -> None:
    """A claim contains the endpoint's retry settings; a schedule allows one attempt more than it has delays."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(f"UPDATE hookseal.endpoints SET {columns}")  # noqa: S608 -- the columns are those above
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)

    allowed, base, cap, schedule = retries
    assert claim is not None
    assert claim.target is not None
    assert (
        Retries(attempts_allowed=allowed, backoff_base_seconds=base, backoff_cap_seconds=cap, schedule=schedule)
        == claim.target.retries
    )


@pytest.mark.req("DEL-06")
async def test_a_delivery_waits_longer_than_a_day(pool: "Pool[asyncpg.Record]") -> None:
    """A wait of a week is stored to the second, by the database's clock."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    await ledger(pool).record(claim, ROW, Verdict(state=State.PENDING, retry_in_seconds=604_800), "why")

    assert await pool.fetchval(
        "SELECT next_attempt_at BETWEEN now() + interval '604740 s' AND now() + interval '604800 s'"
        " FROM hookseal.deliveries"
    )


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_a_claim_never_contains_plaintext(pool: "Pool[asyncpg.Record]") -> None:
    """A claim never contains the plaintext of an endpoint's column `secret`."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET secret = 'plain-text-of-an-older-system'")
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)

    assert claim is not None
    assert "plain-text" not in repr(claim)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hookseal.deliveries SET lease_owner = NULL WHERE state = 'sending'",
        "UPDATE hookseal.deliveries SET next_attempt_at = 'infinity' WHERE state = 'pending'",
        "UPDATE hookseal.endpoints SET previous_secret_expires_at = '20000-01-01Z'",
    ],
)
async def test_unreadable_rows_are_refused(pool: "Pool[asyncpg.Record]", change: str) -> None:
    """The tables refuse a manual change that a claim or a sweep could not read."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await installation.deliveries()
    await ledger(pool).claim(ring)

    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(change)


async def test_the_longest_timeout_ignores_disabled_endpoints(pool: "Pool[asyncpg.Record]") -> None:
    """The longest time-out is that of the enabled endpoints."""
    installation = await begin(pool)
    assert 0 == await ledger(pool).longest_timeout_ms()
    await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 9000")
    assert 9000 == await ledger(pool).longest_timeout_ms()
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    assert 0 == await ledger(pool).longest_timeout_ms()


async def test_an_outage_is_unavailable(own_postgres: Server) -> None:
    """A server that is frozen or gone is `Unavailable`, within seconds, and the error contains no value."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=1) as pool:
        real = PostgresLedger(pool, worker="w1", lease_seconds=45)
        assert await real.claim(RING) is None
        own_postgres.freeze()
        try:
            with pytest.raises(Unavailable, match="TimeoutError"):
                await real.claim(RING)
        finally:
            own_postgres.thaw()
        pool.terminate()
        with pytest.raises(Unavailable):
            await real.claim(RING)


@pytest.mark.req("DUR-04")
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("LOCK TABLE hookseal.attempts IN ACCESS EXCLUSIVE MODE", True),
        ("LOCK TABLE hookseal.deliveries IN SHARE MODE", True),
        ("SELECT FROM hookseal.endpoints FOR UPDATE", False),
        ("UPDATE hookseal.deliveries SET last_error = last_error", False),
        ("LOCK TABLE hookseal.attempts IN SHARE UPDATE EXCLUSIVE MODE", False),
    ],
)
async def test_a_locked_table_is_found_beside_locked_rows(
    pool: "Pool[asyncpg.Record]", statement: str, *, expected: bool
) -> None:
    """A lock that keeps every record waiting is found; locked rows, and what a vacuum takes, are none."""
    installation = await begin(pool)
    await installation.endpoint()
    await installation.deliveries()
    async with pool.acquire() as other, other.transaction():
        await other.execute(statement)
        assert expected is await ledger(pool).are_tables_locked()
    assert not await ledger(pool).are_tables_locked()
