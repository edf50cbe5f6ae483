"""What operators read: why a delivery waits, pages of deliveries, the use of secrets, figures of an endpoint."""

import re
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from hookseal.dispatcher.core.endpoint_health import BOUNDS_MS, Counts
from hookseal.dispatcher.core.model import Attempt, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.url import PLAIN_HTTP
from hookseal.dispatcher.core.why import EndpointFacts, Facts, LastAttempt, explain
from hookseal.dispatcher.store import delivery_queries, endpoint_queries
from hookseal.dispatcher.store.delivery_queries import Filter, Use, page
from hookseal.dispatcher.store.endpoint_queries import EndpointFilter
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import DeliveryId, EndpointId, Place, TenantId
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import statements
from tests import rows
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(minutes=5), NOW + timedelta(minutes=5)
ID, HEAD = "0197c1f0-5e6a-7c3b-9d2e-4f5061728395", "0197c1f0-5e6a-7c3b-9d2e-4f5061728390"
AT = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
OF = f"--tenant acme --endpoint {AT}"
ENABLED = EndpointFacts(enabled=True, disabled_reason=None, disabled_at=None, attempts_allowed=10)
DISABLED = replace(ENABLED, enabled=False, disabled_reason="it moves", disabled_at=EARLIER)
TRIED = LastAttempt(number=3, outcome="server_error", status=503, ended_at=EARLIER)
FACTS = Facts(
    now=NOW,
    tenant_id=TenantId("acme"),
    delivery_id=DeliveryId(ID),
    endpoint_id=EndpointId(AT),
    state=State.PENDING,
    waiting_for=None,
    held_at=None,
    next_attempt_at=EARLIER,
    rung_at=None,
    finished_at=None,
    lease_owner=None,
    lease_expires_at=None,
    claimed_at=None,
    claimed_number=None,
    budget_spent=0,
    last_error=None,
    last_attempt=None,
    endpoint=ENABLED,
    held_for=None,
    probe_at=None,
    ahead=None,
    ahead_state=None,
    number_ahead=0,
    stops_line=False,
    live_workers=2,
    has_leader=True,
)
AT_EARLIER, AT_LATER = "2026-03-01T11:55:00Z", "2026-03-01T12:05:00Z"
FAILED_3_OF_10 = "attempt 3 failed (server_error, status 503); attempts spent: 3 of 10."
RETRIED = {"next_attempt_at": LATER, "budget_spent": 3}
REPLAY = f"hookseal delivery replay {ID}"
REPLAY_HEAD, SKIP_HEAD = f"hookseal delivery replay {HEAD}", f"`hookseal delivery skip {HEAD}`"
ENABLE = f"hookseal endpoint enable {OF}"
_BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_TENANTS = (TenantId("acme"), TenantId("globex"))
_ENDPOINTS = tuple(EndpointId(f"0197c1f0-5e6a-7c3b-9d2e-4f506172839{number}") for number in range(2))
_TYPES = ("invoice.paid", "user.created")
_STATES = (State.PENDING, State.DELIVERED, State.DEAD_LETTER, State.FAILED)
_SETS = (
    *(None, (State.PENDING,), (State.DELIVERED,), (State.DEAD_LETTER,), (State.FAILED, State.DEAD_LETTER)),
    *((State.PENDING, State.SENDING), (State.PENDING, State.FAILED)),
)
# The n-th delivery is created a minute after the one before, and its id begins with that time.
_STORED = """
WITH e AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    VALUES ($1, $2::integer::text, $3, now(), '', ''))
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, created_at)
VALUES ($1, (lpad(to_hex((extract(epoch FROM $6::timestamptz) * 1000)::bigint), 12, '0') || '7000800000000000'
             || lpad(to_hex($2), 4, '0'))::uuid,
        $4::text::uuid, $2::text, $5::text, CASE WHEN $5::text = 'pending' THEN now() END, $6)
RETURNING id::text
"""
TENANT = TenantId("acme")
ONE, TWO, NONE = "db:acme:webhook-endpoint-x:1", "db:acme:webhook-endpoint-x:2", "db:acme:webhook-endpoint-x:3"
ACME = TenantId("acme")
UNKNOWN = EndpointId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
NO_ATTEMPTS = {"attempts": 0, "delivered": 0, "success_rate": None, "p50_ms": None, "p99_ms": None}
PERCENTILES: list[tuple[list[int], float, float | None]] = [
    ([0] * 27, 0.5, None),
    ([0, 10] + [0] * 25, 0.5, 1.5),
    ([0, 10] + [0] * 25, 1.0, 2.0),
    ([50] + [0] * 3 + [50] + [0] * 22, 0.5, 1.0),
    ([50] + [0] * 3 + [50] + [0] * 22, 0.75, 6.0),
    ([99] + [0] * 25 + [1], 0.99, 1.0),
    ([0] * 26 + [5], 0.5, 20_000.0),
]
_GROWN = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{*}' FROM generate_series(1, 500) AS n;
INSERT INTO hookseal.attempt_counts (tenant_id, endpoint_id, since, delivered, durations)
SELECT 'acme', md5(n::text)::uuid, now() - make_interval(mins => 15 * q), 1, array_fill(1::bigint, ARRAY[27])
FROM generate_series(1, 500) AS n, generate_series(0, 40) AS q;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(1, 20000) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id)
SELECT 'acme', hookseal.uuid7(), md5((n % 500 + 1)::text)::uuid, 'e' || n FROM generate_series(1, 20000) AS n;
ANALYZE;
"""


def held(waiting_for: WaitingFor, **facts: Any) -> dict[str, Any]:
    """Return the facts of a delivery that has waited for this since five minutes ago."""
    return {"waiting_for": waiting_for, "held_at": EARLIER, **facts}


def leased(expires_at: datetime, **facts: Any) -> dict[str, Any]:
    """Return the facts of a delivery that is being sent under this lease."""
    lease = {"lease_owner": "w-1", "lease_expires_at": expires_at, "claimed_at": EARLIER, "claimed_number": 4}
    return {"state": State.SENDING, "next_attempt_at": None, **lease, **facts}


def ended(state: State, **facts: Any) -> dict[str, Any]:
    """Return the facts of a finished delivery."""
    return {"state": state, "next_attempt_at": None, "finished_at": EARLIER, **facts}


CASES: list[tuple[dict[str, Any], datetime | None, str | None, list[str]]] = [
    (
        held(WaitingFor.SECRET, last_error="it was destroyed", probe_at=LATER),
        *(EARLIER, "hookseal secret cache-clear", ["secret", "(“it was destroyed”)", "SecretRefused", AT_LATER]),
    ),
    (
        held(WaitingFor.SECRET, last_error=PLAIN_HTTP, probe_at=LATER),
        *(EARLIER, f"hookseal endpoint update {OF} --url https://...", [PLAIN_HTTP, AT_LATER]),
    ),
    (held(WaitingFor.SECRET), EARLIER, None, ["secret", "by the leader"]),
    (held(WaitingFor.SECRET, live_workers=0), EARLIER, "hookseal worker", ["secret", "No worker runs"]),
    (
        held(WaitingFor.ENDPOINT_DISABLED, endpoint=DISABLED),
        *(EARLIER, ENABLE, [f"disabled at {AT_EARLIER} (“it moves”)", "of 7 days at 2026-03-08T11:55:00Z"]),
    ),
    (
        held(WaitingFor.ENDPOINT_DISABLED, endpoint=replace(DISABLED, disabled_at=None, disabled_reason=None)),
        *(EARLIER, ENABLE, ["its endpoint was disabled.", "HOOKSEAL_HELD_DAYS"]),
    ),
    (held(WaitingFor.ENDPOINT_DISABLED), EARLIER, None, ["enabled again now", "by the leader"]),
    (held(WaitingFor.ENDPOINT_DISABLED, endpoint=None), EARLIER, None, ["deleted now", "by the leader"]),
    (held(WaitingFor.BREAKER, last_error="timeout"), EARLIER, ENABLE, ["breaker", "(“timeout”)", "every 5 minutes"]),
    (held(WaitingFor.RATE), EARLIER, f"hookseal endpoint update {OF} --rate N/s", ["its rate limit allows"]),
    (held(WaitingFor.CONCURRENCY), EARLIER, f"hookseal endpoint update {OF} --concurrency N", ["its concurrency"]),
    (
        held(WaitingFor.CONCURRENCY, endpoint=replace(ENABLED, rate=0.5)),
        *(EARLIER, f"hookseal endpoint update {OF} --rate N/s", ["(0.5/s) and its concurrency", "--concurrency"]),
    ),
    (
        {"next_attempt_at": LATER, "last_attempt": TRIED, "budget_spent": 3, "held_for": WaitingFor.BREAKER},
        *(EARLIER, ENABLE, [FAILED_3_OF_10, f"its due time, {AT_LATER}", "then by the breaker"]),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.SENDING, number_ahead=1),
        *(EARLIER, f"hookseal delivery why {HEAD}", [f"delivery {HEAD} is not finished."]),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.DEAD_LETTER, number_ahead=4),
        *(EARLIER, REPLAY_HEAD, [f"delivery {HEAD}, which is a dead letter, stops it; 4 come before", SKIP_HEAD]),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.FAILED, number_ahead=1),
        *(EARLIER, REPLAY_HEAD, [f"delivery {HEAD}, which is failed for good, stops it.", SKIP_HEAD]),
    ),
    (held(WaitingFor.ORDER), EARLIER, None, ["the first of its endpoint now", "by the leader"]),
    (
        ended(State.DEAD_LETTER, budget_spent=10, stops_line=True),
        *(EARLIER, REPLAY, ["a dead letter", "spent (10)", "nothing behind it is sent", f"delivery skip {ID}"]),
    ),
    ({}, EARLIER, "hookseal check", ["it is due, and no worker has claimed it", "the outbox does within a second"]),
    ({"has_leader": False}, EARLIER, "hookseal check", ["no worker has claimed it", "a sweep does"]),
    ({"live_workers": 0, "has_leader": False}, EARLIER, "hookseal worker", ["because no worker runs"]),
    ({"rung_at": NOW}, EARLIER, "hookseal check", ["marked as rung at 2026-03-01T12:00:00Z", "if the ring was lost"]),
    (
        {"next_attempt_at": LATER, "last_attempt": TRIED, "budget_spent": 3},
        *(EARLIER, REPLAY, [FAILED_3_OF_10, f"its due time, {AT_LATER}."]),
    ),
    (
        {**RETRIED, "last_attempt": TRIED, "endpoint": replace(ENABLED, attempts_allowed=2)},
        *(EARLIER, REPLAY, ["its endpoint now allows 2: the next one is the last"]),
    ),
    (
        {**RETRIED, "last_attempt": replace(TRIED, outcome="timeout", status=None), "endpoint": None},
        *(EARLIER, None, ["attempt 3 failed (timeout); attempts spent: 3.", "Its endpoint is deleted"]),
    ),
    (
        {"next_attempt_at": LATER, "endpoint": DISABLED, "held_for": WaitingFor.BREAKER},
        *(None, ENABLE, ["gave it back without an attempt", "then by `endpoint enable`", "(“it moves”)"]),
    ),
    (
        {**RETRIED, "last_attempt": TRIED, "endpoint": DISABLED},
        *(EARLIER, ENABLE, [FAILED_3_OF_10, f"its due time, {AT_LATER}", "then by `endpoint enable`", "(“it moves”)"]),
    ),
    (
        {"endpoint": DISABLED, "next_attempt_at": EARLIER},
        *(EARLIER, ENABLE, [f"is not sent, because its endpoint was disabled at {AT_EARLIER}", "default of 7 days)"]),
    ),
    (
        {"next_attempt_at": LATER, "last_error": "hookseal could not send it: see the worker's log"},
        *(None, REPLAY, ["gave it back without an attempt (“hookseal could not send it", f"its due time, {AT_LATER}"]),
    ),
    (leased(LATER), EARLIER, None, ["worker w-1 is sending attempt 4 now", f"its lease ends at {AT_LATER}"]),
    (leased(LATER, live_workers=0), EARLIER, "hookseal worker", ["is sending attempt 4", "No worker runs"]),
    (
        leased(EARLIER),
        *(EARLIER, None, ["w-1 claimed it for attempt 4", "HooksealUnrecorded", f"lease expired at {AT_EARLIER}"]),
    ),
    (leased(EARLIER, live_workers=0), EARLIER, "hookseal worker", ["lease expired", "No worker runs"]),
    (ended(State.DELIVERED, last_attempt=TRIED), EARLIER, REPLAY, ["the receiver accepted it at attempt 3."]),
    (ended(State.DELIVERED), EARLIER, REPLAY, ["the receiver accepted it."]),
    (
        ended(State.DEAD_LETTER, last_attempt=TRIED, budget_spent=3, last_error="server_error"),
        *(EARLIER, REPLAY, ["a dead letter: all its attempts are spent (3)", "the last one failed (“server_error”)."]),
    ),
    (
        ended(State.FAILED, last_attempt=TRIED, endpoint=DISABLED, last_error="gone"),
        *(EARLIER, ENABLE, ["failed for good", "(“gone”)", "Its endpoint is disabled", f"`{REPLAY}` after"]),
    ),
    (
        ended(State.CANCELLED, endpoint=None, last_error="the endpoint was deleted"),
        *(EARLIER, None, ["cancelled", "(“the endpoint was deleted”)", "Its endpoint is deleted"]),
    ),
]


@pytest.mark.req("OPS-12")
@pytest.mark.parametrize(("facts", "since", "command", "said"), CASES)
def test_each_state_is_explained(
    facts: dict[str, Any], since: datetime | None, command: str | None, said: list[str]
) -> None:
    """The text begins with the reason, and has the ids, times and limits of the case, and what releases it.

    The command stands on the last line, alone and indented.
    """
    found = explain(replace(FACTS, **facts))

    reason = found.text.partition("\n")[0]
    assert said[0].lower() in reason.lower(), reason
    assert [] == [each for each in said if each.lower() not in found.text.lower()], found.text
    assert (facts.get("state", State.PENDING), facts.get("waiting_for")) == (found.state, found.waiting_for)
    assert (since, command) == (found.since, found.command)
    assert (found.released_by is None) == (found.state not in {State.PENDING, State.SENDING})
    assert found.released_by is None or f"It is released by {found.released_by}." in found.text
    assert (f"This has been so since {AT_EARLIER}." in found.text) == (since is not None)
    assert command is None or found.text.endswith(f":\n  {command}")


@pytest.mark.req("OPS-12")
@pytest.mark.parametrize(
    ("facts", "action", "at"),
    [
        (held(WaitingFor.SECRET, probe_at=LATER), "clear_caches", {"probe_at": LATER}),
        (held(WaitingFor.SECRET, last_error=PLAIN_HTTP, probe_at=LATER), "update_endpoint", {"probe_at": LATER}),
        (held(WaitingFor.SECRET), "wait", {}),
        (held(WaitingFor.BREAKER, probe_at=LATER), "enable_endpoint", {"probe_at": LATER}),
        (
            held(WaitingFor.ENDPOINT_DISABLED, endpoint=DISABLED),
            *("enable_endpoint", {"cancelled_at": EARLIER + timedelta(days=7)}),
        ),
        (held(WaitingFor.RATE), "update_endpoint", {}),
        (held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.SENDING), "wait", {"ahead_id": HEAD}),
        (held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.FAILED), "replay", {"ahead_id": HEAD}),
        ({}, "check_workers", {}),
        ({"live_workers": 0}, "start_worker", {}),
        ({**RETRIED, "last_attempt": TRIED}, "replay", {}),
        (leased(LATER), "wait", {"lease_expires_at": LATER}),
        (ended(State.DEAD_LETTER), "replay", {}),
        (ended(State.FAILED, endpoint=DISABLED), "enable_endpoint", {}),
        (ended(State.CANCELLED, endpoint=None), "nothing", {}),
    ],
)
def test_a_program_reads_what_to_do_and_when(facts: dict[str, Any], action: str, at: dict[str, object]) -> None:
    found = explain(replace(FACTS, **facts))
    values = {name: getattr(found, name) for name in ("ahead_id", "probe_at", "cancelled_at", "lease_expires_at")}

    assert (action, at) == (found.action, {name: value for name, value in values.items() if value is not None})


@pytest.mark.req("OPS-12")
def test_every_state_and_reason_has_a_case() -> None:
    assert set(State) == {facts.get("state", State.PENDING) for facts, *_ in CASES}
    assert {None, *WaitingFor} == {facts.get("waiting_for") for facts, *_ in CASES}


@pytest.mark.req("OPS-12")
async def test_states_and_reasons_are_those_of_the_table(pool: Pool) -> None:
    found = await pool.fetch(
        "SELECT a.attname, pg_get_constraintdef(c.oid) FROM pg_attribute AS a JOIN pg_constraint AS c"
        " ON c.contypid = a.atttypid WHERE a.attrelid = 'hookseal.deliveries'::regclass"
    )
    words = {column: set(re.findall(r"'(\w+)'", check)) for column, check in found}

    assert set(State) == words["state"]
    assert set(WaitingFor) == words["waiting_for"]


@pytest.mark.req("OPS-12")
async def test_the_facts_are_those_of_the_tables(begun_pool: Pool) -> None:
    """The facts are those of the tables: lease, newest attempt, probe, and what is ahead in the order."""
    stored = await begin(begun_pool)
    await stored.add(
        NewEndpoint(
            tenant_id=TenantId("acme"), url="https://r.example/", event_types=("*",), settings={"ordered": True}
        )
    )
    ledger = PostgresLedger(begun_pool, worker="w-1", lease_seconds=45)
    [first], [second] = [await stored.deliveries() for _ in range(2)]
    claim = await ledger.claim(first)
    assert claim is not None
    sending = await delivery_queries.facts(begun_pool, first.delivery_id)
    assert (State.SENDING, "w-1", 1, None, replace(ENABLED, attempts_allowed=11), 0, False) == (
        sending.state, sending.lease_owner, sending.claimed_number, sending.last_attempt, sending.endpoint,
        sending.live_workers, sending.has_leader,
    )  # fmt: skip
    behind = await delivery_queries.facts(begun_pool, second.delivery_id)
    assert (first.delivery_id, State.SENDING, 1) == (behind.ahead, behind.ahead_state, behind.number_ahead)

    failed = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=2_000, snippet=None, signed_by=("r",))
    later = Verdict(state=State.PENDING, retry_in_seconds=60)
    assert await ledger.record(claim, failed, later, "server_error")
    assert first.delivery_id == (await delivery_queries.facts(begun_pool, second.delivery_id)).ahead
    tried = await delivery_queries.facts(begun_pool, first.delivery_id)
    ended_at = claim.claimed_at + timedelta(seconds=2)
    assert LastAttempt(number=1, outcome="server_error", status=500, ended_at=ended_at) == tried.last_attempt
    assert (1, None, 0, None) == (tried.budget_spent, tried.ahead, tried.number_ahead, tried.probe_at)
    assert not tried.stops_line
    await rows.hold(begun_pool, first.endpoint_id, waiting_for="breaker", probe_at=NOW)
    holding = await delivery_queries.facts(begun_pool, second.delivery_id)
    assert (WaitingFor.BREAKER, NOW) == (holding.held_for, holding.probe_at)
    await rows.set_state(begun_pool, "dead_letter", first.delivery_id)
    assert (await delivery_queries.facts(begun_pool, first.delivery_id)).stops_line


def _created(number: int) -> datetime:
    return _BEGAN + timedelta(minutes=number)


async def _followed(pool: Pool, wanted: Filter, *, limit: int, walked: int, few: int) -> list[str]:
    """Return the ids of all pages, none of which is longer than the limit."""
    found, cursor = list[str](), None
    while True:
        items, cursor = await page(pool, wanted, limit=limit, cursor=cursor, walked=walked, few=few)
        assert len(items) <= limit
        found += [item["delivery_id"] for item in items]
        if cursor is None:
            return found


@pytest.mark.req("DEL-15")
async def test_pages_have_every_match_once(pool: Pool) -> None:
    """Pages of any length, that read any number of deliveries, have together what the conditions select."""
    kinds = list(product(_TENANTS, _ENDPOINTS, _TYPES, _STATES))
    stored = {
        await pool.fetchval(_STORED, tenant, number, kind, endpoint, state.value, _created(number)): (
            *(tenant, endpoint, kind, state),
            _created(number),
        )
        for number, (tenant, endpoint, kind, state) in enumerate(kinds)
    }
    asked = product((None, _TENANTS[0]), (None, _ENDPOINTS[1]), (None, _TYPES[0]), _SETS, (None, 11))
    for tenant, endpoint, kind, states, since in asked:
        earliest = None if since is None else _created(since)
        wanted = Filter(tenant_id=tenant, endpoint_id=endpoint, event_type=kind, states=states, since=earliest)
        expected = [
            delivery
            for delivery, has in sorted(stored.items(), reverse=True)
            if all(of in {None, its} for of, its in zip((tenant, endpoint, kind), has[:3], strict=True))
            and (states is None or has[3] in states)
            and (earliest is None or has[4] >= earliest)
        ]
        for limit, walked, few in ((100, 100, 100), (1, 2, 0), (3, 5, 100)):
            assert expected == await _followed(pool, wanted, limit=limit, walked=walked, few=few), (wanted, walked)


@pytest.mark.req("DEL-15")
async def test_a_page_reads_a_limited_number_of_deliveries(pool: Pool) -> None:
    """A page among deliveries that do not match is empty and has a next page, until all were read."""
    for number in range(5):
        await pool.fetchval(_STORED, "acme", number, _TYPES[0], _ENDPOINTS[0], "delivered", _created(number))
    wanted = Filter(tenant_id=_TENANTS[0], event_type="no.such")
    items, cursor = await page(pool, wanted, limit=10, cursor=None, walked=3)

    assert [] == items
    assert cursor is not None
    assert ([], None) == await page(pool, wanted, limit=10, cursor=cursor, walked=3)


@pytest.mark.parametrize("since", [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)])
async def test_a_time_before_the_first_id_selects_all(pool: Pool, since: datetime) -> None:
    delivery = await pool.fetchval(_STORED, "acme", 1, _TYPES[0], _ENDPOINTS[0], "delivered", _created(1))
    items, _ = await page(pool, Filter(since=since), limit=10, cursor=None)
    assert [delivery] == [item["delivery_id"] for item in items]


async def test_a_time_after_the_last_id_selects_nothing(pool: Pool) -> None:
    await pool.fetchval(_STORED, "acme", 1, _TYPES[0], _ENDPOINTS[0], "delivered", _created(1))
    assert ([], None) == await page(pool, Filter(since=datetime.max.replace(tzinfo=UTC)), limit=10, cursor=None)


def ledger(installation: Installation) -> PostgresLedger:
    return PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)


async def sent(installation: Installation, *signed_by: tuple[str, ...]) -> Ring:
    """Publish, and record an attempt with each of these sets of signers; the last one delivers."""
    [ring] = await installation.deliveries()
    for number, refs in enumerate(signed_by, 1):
        claim = await installation.claim(ring)
        attempt = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=1, snippet=None, signed_by=refs)
        over = number == len(signed_by)
        verdict = Verdict(state=State.DELIVERED) if over else Verdict(state=State.PENDING, retry_in_seconds=0)
        assert await ledger(installation).record(claim, attempt, verdict, None)
    return ring


def signed_by(endpoint: str, ref: str, **changes: Any) -> delivery_queries.Filter:
    return delivery_queries.Filter(tenant_id=TENANT, endpoint_id=EndpointId(endpoint), signed_by=ref, **changes)


async def listed(
    installation: Installation, wanted: delivery_queries.Filter, *, limit: int, walked: int
) -> list[list[str]]:
    """Return the delivery ids of each page, following the cursor to the end."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        items, cursor = await delivery_queries.page(
            installation.pool, wanted, limit=limit, cursor=cursor, walked=walked
        )
        pages.append([item["delivery_id"] for item in items])
        if cursor is None:
            return pages


@pytest.mark.req("SEC-23")
async def test_each_signed_delivery_is_listed_once(stored: Installation) -> None:
    rings = [await sent(stored, *refs) for refs in (((ONE,),), ((ONE,), (TWO, ONE)), ((TWO,), (TWO,)))]
    endpoint = rings[0].endpoint_id
    first, second, third = (ring.delivery_id for ring in rings)
    for ref, expected in ((ONE, [second, first]), (TWO, [third, second]), (NONE, [])):
        assert [expected] == await listed(stored, signed_by(endpoint, ref), limit=50, walked=100), ref
    everything, _ = await delivery_queries.page(stored.pool, delivery_queries.Filter(), limit=50, cursor=None)
    kept, _ = await delivery_queries.page(stored.pool, signed_by(endpoint, ONE), limit=50, cursor=None)
    assert everything[1:] == kept


@pytest.mark.req("SEC-23")
async def test_all_conditions_must_hold(stored: Installation) -> None:
    ring = await sent(stored, (ONE,))
    row = await stored.delivery(ring)
    for changes, expected in (
        ({"states": (State.DELIVERED,), "event_type": "invoice.paid", "since": row["created_at"]}, [ring.delivery_id]),
        ({"states": (State.FAILED,)}, []),
        ({"event_type": "user.created"}, []),
        ({"since": row["created_at"].replace(year=2999)}, []),
    ):
        wanted = signed_by(ring.endpoint_id, ONE, **changes)
        assert [expected] == await listed(stored, wanted, limit=50, walked=100), changes


@pytest.mark.req("SEC-23")
async def test_the_cursor_ends_with_the_last_page(stored: Installation) -> None:
    """For any page size and search limit, following the cursor returns each delivery once, in no extra page."""
    rings = [await sent(stored, (ref,)) for ref in (ONE, TWO, TWO, ONE, ONE, TWO, ONE)]
    ones = [ring.delivery_id for ring, at in zip(rings, range(7), strict=True) if at in {0, 3, 4, 6}]
    for limit, walked in product((1, 2, 3, 50), (1, 2, 3, 4, 7, 8, 50)):
        pages = await listed(stored, signed_by(rings[0].endpoint_id, ONE), limit=limit, walked=walked)
        assert ones[::-1] == [delivery for page in pages for delivery in page], (limit, walked)
        assert all(len(page) <= min(limit, walked) for page in pages), (limit, walked)
        nothing = await listed(stored, signed_by(rings[0].endpoint_id, NONE), limit=limit, walked=walked)
        assert [[]] * (7 // walked + 1) == nothing, (limit, walked)


@pytest.mark.req("SEC-23", "SEC-08")
async def test_other_endpoints_are_not_counted(stored: Installation) -> None:
    """Deliveries of another endpoint or tenant are neither listed nor counted, whatever their rows contain."""
    ring = await sent(stored, (ONE,))
    await rows.remove(stored.pool, "endpoints")
    other = (await stored.endpoint(url="https://other.example/")).pointer
    await sent(stored, (ONE,))
    assert [[ring.delivery_id]] == await listed(stored, signed_by(ring.endpoint_id, ONE), limit=9, walked=9)
    globex = delivery_queries.Filter(
        tenant_id=TenantId("globex"), endpoint_id=EndpointId(ring.endpoint_id), signed_by=ONE
    )
    assert [[]] == await listed(stored, globex, limit=9, walked=9)
    owner = EndpointId(other.endpoint_id)
    assert {} == await delivery_queries.of_endpoint(stored.pool, TenantId("globex"), owner)
    assert 1 == (await delivery_queries.of_endpoint(stored.pool, TENANT, owner))[ONE].attempts


@pytest.mark.req("SEC-23")
async def test_a_claim_counts_until_its_lease_ends(stored: Installation) -> None:
    """A claim in flight counts until its lease ends, and its delivery is listed; after it is given back, neither."""
    [ring] = await stored.deliveries()
    owner = EndpointId(ring.endpoint_id)
    ref = await stored.pool.fetchval("SELECT secret_ref FROM hookseal.endpoints")
    wanted = signed_by(owner, ref)
    assert {} == await delivery_queries.of_endpoint(stored.pool, TENANT, owner)
    assert [[]] == await listed(stored, wanted, limit=9, walked=9)
    claim = await stored.claim(ring)
    assert {ref: Use(claims_in_flight=1)} == await delivery_queries.of_endpoint(stored.pool, TENANT, owner)
    assert [[ring.delivery_id]] == await listed(stored, wanted, limit=9, walked=9)

    await rows.change(stored.pool, "deliveries", lease_expires_at=rows.NOW)
    assert {} == await delivery_queries.of_endpoint(stored.pool, TENANT, owner)
    assert [[ring.delivery_id]] == await listed(stored, wanted, limit=9, walked=9)
    assert await ledger(stored).release(claim, None)
    assert [[]] == await listed(stored, wanted, limit=9, walked=9)


@pytest.mark.req("SEC-23")
async def test_each_attempt_counts_for_its_signers(stored: Installation) -> None:
    """Every attempt counts for each version that signed it, and the newest one gives the time."""
    rings = [await sent(stored, *refs) for refs in (((ONE,),), ((ONE,), (TWO, ONE)), ((TWO,), (TWO,)))]
    owner = EndpointId(rings[0].endpoint_id)
    started = [[row["started_at"] for row in await stored.attempts(ring)] for ring in rings]
    expected = {ONE: Use(attempts=3, last_signed_at=started[1][1]), TWO: Use(attempts=3, last_signed_at=started[2][1])}
    assert expected == await delivery_queries.of_endpoint(stored.pool, TENANT, owner)


@pytest.mark.req("SEC-23")
async def test_a_page_reads_by_indexes(pool: Pool) -> None:
    """A page reads the endpoint's own deliveries by an index and their attempts by key."""
    await pool.execute(
        "INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)"
        " SELECT 'acme', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(1, 5000) AS n;"
        "INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at)"
        " SELECT 'acme', hookseal.uuid7(), md5((n % 3)::text)::uuid, 'e' || n, 'delivered', NULL"
        " FROM generate_series(1, 5000) AS n;"
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " SELECT 'acme', id, 1, now(), 'delivered', ARRAY['r'], 'w' FROM hookseal.deliveries;"
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id)"
        " SELECT 'acme', md5('held' || n)::uuid FROM generate_series(1, 5000) AS n; ANALYZE;"
    )
    statement = statements("hookseal.dispatcher.store", "delivery_queries.sql")["page_of_endpoint"]
    endpoint = await pool.fetchval("SELECT md5('1')::uuid::text")
    newest, oldest = "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000"
    for event_type, cursor in ((None, newest), ("invoice.paid", "0197c1f0-5e6a-7c3b-9d2e-4f5061728394")):
        arguments = ("acme", endpoint, event_type, None, cursor, 51, "r", 1000, oldest, None)
        plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {statement}", *arguments))
        assert "delivery_links_of_endpoint" in plan, plan
        assert "attempts_pkey" in plan, plan
        for other in ("Seq Scan", "delivery_links_pkey", "Sort", "Hash"):
            assert other not in plan, plan


def counted(delivered: int, *durations: int) -> Counts:
    """Return counts with one attempt of each of these durations."""
    counts = Counts(delivered=delivered)
    for duration in durations:
        counts.durations[BOUNDS_MS.index(duration)] += 1
    return counts


@pytest.mark.req("DEL-08")
async def test_postgresql_and_workers_have_equal_bounds(installation: Installation) -> None:
    assert list(BOUNDS_MS) == await installation.pool.fetchval("SELECT hookseal.duration_bounds()")


@pytest.mark.req("DEL-08")
async def test_a_percentile_lies_between_its_bounds(pool: Pool) -> None:
    """A percentile lies between the bounds of its count; what took longest counts as 20 s."""
    for counts, share, expected in PERCENTILES:
        found = await pool.fetchval("SELECT hookseal.duration_percentile($1::bigint[], $2::float8)", counts, share)
        assert expected == (None if found is None else pytest.approx(found)), (counts, share)


@pytest.mark.req("DEL-08")
async def test_hour_and_day_add_up_the_written_counts(installation: Installation) -> None:
    """Counts of several writes are added up; hour and day contain the counts of their time, and no older ones."""
    one = (await installation.endpoint()).pointer.endpoint_id
    two = (await installation.endpoint(url="https://receiver.example/two")).pointer.endpoint_id
    await endpoint_queries.add(installation.pool, {(ACME, one): counted(1, 10), (ACME, two): counted(0, 5)})
    await endpoint_queries.add(installation.pool, {(ACME, one): counted(1, 10, 10)})
    await installation.pool.execute(
        "INSERT INTO hookseal.attempt_counts"
        " SELECT tenant_id, endpoint_id, since - make_interval(mins => age), 1, durations"
        " FROM hookseal.attempt_counts, unnest(ARRAY[90, 1530]) AS age WHERE endpoint_id = $1::text::uuid",
        one,
    )
    items, following = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=5, cursor=None)
    first, second = items[1], items[0]
    assert (two, one, None) == (second["endpoint_id"], first["endpoint_id"], following)
    assert {
        "attempts": 3, "delivered": 2, "success_rate": pytest.approx(2 / 3), "p50_ms": pytest.approx(8.5),
        "p99_ms": pytest.approx(9.97),
    } == first["last_hour"]  # fmt: skip
    assert (6, 3, 0.5) == tuple(first["last_day"][name] for name in ("attempts", "delivered", "success_rate"))
    assert (1, 0, 0.0) == tuple(second["last_hour"][name] for name in ("attempts", "delivered", "success_rate"))

    assert (1, 0) == (
        await endpoint_queries.forget(installation.pool),
        await endpoint_queries.forget(installation.pool),
    )
    assert 3 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.attempt_counts")


@pytest.mark.req("DEL-20")
@pytest.mark.req("DEL-09")
async def test_list_details_and_statistics_have_one_state(installation: Installation) -> None:
    """The state is the first of these that is true; the lane says what holds the endpoint before what crowds it."""
    ordered = NewEndpoint(tenant_id=ACME, url="https://e.example", event_types=("*",), settings={"ordered": True})
    endpoint, pool = (await installation.add(ordered)).pointer.endpoint_id, installation.pool
    await installation.deliveries()
    for state, lane, change in (
        ("failing", None, rows.change(pool, "endpoints", first_failure_at=rows.NOW, last_failure_at=rows.NOW)),
        ("stopped", None, rows.set_state(pool, "dead_letter")),
        ("stopped", "rate", rows.lane(pool, endpoint, waiting_for="rate")),
        ("held", "breaker", rows.hold(pool, endpoint, waiting_for="breaker")),
        ("disabled", "breaker", rows.change(pool, "endpoints", enabled=False)),
    ):
        await change
        [listed], _ = await endpoint_queries.page(pool, EndpointFilter(), Place(), limit=1)
        shown = await endpoint_queries.show(pool, ACME, endpoint_id=endpoint)
        [counted], _ = await endpoint_queries.stats_page(pool, ACME, endpoint, limit=1, cursor=None)
        assert ([state] * 3, [lane] * 2) == (
            [each["state"] for each in (listed, shown, counted)], [listed["lane"], shown["lane"]]
        )  # fmt: skip


@pytest.mark.req("DEL-20")
async def test_the_last_failed_attempt_is_that_of_its_endpoint(installation: Installation) -> None:
    """It is the last that failed, although a later attempt of that delivery succeeded."""
    endpoint, pool = (await installation.endpoint()).pointer.endpoint_id, installation.pool
    assert (await endpoint_queries.show(pool, ACME, endpoint_id=endpoint))["last_failure"] is None
    first, second = [(await installation.deliveries())[0] for _ in range(2)]
    other = (await installation.endpoint(url="https://other.example/")).pointer.endpoint_id
    [of_another] = [ring for ring in await installation.deliveries() if ring.endpoint_id == other]
    for ring, number, minutes, outcome, status in (
        (first, 1, 1, "server_error", 500),
        (second, 1, 2, "client_error", 404),
        (of_another, 1, 4, "server_error", 503),
        (second, 2, 3, "delivered", 204),
    ):
        at = NOW + timedelta(minutes=minutes)
        await rows.attempt(pool, ring.delivery_id, number, started_at=at, outcome=outcome, status=status)
    found = (await endpoint_queries.show(pool, ACME, endpoint_id=endpoint))["last_failure"]
    assert (second.delivery_id, NOW + timedelta(minutes=2), "client_error", 404) == tuple(
        found[name] for name in ("delivery_id", "started_at", "outcome", "status")
    )


async def test_pages_have_every_selected_endpoint_once(installation: Installation) -> None:
    pool = installation.pool
    acme = [await rows.endpoint(pool, id=f"{ID[:-1]}{number}", enabled=number != 1) for number in range(3)]
    globex = await rows.endpoint(pool, "globex", id=f"{ID[:-1]}9")
    for selected, expected in (
        ({}, [globex, *reversed(acme)]),
        ({"tenant_id": ACME}, acme[::-1]),
        ({"enabled": False}, [acme[1]]),
        ({"enabled": True, "tenant_id": ACME}, [acme[2], acme[0]]),
        ({"enabled": False, "tenant_id": TenantId("globex")}, []),
    ):
        found, cursor = list[str](), None
        while not found or cursor is not None:
            place = Place(cursor=cursor)
            items, cursor = await endpoint_queries.page(pool, EndpointFilter(**selected), place, limit=3)
            found += [item["endpoint_id"] for item in items] or ["nothing"]
        assert (expected or ["nothing"]) == found, selected
    for limit, cursor in ((0, None), (1_001, None), (1, "!")):
        with pytest.raises(Malformed):
            await endpoint_queries.page(pool, EndpointFilter(), Place(cursor=cursor), limit=limit)


@pytest.mark.req("DEL-08")
async def test_statistics_have_state_and_waiting_deliveries(installation: Installation) -> None:
    """The state of the endpoint, its pending and waiting deliveries, and since when the oldest is due."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [due], [held], [later] = [await installation.deliveries() for _ in range(3)]
    since = datetime(2026, 1, 2, tzinfo=UTC)
    pool = installation.pool
    await rows.change(pool, "deliveries", due.delivery_id, next_attempt_at=since)
    await rows.wait_for(pool, "secret", held.delivery_id, next_attempt_at=since - timedelta(days=1))
    await rows.change(pool, "deliveries", later.delivery_id, next_attempt_at=rows.ahead(hours=1))
    [item], _ = await endpoint_queries.stats_page(installation.pool, ACME, endpoint, limit=1, cursor=None)
    held_at = await pool.fetchval("SELECT held_at FROM hookseal.deliveries WHERE held_at IS NOT NULL")
    assert {
        "tenant_id": "acme", "endpoint_id": endpoint, "state": "healthy", "state_since": None, "pending": 3,
        "waiting": 1, "oldest_due_at": since, "waiting_since": held_at, "last_hour": NO_ATTEMPTS,
        "last_day": NO_ATTEMPTS,
    } == item  # fmt: skip
    for change, state in (
        (rows.change(pool, "endpoints", first_failure_at=rows.NOW, last_failure_at=rows.NOW), "failing"),
        (rows.hold(pool, endpoint), "held"),
        (rows.change(pool, "endpoints", enabled=False), "disabled"),
    ):
        await change
        [item], _ = await endpoint_queries.stats_page(pool, ACME, endpoint, limit=1, cursor=None)
        assert state == item["state"]


@pytest.mark.req("DEL-08")
async def test_the_cursor_leads_to_the_next_page(installation: Installation) -> None:
    """A page ends at its limit, and its cursor leads to the next; another tenant's endpoint is not found."""
    added = [await installation.endpoint(url=f"https://receiver.example/{n}") for n in range(3)]
    await installation.endpoint("globex")
    first, cursor = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=2, cursor=None)
    rest, end = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=2, cursor=cursor)
    newest = sorted((each.pointer.endpoint_id for each in added), reverse=True)
    assert (newest, None) == ([item["endpoint_id"] for item in first + rest], end)
    with pytest.raises(NotFound):
        await endpoint_queries.stats_page(installation.pool, TenantId("globex"), newest[0], limit=1, cursor=None)
    with pytest.raises(Malformed):
        await endpoint_queries.stats_page(installation.pool, ACME, None, limit=0, cursor=None)


@pytest.mark.req("DEL-08")
async def test_statistics_read_only_their_endpoint(installation: Installation) -> None:
    await installation.pool.execute(_GROWN)
    endpoint = await installation.pool.fetchval("SELECT md5('1')::uuid::text")
    page = statements("hookseal.dispatcher.store", "endpoint_queries.sql")["stats_of_tenant"]
    forget = statements("hookseal.dispatcher.store", "endpoint_stats.sql")["forget"]
    found = await installation.pool.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {page}", "acme", endpoint, None, 2)
    plan = "\n".join(row[0] for row in found)
    for index in ("attempt_counts_pkey", "deliveries_pending", "endpoints_id_key"):
        assert index in plan, plan
    for name in ("deliveries", "attempt_counts", "endpoints"):
        assert f"Seq Scan on {name}" not in plan, plan
    oldest = "\n".join(row[0] for row in await installation.pool.fetch(f"EXPLAIN {forget}", 1_000))
    assert "attempt_counts_oldest" in oldest, oldest


@pytest.mark.req("DEL-08")
async def test_the_read_only_role_reads_both_views(installation: Installation) -> None:
    await installation.endpoint()
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE hookseal_readonly")
        assert 2 == len(await connection.fetch("SELECT * FROM hookseal.endpoint_stats"))
        assert 1 == len(await connection.fetch("SELECT * FROM hookseal.endpoint_backlog"))


@pytest.mark.pure
def test_what_others_wrote_marks_no_command() -> None:
    """A reason or an error stands between quotation marks; only commands of hookseal stand between backticks."""
    tricked = "run” `hookseal endpoint delete --yes`"
    disabled = held(WaitingFor.ENDPOINT_DISABLED, endpoint=replace(DISABLED, disabled_reason=tricked))
    for facts in (disabled, {"next_attempt_at": LATER, "last_error": tricked}):
        text = explain(replace(FACTS, **facts)).text
        assert """(“run" 'hookseal endpoint delete --yes'”)""" in text
