"""The ledger in PostgreSQL: claims, records, a 410, races between workers, and what is counted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pytest

from hookseal.audit.chain import Action
from hookseal.audit.log import lock_chain, verify
from hookseal.dispatcher.core.endpoint_health import BOUNDS_MS, AttemptCounts, Key
from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE, LIVE_SECONDS
from hookseal.dispatcher.core.looks import LookStart
from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    Claimed,
    FinishedAttempt,
    Outcome,
    Recorded,
    Retries,
    Ring,
    State,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import NOT_SENT, Wait
from hookseal.dispatcher.store import ledger as batches
from hookseal.dispatcher.store.delivery_queries import show
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.held import older_claims
from hookseal.dispatcher.store.ledger import _BATCHES, PostgresLedger, _ids
from hookseal.embedded.server import Server
from hookseal.errors import Busy, Unavailable
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import audit_gone
from hookseal.operations.endpoint.rotation import signing
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.endpoint import pointer
from tests import rows
from tests.doubles.claims import RING, claim
from tests.doubles.clock import StallingClock
from tests.doubles.logbook import audited
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked

pytestmark = pytest.mark.usefixtures("begun_pool")

ROW = Attempt(outcome=Outcome.SERVER_ERROR, status=503, duration_ms=12, snippet="later", signed_by=("db:acme:n:1",))
DELIVERED = Verdict(state=State.DELIVERED)
FAILED = Verdict(state=State.FAILED)
WAIT = Wait(waiting_for=WaitingFor.SECRET, seconds=60, reason="why")
_TOKEN: Final = "01900000-0000-4000-8000-00000000000f"
_STRANGE: Final = "01900000-0000-7000-8000-0000000000ff"
_ACME: Final = TenantId("acme")
_HELD: Final = (
    "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints"
)
_RELEASED: Final = "UPDATE hookseal.held_endpoints SET released_at = now()"
_WAITS: Final = "UPDATE hookseal.deliveries SET waiting_for = "
_OVERLAPS: Final = "UPDATE hookseal.endpoints SET previous_secret_ref = 'r', previous_secret_expires_at = now()"
# Before a claim, and whether the statement for one claims then.
_BEFORE: Final = {
    "SELECT 1": True,
    "UPDATE hookseal.deliveries SET attempts = 5, budget_spent = 4, rung_at = now() - interval '1 minute'": True,
    "UPDATE hookseal.deliveries SET created_at = '-infinity'": True,
    "UPDATE hookseal.events SET correlation_id = 'c', traceparent = 't'": True,
    "UPDATE hookseal.endpoints SET enabled = false, first_failure_at = now(), retry_schedule = NULL": True,
    f"{_OVERLAPS} + interval '1 h'": True,
    _OVERLAPS: True,
    f"{_HELD}; {_RELEASED}": True,
    f"{_WAITS} 'concurrency'": True,
    f"{_WAITS} 'concurrency'; {_HELD}": False,
    f"{_WAITS} 'rate'": False,
    "UPDATE hookseal.deliveries SET next_attempt_at = now() + interval '1 h'": False,
    "UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL": False,
    _HELD: False,
    "DELETE FROM hookseal.endpoints": False,
}
GONE = Attempt(outcome=Outcome.GONE, status=410, duration_ms=12, snippet="", signed_by=("db:acme:n:1",))
DISABLE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")
_ENDPOINT = "SELECT enabled, disabled_reason, disabled_at FROM hookseal.endpoints"
_DISABLED = """
SELECT l.at BETWEEN e.disabled_at AND now(), l.generation FROM hookseal.audit_log AS l, hookseal.endpoints AS e
 WHERE l.action = 'endpoint.disabled'
"""
ARRIVED = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=7, snippet=None, signed_by=())
TIMED_OUT = replace(ARRIVED, outcome=Outcome.TIMEOUT, status=None, duration_ms=20_001)


def ledger(pool: Pool, *, lease_seconds: float = 45) -> PostgresLedger:
    """Return the ledger of worker w1."""
    return PostgresLedger(pool, worker="w1", lease_seconds=lease_seconds)


@pytest.mark.req("DEL-15")
@pytest.mark.parametrize("in_batch", [False, True])
async def test_an_attempt_is_stored_with_every_field(pool: Pool, stored: Installation, in_batch: bool) -> None:
    """An attempt is stored with its number, start, duration, status, outcome, snippet, signers and worker."""
    [ring] = await stored.deliveries()
    claim = await stored.claim(ring)
    why = "the receiver answered 503"
    if in_batch:
        made = FinishedAttempt(claim=claim, attempt=ROW, verdict=FAILED, error=why)
        assert [Recorded.STORED] == await ledger(pool).record_all([made])
    else:
        await ledger(pool).record(claim, ROW, FAILED, why)

    [kept] = await stored.attempts(ring)
    row = await stored.delivery(ring)
    assert (1, claim.claimed_at, 12, 503, "server_error", "later", ["db:acme:n:1"], "w1") == tuple(
        kept[name]
        for name in ("number", "started_at", "duration_ms", "status", "outcome", "snippet", "signed_by", "worker")
    )
    assert ring.endpoint_id == str(kept["endpoint_id"])
    assert ("failed", 1, "the receiver answered 503", None, None) == tuple(
        row[name] for name in ("state", "attempts", "last_error", "lease_token", "next_attempt_at")
    )


async def test_a_shown_delivery_lists_as_many_attempts_as_it_counts(
    pool: Pool, stored: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ring] = await stored.deliveries()
    claim = await stored.claim(ring)

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
async def test_a_claim_stores_what_its_attempt_needs(pool: Pool, installation: Installation) -> None:
    """A claim stores its owner, number, start, refs and generation, from which an attempt can be written later."""
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)

    row = await installation.delivery(ring)
    assert ("sending", "w1", 1, [added.pointer.secret_ref], 1) == tuple(
        row[name] for name in ("state", "lease_owner", "claimed_number", "claimed_refs", "claimed_generation")
    )
    assert row["lease_expires_at"] > row["claimed_at"]


async def test_nothing_of_a_claim_stays_when_it_has_ended(pool: Pool, stored: Installation) -> None:
    """What it read is with the attempt then, if there is one: a finished delivery would keep it twice."""
    ends: tuple[Callable[[Claim], Awaitable[object]], ...] = (
        lambda claim: ledger(pool).record(claim, ROW, DELIVERED, None),
        lambda claim: ledger(pool).record_all(
            [FinishedAttempt(claim=claim, attempt=ROW, verdict=DELIVERED, error=None)]
        ),
        lambda claim: ledger(pool).release(claim, None),
        lambda claim: ledger(pool).give_back([claim.lease_token]),
        lambda claim: ledger(pool).end(claim, State.CANCELLED, "why"),
        lambda _claim: ledger(pool).end_lost_leases(),
        lambda claim: ledger(pool).release(claim, WAIT),  # it holds the endpoint, so it is the last
    )
    for end in ends:
        [ring] = await stored.deliveries()
        await end(await stored.claim(ring, lease_seconds=0))
        row = await stored.delivery(ring)
        assert "sending" != row["state"]
        assert [] == [
            name for name, value in row.items() if name.startswith(("claimed_", "lease_")) and value is not None
        ]


@pytest.mark.req("DEL-15", "SEC-09")
async def test_a_claim_during_an_overlap_stores_both_secrets(pool: Pool, installation: Installation) -> None:
    """A claim stores every secret that signs its attempt, so that neither is destroyed, nor missing on record."""
    added = await installation.endpoint()
    rotated = await installation.rotate(added.pointer.endpoint_id, overlap_seconds=3600)
    [ring] = await installation.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    await ledger(pool).end_lost_leases()

    [kept] = await installation.attempts(ring)
    assert [rotated.secret_ref, added.pointer.secret_ref] == kept["signed_by"]


@pytest.mark.req("DEL-15")
async def test_a_dead_workers_attempt_is_on_record(pool: Pool, installation: Installation) -> None:
    """An expired lease is ended: its attempt is recorded as unknown, with its refs, and the delivery is due."""
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    lost = await installation.claim(ring, lease_seconds=0)

    assert [State.PENDING] == await ledger(pool).end_lost_leases()
    assert [] == await ledger(pool).end_lost_leases()
    [kept] = await installation.attempts(ring)
    assert (1, "unknown", [added.pointer.secret_ref], "w1") == tuple(
        kept[name] for name in ("number", "outcome", "signed_by", "worker")
    )
    assert ring.endpoint_id == str(kept["endpoint_id"])
    assert not await ledger(pool).record(lost, ROW, DELIVERED, None), "the lost claim recorded an outcome"
    again = await installation.claim(ring)
    assert 2 == again.number


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.req("DEL-15")
async def test_a_dead_workers_last_attempt_is_a_dead_letter(pool: Pool, installation: Installation) -> None:
    """If a worker dies during the last attempt of the budget, it is recorded as unknown, and nothing is due."""
    added = await installation.endpoint()
    await rows.change(pool, "endpoints", retry_schedule=None, max_attempts=2)
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


async def test_a_locked_delivery_delays_no_lost_lease(pool: Pool, stored: Installation) -> None:
    """A lost lease whose row another transaction has locked is left for the next sweep, and all others are ended."""
    locked, free = (await stored.deliveries())[0], (await stored.deliveries())[0]
    for ring in (locked, free):
        await ledger(pool, lease_seconds=0).claim(ring)
    async with pool.acquire() as other, other.transaction():
        await other.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR KEY SHARE", locked.delivery_id
        )
        async with pool.acquire() as sweeping:
            await sweeping.execute("SET lock_timeout = '1s'")
            assert [State.PENDING] == await PostgresLedger(sweeping, worker="w2", lease_seconds=45).end_lost_leases()
        assert "sending" == (await stored.delivery(locked))["state"]
    assert [State.PENDING] == await ledger(pool).end_lost_leases()


async def test_a_delivery_given_back_keeps_its_last_error(pool: Pool, stored: Installation) -> None:
    """A delivery that is given back without a reason still says how its last attempt ended."""
    [ring] = await stored.deliveries()
    retry = Verdict(state=State.PENDING, retry_in_seconds=0)
    for end in (
        lambda claim: ledger(pool).record(claim, ROW, retry, "the receiver answered 503"),
        lambda claim: ledger(pool).release(claim, None),
    ):
        claim = await stored.claim(ring)
        assert await end(claim)
        assert "the receiver answered 503" == (await stored.delivery(ring))["last_error"]


async def test_an_expired_lease_of_a_deleted_endpoint_is_ended(pool: Pool, stored: Installation) -> None:
    [ring] = await stored.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    await rows.remove(pool, "endpoints")

    assert [State.PENDING] == await ledger(pool).end_lost_leases()
    claim = await stored.claim(ring)
    assert claim.target is None


async def test_a_running_lease_is_not_ended(pool: Pool, stored: Installation) -> None:
    [ring] = await stored.deliveries()
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
    pool: Pool, stored: Installation, unrecorded: float | None, beaten: float, ended: list[State]
) -> None:
    """The expired lease of a worker that knows outcomes which it cannot record is ended once its heartbeat is old."""
    [ring] = await stored.deliveries()
    assert await ledger(pool, lease_seconds=0).claim(ring)
    since = rows.ago(seconds=unrecorded) if unrecorded else None
    await rows.worker(pool, "w1", unrecorded_since=since, beaten_at=rows.ago(seconds=beaten))

    assert ended == await PostgresLedger(pool, worker="w2", lease_seconds=45).end_lost_leases()


@pytest.mark.req("DUR-04")
async def test_only_own_leases_are_prolonged(pool: Pool, stored: Installation) -> None:
    """A worker prolongs the leases of its claims, expired or not, and no other worker's; a locked row is left out."""
    expired, running, locked, of_other = [(await stored.deliveries())[0] for _ in range(4)]
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
async def test_a_prolongation_does_not_delay_a_revocation(pool: Pool, installation: Installation) -> None:
    """A claim that has read an older generation of its endpoint keeps the lease that it has."""
    pointer = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    assert await ledger(pool).claim(ring)
    before = (await installation.delivery(ring))["lease_expires_at"]
    await installation.rotate(pointer.endpoint_id, tenant=pointer.tenant_id, overlap_seconds=0)

    assert 0 == await ledger(pool).prolong_leases()
    assert before == (await installation.delivery(ring))["lease_expires_at"]


@pytest.mark.req("DEL-03")
async def test_a_lease_ends_after_its_expiry(pool: Pool, stored: Installation) -> None:
    """The sweep ends a lease after its expiry, not at it, also beside one that has expired.

    `now()` is constant within a transaction.
    """
    [ring], [other] = await stored.deliveries(), await stored.deliveries()
    await ledger(pool).claim(ring)
    async with pool.acquire() as connection, connection.transaction():
        sweeping = PostgresLedger(connection, worker="w2", lease_seconds=45)
        await rows.change(connection, "deliveries", lease_expires_at=rows.NOW)
        assert [] == await sweeping.end_lost_leases()
        await sweeping.claim(other)
        expired = rows.Sql("now() - interval '1 microsecond'")
        await rows.change(connection, "deliveries", ring.delivery_id, lease_expires_at=expired)
        await rows.change(connection, "deliveries", other.delivery_id, lease_expires_at=rows.NOW)
        assert [State.PENDING] == await sweeping.end_lost_leases()
        assert [] == await sweeping.end_lost_leases()


@pytest.mark.req("DEL-03")
async def test_a_look_does_not_pass_a_lease_that_it_leaves(pool: Pool, stored: Installation) -> None:
    """A lease that was left to its worker, and one that a slow claim committed late, are found by the next look."""
    [left], [late] = await stored.deliveries(), await stored.deliveries()
    await ledger(pool).claim(left)
    await rows.change(pool, "deliveries", left.delivery_id, lease_expires_at=rows.ago(hours=1))
    start = LookStart(clock := StallingClock())
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries WHERE state = 'sending' FOR UPDATE")
        assert [] == await ledger(pool).end_lost_leases(start)
        clock.stalls = False  # no whole look comes again
    assert [State.PENDING] == await ledger(pool).end_lost_leases(start)

    assert [] == await ledger(pool).end_lost_leases(start)
    await ledger(pool).claim(late)
    await rows.change(pool, "deliveries", late.delivery_id, lease_expires_at=rows.ago(seconds=4))
    assert [State.PENDING] == await ledger(pool).end_lost_leases(start)


@pytest.mark.req("DEL-15")
async def test_an_attempt_counts_as_recorded_if_all_fields_match(pool: Pool, stored: Installation) -> None:
    [ring] = await stored.deliveries()
    claim = await stored.claim(ring)
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
async def test_the_first_reason_for_disabling_is_kept(pool: Pool, stored: Installation) -> None:
    """The verdict that disables an endpoint stores reason and time; a later one changes neither."""
    kept: list[tuple[object, ...]] = []
    claims = [await ledger(pool).claim((await stored.deliveries())[0]) for _ in range(2)]
    for reason, claimed in zip(("first", "second"), claims, strict=True):
        assert claimed is not None
        await ledger(pool).record(claimed, ROW, Verdict(state=State.FAILED, disable=reason), "why")
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
    pool: Pool, stored: Installation, columns: str, retries: tuple[int, int, int, tuple[int, ...] | None]
) -> None:
    """A claim contains the endpoint's retry settings; a schedule allows one attempt more than it has delays."""
    await pool.execute(f"UPDATE hookseal.endpoints SET {columns}")  # noqa: S608 -- the columns are those above
    [ring] = await stored.deliveries()
    claim = await ledger(pool).claim(ring)

    allowed, base, cap, schedule = retries
    assert claim is not None
    assert claim.target is not None
    assert (
        Retries(attempts_allowed=allowed, backoff_base_seconds=base, backoff_cap_seconds=cap, schedule=schedule)
        == claim.target.retries
    )


@pytest.mark.req("DEL-06")
async def test_a_delivery_waits_longer_than_a_day(pool: Pool, stored: Installation) -> None:
    """A wait of a week is stored to the second, by the database's clock."""
    [ring] = await stored.deliveries()
    claim = await stored.claim(ring)
    await ledger(pool).record(claim, ROW, Verdict(state=State.PENDING, retry_in_seconds=604_800), "why")

    assert await pool.fetchval(
        "SELECT next_attempt_at BETWEEN now() + interval '604740 s' AND now() + interval '604800 s'"
        " FROM hookseal.deliveries"
    )


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_a_claim_never_contains_plaintext(pool: Pool, stored: Installation) -> None:
    await rows.change(pool, "endpoints", secret="plain-text-of-an-older-system")
    [ring] = await stored.deliveries()
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
async def test_unreadable_rows_are_refused(pool: Pool, stored: Installation, change: str) -> None:
    """The tables refuse a manual change that a claim or a sweep could not read."""
    [ring] = await stored.deliveries()
    await stored.deliveries()
    await ledger(pool).claim(ring)

    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(change)


async def test_the_longest_timeout_ignores_disabled_endpoints(pool: Pool, installation: Installation) -> None:
    assert 0 == await ledger(pool).longest_timeout_ms()
    await installation.endpoint()
    await rows.change(pool, "endpoints", timeout_ms=9000)
    assert 9000 == await ledger(pool).longest_timeout_ms()
    await rows.change(pool, "endpoints", enabled=False)
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
    pool: Pool, stored: Installation, statement: str, *, expected: bool
) -> None:
    """A lock that keeps every record waiting is found; locked rows, and what a vacuum takes, are none."""
    await stored.deliveries()
    async with pool.acquire() as other, other.transaction():
        await other.execute(statement)
        assert expected is await ledger(pool).are_tables_locked()
    assert not await ledger(pool).are_tables_locked()


async def claims_of(connection: Connection, ring: Ring, *, most_bytes: int = 1_000) -> tuple[Any, Any]:
    """Return what the statement for one delivery, and the one for many, claim and leave in the row, but the time."""
    claims: list[Any] = []
    async with connection.transaction():  # so that it is the same time for both
        for name in ("claim_one", "claim_all"):
            claiming = connection.transaction()
            await claiming.start()
            found = await connection.fetch(_BATCHES[name], *_ids([ring]), "w1", 45.0, _TOKEN, most_bytes, NOT_SENT)
            stored = await connection.fetch("SELECT * FROM hookseal.deliveries WHERE state = 'sending'")
            claimed = [dict(row) for row in (*found, *stored) if row.get("left_for") is None]
            claims.append([{name: each[name] for name in each if name != "claimed_at"} for each in claimed])
            await claiming.rollback()
    return claims[0], claims[1]


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize(("before", "claims"), _BEFORE.items())
async def test_one_is_claimed_as_by_the_statement_for_many(stored: Installation, before: str, *, claims: bool) -> None:
    [ring] = await stored.deliveries()
    async with stored.pool.acquire() as connection:
        await connection.execute(before)
        one, many = await claims_of(connection, ring)

    assert one == (many if claims else [])
    assert bool(one) == claims


@pytest.mark.req("DEL-03")
async def test_one_that_a_worker_has_parked_is_claimed(stored: Installation) -> None:
    [ring] = await stored.deliveries()
    async with stored.pool.acquire() as connection:
        await connection.execute(f"{_WAITS} 'rate'")
        one, many = await claims_of(connection, replace(ring, is_parked=True))

    assert one == many
    assert one


@pytest.mark.req("DEL-17")
async def test_only_the_head_of_a_line_is_claimed_alone(installation: Installation) -> None:
    await installation.add(
        NewEndpoint(tenant_id=_ACME, url="https://receiver.example/1", event_types=("*",), settings={"ordered": True})
    )
    head, behind = [(await installation.deliveries())[0] for _ in range(2)]
    async with installation.pool.acquire() as connection:
        await connection.execute(f"{_WAITS} NULL")
        one, many = await claims_of(connection, head)
        nothing, neither = await claims_of(connection, behind)

    assert one == many
    assert one
    assert ([], []) == (nothing, neither)


@pytest.mark.req("SEC-08", "DEL-02")
async def test_a_ring_with_a_wrong_id_claims_no_one(stored: Installation) -> None:
    [ring] = await stored.deliveries()
    other = await stored.endpoint(url="https://receiver.example/other")
    forged = (
        replace(ring, tenant_id=TenantId("globex")),
        replace(ring, endpoint_id=EndpointId(other.pointer.endpoint_id)),
        replace(ring, delivery_id=DeliveryId(_STRANGE)),
    )
    async with stored.pool.acquire() as connection:
        for each in forged:
            assert ([], []) == await claims_of(connection, each)


@pytest.mark.req("DUR-04")
@pytest.mark.parametrize("table", ["deliveries", "endpoints"])
async def test_one_that_is_locked_is_left_to_the_statement_for_many(stored: Installation, table: str) -> None:
    [ring] = await stored.deliveries()
    async with stored.pool.acquire() as holder, holder.transaction(), stored.pool.acquire() as connection:
        await holder.execute(f"SELECT FROM hookseal.{table} FOR UPDATE")
        assert ([], []) == await claims_of(connection, ring)


async def test_one_whose_body_is_too_large_is_not_claimed(stored: Installation) -> None:
    [ring] = await stored.deliveries()
    size: int = await stored.pool.fetchval("SELECT octet_length(body) FROM hookseal.events")
    async with stored.pool.acquire() as connection:
        assert ([], []) == await claims_of(connection, ring, most_bytes=size - 1)
        one, many = await claims_of(connection, ring, most_bytes=size)

    assert one == many
    assert one


async def moved(installation: Installation, ring: Ring, url: str = "https://receiver.example/moved") -> None:
    """Change the URL of this delivery's endpoint."""
    async with installation.pool.acquire() as connection:
        await update_endpoint(
            installation.operator(connection), ring.tenant_id, ring.endpoint_id, {"url": url}, own_drain_seconds=25
        )


async def in_flight(installation: Installation) -> Claim:
    """Return the claim of a delivery to a new endpoint."""
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(installation.pool).claim(ring)
    assert claim is not None
    return claim


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_late_410_disables_nothing(pool: Pool, installation: Installation) -> None:
    """After `endpoint update --url`, a 410 of the old URL is recorded unspent; the delivery is due, for the new URL."""
    claim = await in_flight(installation)
    await moved(installation, claim.ring)

    done = await ledger(pool).record(claim, GONE, DISABLE, "the receiver answered 410")

    assert (True, None, None) == tuple(await pool.fetchrow(_ENDPOINT) or ())
    assert Verdict(state=State.PENDING) == done
    row = await installation.delivery(claim.ring)
    assert ("pending", 1, 0, None, None) == tuple(
        row[name] for name in ("state", "attempts", "budget_spent", "rung_at", "waiting_for")
    )
    assert "the receiver answered 410 before the endpoint was changed" == row["last_error"]
    [kept] = await installation.attempts(claim.ring)
    assert ("gone", 410) == (kept["outcome"], kept["status"])
    again = await installation.claim(claim.ring)
    assert again.target is not None
    assert (2, 0, "https://receiver.example/moved") == (again.number, again.budget_spent, again.target.pointer.url)
    assert DISABLE == await ledger(pool).record(again, GONE, DISABLE, "the receiver answered 410"), (
        "the 410 of the new URL did not disable the endpoint"
    )
    assert not await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_410_waits_for_a_change_of_the_endpoint(pool: Pool, installation: Installation) -> None:
    """A 410 that is recorded while the URL is being changed waits for that change, and sees the new endpoint."""
    claim = await in_flight(installation)
    async with pool.acquire() as moving, moving.transaction():
        await update_endpoint(
            installation.operator(moving),
            *(claim.ring.tenant_id, claim.ring.endpoint_id),
            {"url": "https://receiver.example/moved"},
            own_drain_seconds=25,
        )
        recording = asyncio.create_task(ledger(pool).record(claim, GONE, DISABLE, "the receiver answered 410"))
        await blocked(installation)

    assert Verdict(state=State.PENDING) == await recording
    assert await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_410_of_a_deleted_endpoint_fails_the_delivery(pool: Pool, installation: Installation) -> None:
    claim = await in_flight(installation)
    await rows.remove(pool, "endpoints")

    assert DISABLE == await ledger(pool).record(claim, GONE, DISABLE, "the receiver answered 410")
    assert "failed" == (await installation.delivery(claim.ring))["state"]


def auditing(installation: Installation) -> PostgresLedger:
    """Return the ledger of worker w1, which audits as a worker does."""

    async def audit(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="worker/w1")
        await audit_gone(operator, tenant, endpoint_id, reason)

    return PostgresLedger(installation.pool, worker="w1", lease_seconds=45, audit=audit)


async def recorded(installation: Installation, claim: Claim) -> Verdict | None:
    """Record a 410 of this claim."""
    return await auditing(installation).record(claim, GONE, DISABLE, "the receiver answered 410")


@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.req("SEC-14", part="append")
async def test_a_disabled_endpoint_is_audited(pool: Pool, installation: Installation) -> None:
    """A 410 disables the endpoint and adds an audit row: the worker, the reason, the time; the chain stays intact."""
    claim = await in_flight(installation)
    assert DISABLE == await recorded(installation, claim)

    assert {
        "action": "endpoint.disabled",
        "subject": f"endpoint:{claim.ring.endpoint_id}",
        "who": "worker/w1",
        "before": {"enabled": True, "disabled_reason": None},
        "after": {"enabled": False, "disabled_reason": DISABLE.disable},
    } == (await audited(pool))[-1]
    # Without a generation the row is not taken for a move of the pointer.
    assert (True, None) == tuple(await pool.fetchrow(_DISABLED) or ())
    [chain] = await verify(pool, installation.unlocked.integrity, tenant=TenantId("acme"))
    assert chain.broken is None
    await installation.rotate(claim.ring.endpoint_id)


async def _not_disabled(installation: Installation, claim: Claim) -> None:
    """The attempt is on record, and the endpoint is enabled, without an audit row."""
    assert "failed" == (await installation.delivery(claim.ring))["state"]
    assert ["gone"] == [each["outcome"] for each in await installation.attempts(claim.ring)]
    assert (True, None, None) == tuple(await installation.pool.fetchrow(_ENDPOINT) or ())
    assert "endpoint.disabled" not in {row["action"] for row in await audited(installation.pool)}


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_locked_audit_log_delays_no_outcome(pool: Pool, installation: Installation) -> None:
    """While another change of the tenant holds its audit log, and then wants the endpoint, the outcome is recorded.

    Neither is ended by a deadlock. The endpoint stays enabled, and the next 410 disables it.
    """
    claim = await in_flight(installation)
    async with pool.acquire() as other:
        async with other.transaction():
            await lock_chain(other, TenantId("acme"))
            recording = asyncio.create_task(recorded(installation, claim))
            await blocked(installation)
            await rows.change(other, "endpoints", name="changed")
        assert Verdict(state=State.FAILED) == await recording
    await _not_disabled(installation, claim)

    [ring] = await installation.deliveries()
    again = await installation.claim(ring)
    assert DISABLE == await recorded(installation, again)
    assert "endpoint.disabled" == (await audited(pool))[-1]["action"]


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_broken_audit_log_loses_no_outcome(pool: Pool, installation: Installation) -> None:
    """If the audit log of the tenant takes no row, the outcome is recorded, and nothing is disabled without one."""
    claim = await in_flight(installation)
    await pool.execute("UPDATE hookseal.audit_heads SET mac = sha256('x') WHERE tenant_id = 'acme'")
    assert Verdict(state=State.FAILED) == await recorded(installation, claim)
    await _not_disabled(installation, claim)


def made(attempt: Attempt, endpoint: str = "a") -> FinishedAttempt:
    ring = Ring(tenant_id=TenantId("acme"), endpoint_id=EndpointId(endpoint), delivery_id=DeliveryId("d"))
    return FinishedAttempt(
        claim=replace(claim(), ring=ring), attempt=attempt, verdict=Verdict(state=State.FAILED), error=None
    )


def key(endpoint: str) -> Key:
    return TenantId("acme"), EndpointId(endpoint)


@pytest.mark.req("DEL-08")
@pytest.mark.pure
def test_a_duration_is_counted_at_its_bound() -> None:
    """A duration is counted at the first bound that it does not exceed; counts that were taken start at zero again."""
    counts = AttemptCounts()
    for attempt in (ARRIVED, TIMED_OUT, replace(ARRIVED, duration_ms=8), replace(TIMED_OUT, duration_ms=None)):
        counts.add(made(attempt))
    counts.add(made(ARRIVED, "b"))
    taken = counts.take()

    assert {key("a"), key("b")} == taken.keys()
    assert 2 == taken[key("a")].delivered
    expected = {0: 1, BOUNDS_MS.index(7): 1, BOUNDS_MS.index(10): 1, len(BOUNDS_MS): 1}
    assert expected == {place: number for place, number in enumerate(taken[key("a")].durations) if number}
    assert {} == counts.take()


@pytest.mark.req("DEL-08")
@pytest.mark.pure
def test_returned_counts_are_added() -> None:
    counts = AttemptCounts()
    counts.add(made(ARRIVED))
    taken = counts.take()
    counts.add(made(ARRIVED))
    counts.add(made(TIMED_OUT))
    counts.put_back(taken)

    again = counts.take()[key("a")]
    assert (2, 3, 2) == (again.delivered, sum(again.durations), again.durations[BOUNDS_MS.index(7)])


@pytest.mark.req("DEL-08")
@pytest.mark.pure
def test_the_number_of_endpoints_is_bounded() -> None:
    """Beyond the bound no further endpoint is counted; those that are counted go on."""
    counts = AttemptCounts(most=1)
    counts.add(made(ARRIVED))
    counts.add(made(ARRIVED, "b"))
    counts.add(made(ARRIVED))
    taken = counts.take()
    assert {key("a"): 2} == {each: found.delivered for each, found in taken.items()}
    counts.add(made(ARRIVED, "b"))
    counts.put_back(taken)
    assert {key("b")} == counts.take().keys()


@pytest.fixture
def paused_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both claim statements wait for advisory lock 7 after the snapshot is taken; they are otherwise unchanged."""
    condition = "WHERE d.endpoint_id IS NOT DISTINCT"
    waits = condition.replace("WHERE", "WHERE pg_advisory_xact_lock_shared(7) IS NOT NULL AND")
    for name in ("claim_one", "claim_all"):
        real = batches._BATCHES[name]
        assert condition in real
        monkeypatch.setitem(batches._BATCHES._texts, name, real.replace(condition, waits))


@pytest.fixture
def paused_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the statement that records a batch wait in the same way."""
    condition = "WHERE d.lease_token IS NOT DISTINCT"
    real = batches._BATCHES["record_all"]
    assert condition in real
    waits = condition.replace("WHERE", "WHERE pg_advisory_xact_lock_shared(7) IS NOT NULL AND")
    monkeypatch.setitem(batches._BATCHES._texts, "record_all", real.replace(condition, waits))


async def wait_for_a_blocked_connection(pool: Pool) -> None:
    """Return once a connection to this database waits for a lock."""
    async with asyncio.timeout(60):
        while not await pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        ):
            pass


@asynccontextmanager
async def move_pointer(installation: Installation, found: Pointer, **changes: Any) -> AsyncIterator[Pointer]:
    """Yield the moved pointer; the transaction that moves and audits it is committed after the block."""
    async with installation.pool.acquire() as mover, mover.transaction():
        locked = await pointer.lock(mover, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
        if "previous_secret_ref" in changes:
            changes["previous_secret_expires_at"] = await pointer.time_after(mover, 3600)
        moved = await pointer.move(
            mover, installation.unlocked.integrity, locked, secret_ref=f"{str(found.secret_ref)[:-1]}2", **changes
        )
        await installation.operator(mover).audit(Action.SECRET_ROTATED, of=moved, after=signing(moved))
        yield moved


async def count_older_claims(connection: Connection, moved: Pointer) -> int:
    """Return how many running claims read the pointer before this move."""
    return await older_claims(connection, moved.tenant_id, moved.endpoint_id, moved.generation)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("overlap", [False, True])
async def test_a_claim_reads_a_rotation_committed_after_its_snapshot(
    paused_claims: None, pool: Pool, installation: Installation, number: int, *, overlap: bool
) -> None:
    """A claim with a snapshot from before a rotation's commit still gets the new refs, generation, MAC and audit row.

    With an older audit row the row would look as if nobody had audited it.
    """
    found = (await installation.endpoint()).pointer
    rings = [(await installation.deliveries())[0] for _ in range(number)]
    kept = {"previous_secret_ref": found.secret_ref, "previous_scheme": "standard", "previous_algorithm": "hmac"}
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        claiming = asyncio.create_task(ledger(pool).claim_all(rings, None, most_bytes=1_000_000))
        await wait_for_a_blocked_connection(pool)  # the claim has taken its snapshot
        async with move_pointer(installation, found, **(kept if overlap else {})) as moved:
            pass
    claims = (await claiming).claims

    assert number == len(claims)
    assert claims[0].target is not None
    read = claims[0].target.pointer
    elsewhere: dict[str, Any] = {"cache_epoch": read.cache_epoch, "read_at": read.read_at, "database": read.database}
    assert replace(moved, previous_due=overlap, **elsewhere) == read
    row = await installation.delivery(rings[0])
    assert (2, [moved.secret_ref, found.secret_ref] if overlap else [moved.secret_ref]) == (
        row["claimed_generation"],
        row["claimed_refs"],
    )
    async with pool.acquire() as connection:
        assert 0 == await count_older_claims(connection, moved), "the claim counts as older than the move"


@pytest.mark.req("SEC-10")
async def test_a_rotation_waits_for_an_uncommitted_claim_and_counts_it(pool: Pool, installation: Installation) -> None:
    """A move waits until a claim that read the pointer is committed, and then counts it as an older claim."""
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()

    async def move() -> Pointer:
        async with move_pointer(installation, found) as moved:
            pass
        return moved

    async with pool.acquire() as claimer:
        async with claimer.transaction():
            claim = await PostgresLedger(claimer, worker="w1", lease_seconds=45).claim(ring)
            task = asyncio.create_task(move())
            await wait_for_a_blocked_connection(pool)
        moved = await task
        assert claim is not None
        assert claim.target is not None
        assert (found.secret_ref, 1) == (claim.target.pointer.secret_ref, await count_older_claims(claimer, moved))


@pytest.mark.req("SEC-10")
async def test_an_older_claim_counts_until_it_is_recorded(pool: Pool, installation: Installation) -> None:
    """A claim from before a revocation counts as older while its lease runs, and no longer once it is recorded."""
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    claim = await installation.claim(ring)
    async with move_pointer(installation, found) as moved:
        pass

    row = await installation.delivery(ring)
    assert ("sending", 1) == (row["state"], row["claimed_generation"])
    assert await pool.fetchval("SELECT lease_expires_at > now() FROM hookseal.deliveries")
    async with pool.acquire() as connection:
        assert 1 == await count_older_claims(connection, moved)
        assert await ledger(pool).record(claim, ROW, DELIVERED, None)
        assert 0 == await count_older_claims(connection, moved)


@pytest.mark.req("SEC-10")
async def test_a_dead_workers_claim_counts_until_its_lease_expires(pool: Pool, installation: Installation) -> None:
    """An expired lease does not delay a revocation, because its worker may no longer send."""
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    async with move_pointer(installation, found) as moved:
        pass

    async with pool.acquire() as connection:
        assert 0 == await count_older_claims(connection, moved)


@pytest.mark.req("SEC-10")
async def test_a_claim_does_not_wait_for_a_locked_endpoint(pool: Pool, installation: Installation) -> None:
    """While an endpoint is being changed, a claim of its delivery is refused at once; afterwards it succeeds."""
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    async with move_pointer(installation, found) as moved:
        with pytest.raises(Busy, match="being changed"):
            await ledger(pool).claim(ring)
        assert "pending" == (await installation.delivery(ring))["state"]
    claim = await ledger(pool).claim(ring)

    assert claim is not None
    assert claim.target is not None
    assert moved.secret_ref == claim.target.pointer.secret_ref


@pytest.mark.parametrize("number", [1, 2])
async def test_a_claim_beside_a_deletion_has_no_target(
    paused_claims: None, pool: Pool, stored: Installation, number: int
) -> None:
    """If its endpoint was deleted after its snapshot, a claim is locked out; the next one has no target.

    The claim of one delivery makes that next one by itself.
    """
    rings = [(await stored.deliveries())[0] for _ in range(number)]
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        claiming = asyncio.create_task(ledger(pool).claim_all(rings, None, most_bytes=1_000_000))
        await wait_for_a_blocked_connection(pool)
        await rows.remove(pool, "endpoints")
    claimed = await claiming
    if number > 1:
        assert Claimed(claims=[], busy=[], locked=rings) == claimed
        claimed = await ledger(pool).claim_all(rings, None, most_bytes=1_000_000)

    assert [None] * number == [claim.target for claim in claimed.claims]


async def test_a_batch_leaves_out_an_outcome_whose_delivery_has_changed(
    paused_records: None, pool: Pool, stored: Installation
) -> None:
    rings = [(await stored.deliveries())[0] for _ in range(2)]
    claimed = await ledger(pool).claim_all(rings, None, most_bytes=1_000_000)
    made = [FinishedAttempt(claim=each, attempt=ROW, verdict=DELIVERED, error=None) for each in claimed.claims]
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        recording = asyncio.create_task(ledger(pool).record_all(made))
        await wait_for_a_blocked_connection(pool)
        changed = made[0].claim.ring.delivery_id
        await rows.change(pool, "deliveries", changed, lease_expires_at=rows.Sql("lease_expires_at + interval '1 s'"))

    assert [Recorded.BUSY, Recorded.STORED] == await recording
    assert [Recorded.STORED] == await ledger(pool).record_all(made[:1])


async def test_a_claim_does_not_wait_for_a_locked_delivery(pool: Pool, stored: Installation) -> None:
    [ring] = await stored.deliveries()
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        with pytest.raises(Busy):
            await ledger(pool).claim(ring)

    assert await ledger(pool).claim(ring) is not None


@pytest.mark.req("SEC-10", "DEL-03")
async def test_the_databases_clock_decides_the_end_of_an_overlap(pool: Pool, installation: Installation) -> None:
    """The previous secret is due, and its ref is claimed, until its expiry by the database's clock."""
    found = (await installation.endpoint()).pointer
    previous = "db:acme:old:1"
    read: list[tuple[bool, str | None, list[str]]] = []
    await rows.change(
        pool, "endpoints", previous_secret_ref=previous, previous_scheme="x-webhook", previous_algorithm="hmac"
    )
    for seconds in (3600, 10, -1, -3600):
        await rows.change(pool, "endpoints", previous_secret_expires_at=rows.ahead(seconds=seconds))
        [ring] = await installation.deliveries()
        claim = await installation.claim(ring)
        assert claim.target is not None
        stored = (await installation.delivery(ring))["claimed_refs"]
        read.append((claim.target.pointer.previous_due, claim.target.pointer.previous_scheme, stored))

    assert [
        (True, "x-webhook", [found.secret_ref, previous]),
        (True, "x-webhook", [found.secret_ref, previous]),
        (False, "x-webhook", [found.secret_ref]),
        (False, "x-webhook", [found.secret_ref]),
    ] == read


async def test_a_claim_contains_the_cache_epoch(pool: Pool, stored: Installation) -> None:
    epochs = []
    for _ in range(2):
        await rows.change(pool, "control", "cache", epoch=rows.Sql("epoch + 1"))
        [ring] = await stored.deliveries()
        claim = await stored.claim(ring)
        assert claim.target is not None
        epochs.append(claim.target.pointer.cache_epoch)

    assert 1 == epochs[1] - epochs[0]
    assert epochs[1] == await pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
