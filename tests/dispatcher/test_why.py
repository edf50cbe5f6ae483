"""Every state and every reason to wait is explained: what, since when, what ends it, and which command does so now."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.delivery_facts import EndpointFacts, Facts, LastAttempt
from hookseal.dispatcher.core.model import Attempt, Outcome, State, Verdict, WaitingFor
from hookseal.dispatcher.core.url import PLAIN_HTTP
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from tests.doubles.replaced import replace
from tests.doubles.stored import begin

pytestmark = pytest.mark.req("OPS-12", part="delivery-why")

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
UNSENT = "it is held, which spends no attempt, because"
SINCE = "This has been so since 2026-03-01T11:55:00Z."
SWEEP = (
    "the record of that worker, if it runs; else by the sweep of another one, within HOOKSEAL_SWEEP_SECONDS, which "
    "records the attempt as unknown"
)
REPLAY = f"hookseal delivery replay {ID}"
ENABLE = f"hookseal endpoint enable {OF}"
LEADER = "It is released by the leader, which releases 1,000 deliveries at a time, the oldest first."
NOTHING = "Nothing needs to be done."
BREAKER_IS_OPEN = (
    f"{UNSENT} the breaker of its endpoint is open: too many attempts in a row failed (timeout). {SINCE} It is "
    "released by a probe that is answered: from time to time one delivery of the endpoint is tried, at least every 5 "
    "minutes, and then the others follow at a growing rate. If the receiver works again, have one delivery tried now: "
    f"`{ENABLE}`."
)
UNCLAIMED = "it is due, and no worker has claimed it"
CHECK = "If it is due for more than a minute, ask a worker what is wrong: `hookseal check`."


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


CASES: list[tuple[dict[str, Any], datetime | None, str | None, str]] = [
    (
        held(WaitingFor.SECRET, last_error="it was destroyed", probe_at=LATER),
        EARLIER,
        "hookseal secret cache-clear",
        (
            f"{UNSENT} a secret of its endpoint is refused (it was destroyed). {SINCE} It is released by a probe "
            "that is signed: the oldest delivery of the endpoint is tried next at 2026-03-01T12:05:00Z, and if its "
            "secret is available, all others follow. When the secret is repaired (docs/runbook.md, "
            "HooksealSecretRefused), have it tried at once: `hookseal secret cache-clear`."
        ),
    ),
    (
        held(WaitingFor.SECRET, last_error=PLAIN_HTTP, probe_at=LATER),
        EARLIER,
        f"hookseal endpoint update {OF} --url https://...",
        (
            f"{UNSENT} {PLAIN_HTTP}. {SINCE} It is released by a probe: the oldest delivery of the endpoint is tried "
            "next at 2026-03-01T12:05:00Z, and if its url may be used then, all others follow. To send it at once, "
            f"give the endpoint an https url: `hookseal endpoint update {OF} --url https://...`."
        ),
    ),
    (
        held(WaitingFor.SECRET),
        EARLIER,
        None,
        f"{UNSENT} a secret of its endpoint is refused. {SINCE} {LEADER} {NOTHING}",
    ),
    (
        held(WaitingFor.SECRET, live_workers=0),
        EARLIER,
        "hookseal worker",
        f"{UNSENT} a secret of its endpoint is refused. {SINCE} {LEADER} No worker runs: start one: `hookseal worker`.",
    ),
    (
        held(WaitingFor.ENDPOINT_DISABLED, endpoint=DISABLED),
        EARLIER,
        ENABLE,
        (
            f"{UNSENT} its endpoint was disabled at 2026-03-01T11:55:00Z (it moves). {SINCE} It is released by "
            "`endpoint enable`; if that does not happen within HOOKSEAL_HELD_DAYS, it is cancelled (with the default "
            f"of 7 days at 2026-03-08T11:55:00Z). Enable the endpoint: `{ENABLE}`."
        ),
    ),
    (
        held(WaitingFor.ENDPOINT_DISABLED, endpoint=replace(DISABLED, disabled_at=None, disabled_reason=None)),
        EARLIER,
        ENABLE,
        (
            f"{UNSENT} its endpoint was disabled. {SINCE} It is released by `endpoint enable`; if that does not happen "
            "within HOOKSEAL_HELD_DAYS, it is cancelled (with the default of 7 days at 2026-03-08T11:55:00Z). Enable "
            f"the endpoint: `{ENABLE}`."
        ),
    ),
    (
        held(WaitingFor.ENDPOINT_DISABLED),
        EARLIER,
        None,
        f"it was held for its endpoint, which is enabled again now. {SINCE} {LEADER} {NOTHING}",
    ),
    (
        held(WaitingFor.ENDPOINT_DISABLED, endpoint=None),
        EARLIER,
        None,
        f"it was held for its endpoint, which is deleted now. {SINCE} {LEADER} {NOTHING}",
    ),
    (
        held(WaitingFor.BREAKER, last_error="timeout"),
        EARLIER,
        ENABLE,
        BREAKER_IS_OPEN,
    ),
    (
        held(WaitingFor.RATE),
        EARLIER,
        f"hookseal endpoint update {OF} --rate N/s",
        (
            f"{UNSENT} its endpoint gets as many requests as its rate limit allows. {SINCE} It is released by the "
            "clock: the deliveries of the endpoint follow one after another, as its rate allows. To send it sooner, "
            f"raise the rate: `hookseal endpoint update {OF} --rate N/s`."
        ),
    ),
    (
        held(WaitingFor.CONCURRENCY),
        EARLIER,
        f"hookseal endpoint update {OF} --concurrency N",
        (
            f"{UNSENT} its endpoint has as many requests in flight as its concurrency allows now. {SINCE} It is "
            "released by the end of one of these requests; the concurrency grows while they succeed, and halves when "
            "they fail. To send it sooner, raise the limit, if that is what is reached: "
            f"`hookseal endpoint update {OF} --concurrency N`."
        ),
    ),
    (
        held(WaitingFor.CONCURRENCY, endpoint=replace(ENABLED, rate=0.5)),
        EARLIER,
        f"hookseal endpoint update {OF} --rate N/s",
        (
            f"{UNSENT} its endpoint gets as many requests as its rate limit (0.5/s) and its concurrency allow. {SINCE} "
            "It is released by the end of requests in flight, and the clock: the deliveries of the endpoint follow one "
            "after another, as its rate allows. To send it sooner, raise the rate, or `--concurrency` if that is what "
            "is reached: "
            f"`hookseal endpoint update {OF} --rate N/s`."
        ),
    ),
    (
        {"next_attempt_at": LATER, "last_attempt": TRIED, "budget_spent": 3, "held_for": WaitingFor.BREAKER},
        EARLIER,
        ENABLE,
        (
            "attempt 3 failed (server_error, status 503); attempts spent: 3 of 10. "
            f"{SINCE} It is released by its due time, 2026-03-01T12:05:00Z, and then by the breaker "
            "of its endpoint, which is open. If the receiver works again, have one delivery of the endpoint tried now: "
            f"`{ENABLE}`."
        ),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.SENDING, number_ahead=1),
        EARLIER,
        f"hookseal delivery why {HEAD}",
        (
            f"{UNSENT} its endpoint is ordered, and delivery {HEAD} is not finished. {SINCE} It is released by the end "
            "of those before it: nothing overtakes them, however often they are tried again. To see what the first "
            f"one waits for: `hookseal delivery why {HEAD}`."
        ),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.DEAD_LETTER, number_ahead=4),
        EARLIER,
        f"hookseal delivery replay {HEAD}",
        (
            f"{UNSENT} its endpoint is ordered, and delivery {HEAD}, which is a dead letter, stops it; 4 come before "
            f"it. {SINCE} It is released by a replay of that delivery, or by giving up its place (`hookseal delivery "
            f"skip {HEAD}`, or `endpoint update --on-dead-letter skip` for this one and all later ones). When the "
            "receiver accepts "
            f"it, send that one again, and the others follow: `hookseal delivery replay {HEAD}`."
        ),
    ),
    (
        held(WaitingFor.ORDER, ahead=DeliveryId(HEAD), ahead_state=State.FAILED, number_ahead=1),
        EARLIER,
        f"hookseal delivery replay {HEAD}",
        (
            f"{UNSENT} its endpoint is ordered, and delivery {HEAD}, which is failed for good, stops it. {SINCE} It is "
            f"released by a replay of that delivery, or by giving up its place (`hookseal delivery skip {HEAD}`, or "
            "`endpoint update --on-dead-letter skip` for this one and all later ones). When the receiver accepts it, "
            "send that one "
            f"again, and the others follow: `hookseal delivery replay {HEAD}`."
        ),
    ),
    (
        held(WaitingFor.ORDER),
        EARLIER,
        None,
        (
            f"it waited for its order, and is the first of its endpoint now. {SINCE} It is released by the leader, "
            f"which makes it due within a second. {NOTHING}"
        ),
    ),
    (
        ended(State.DEAD_LETTER, budget_spent=10, stops_line=True),
        EARLIER,
        REPLAY,
        (
            "it is a dead letter: all its attempts are spent (10), and the last one failed; its endpoint is ordered, "
            f"so that nothing behind it is sent. {SINCE} To give up its place run `hookseal delivery skip {ID}`. "
            f"To send it again in its place: `{REPLAY}`."
        ),
    ),
    (
        {},
        EARLIER,
        "hookseal check",
        (
            f"{UNCLAIMED}. {SINCE} It is released by a worker with a free place for a request; if its producer has "
            f"not rung it, the outbox does within a second. {CHECK}"
        ),
    ),
    (
        {"has_leader": False},
        EARLIER,
        "hookseal check",
        (
            f"{UNCLAIMED}. {SINCE} It is released by a worker with a free place for a request; if its producer has "
            "not rung it, a sweep does within HOOKSEAL_SWEEP_SECONDS, since no worker leads the outbox now. "
            f"{CHECK}"
        ),
    ),
    (
        {"live_workers": 0, "has_leader": False},
        EARLIER,
        "hookseal worker",
        (f"{UNCLAIMED}, because no worker runs. {SINCE} It is released by a worker. Start one: `hookseal worker`."),
    ),
    (
        {"rung_at": NOW},
        EARLIER,
        "hookseal check",
        (
            "it is due, is marked as rung at 2026-03-01T12:00:00Z, and no worker has claimed it. "
            f"{SINCE} It is released by a worker with a free place for a request; if the ring was lost, the "
            f"sweep rings it again within HOOKSEAL_SWEEP_SECONDS. {CHECK}"
        ),
    ),
    (
        {"next_attempt_at": LATER, "last_attempt": TRIED, "budget_spent": 3},
        EARLIER,
        REPLAY,
        (
            "attempt 3 failed (server_error, status 503); attempts spent: 3 of 10. "
            f"{SINCE} It is released by its due time, 2026-03-01T12:05:00Z. To have it tried at once: "
            f"`{REPLAY}`."
        ),
    ),
    (
        {
            "next_attempt_at": LATER,
            "last_attempt": TRIED,
            "budget_spent": 3,
            "endpoint": replace(ENABLED, attempts_allowed=2),
        },
        EARLIER,
        REPLAY,
        (
            "attempt 3 failed (server_error, status 503); attempts spent: 3, and its "
            f"endpoint now allows 2: the next one is the last. {SINCE} It is released by its due time, "
            f"2026-03-01T12:05:00Z. To have it tried at once: `{REPLAY}`."
        ),
    ),
    (
        {
            "next_attempt_at": LATER,
            "last_attempt": replace(TRIED, outcome="timeout", status=None),
            "budget_spent": 3,
            "endpoint": None,
        },
        EARLIER,
        None,
        (
            f"attempt 3 failed (timeout); attempts spent: 3. {SINCE} It is released by its "
            "due time, 2026-03-01T12:05:00Z. Its endpoint is deleted, so that it cannot be sent."
        ),
    ),
    (
        {"next_attempt_at": LATER, "endpoint": DISABLED, "held_for": WaitingFor.BREAKER},
        None,
        ENABLE,
        (
            "a worker gave it back without an attempt. It is released by its due time, "
            "2026-03-01T12:05:00Z, and then by `endpoint enable`, because its endpoint was disabled at "
            f"2026-03-01T11:55:00Z (it moves). Enable the endpoint: `{ENABLE}`."
        ),
    ),
    (
        {"next_attempt_at": LATER, "last_attempt": TRIED, "budget_spent": 3, "endpoint": DISABLED},
        EARLIER,
        ENABLE,
        (
            f"attempt 3 failed (server_error, status 503); attempts spent: 3 of 10. {SINCE} It is released by its "
            "due time, 2026-03-01T12:05:00Z, and then by `endpoint enable`, because its endpoint was "
            f"disabled at 2026-03-01T11:55:00Z (it moves). Enable the endpoint: `{ENABLE}`."
        ),
    ),
    (
        {"endpoint": DISABLED, "next_attempt_at": EARLIER},
        EARLIER,
        ENABLE,
        (
            "it is due, and is not sent, because its endpoint was disabled at 2026-03-01T11:55:00Z (it moves). "
            f"{SINCE} It is released by `endpoint enable`; if that does not happen within HOOKSEAL_HELD_DAYS, it is "
            f"cancelled (with the default of 7 days). Enable the endpoint: `{ENABLE}`."
        ),
    ),
    (
        {"next_attempt_at": LATER, "last_error": "a fault of hookseal: see the worker's log"},
        None,
        REPLAY,
        (
            "a worker gave it back without an attempt (a fault of hookseal: see the worker's log). It is released by "
            f"its due time, 2026-03-01T12:05:00Z. To have it tried at once: `{REPLAY}`."
        ),
    ),
    (
        leased(LATER),
        EARLIER,
        None,
        (
            f"worker w-1 is sending attempt 4 now. {SINCE} It is released by the answer of the receiver, or the "
            "time-out of the endpoint; if that worker has died, by the sweep of another one, soon after its lease ends "
            f"at 2026-03-01T12:05:00Z. {NOTHING}"
        ),
    ),
    (
        leased(LATER, live_workers=0),
        EARLIER,
        "hookseal worker",
        (
            f"worker w-1 is sending attempt 4 now. {SINCE} It is released by the answer of the receiver, or the "
            "time-out of the endpoint; if that worker has died, by the sweep of another one, soon after its lease ends "
            "at 2026-03-01T12:05:00Z. No worker runs: start one: `hookseal worker`."
        ),
    ),
    (
        leased(EARLIER),
        EARLIER,
        None,
        (
            "worker w-1 claimed it for attempt 4 and has not recorded the answer: it ended, lost PostgreSQL, or cannot "
            "record now (docs/runbook.md, HooksealUnrecorded); its "
            f"lease expired at 2026-03-01T11:55:00Z. {SINCE} It is released by {SWEEP}. {NOTHING}"
        ),
    ),
    (
        leased(EARLIER, live_workers=0),
        EARLIER,
        "hookseal worker",
        (
            "worker w-1 claimed it for attempt 4 and has not recorded the answer: it ended, lost PostgreSQL, or cannot "
            "record now (docs/runbook.md, HooksealUnrecorded); its "
            f"lease expired at 2026-03-01T11:55:00Z. {SINCE} It is released by {SWEEP}. No worker runs: start one: "
            "`hookseal worker`."
        ),
    ),
    (
        ended(State.DELIVERED, last_attempt=TRIED),
        EARLIER,
        REPLAY,
        f"it is delivered: the receiver accepted it at attempt 3. {SINCE} To send it again: `{REPLAY}`.",
    ),
    (
        ended(State.DELIVERED),
        EARLIER,
        REPLAY,
        f"it is delivered: the receiver accepted it. {SINCE} To send it again: `{REPLAY}`.",
    ),
    (
        ended(State.DEAD_LETTER, last_attempt=TRIED, budget_spent=3, last_error="server_error"),
        EARLIER,
        REPLAY,
        (
            "it is a dead letter: all its attempts are spent (3), and the last one failed (server_error). "
            f"{SINCE} To send it again: `{REPLAY}`."
        ),
    ),
    (
        ended(State.FAILED, last_attempt=TRIED, endpoint=DISABLED, last_error="gone"),
        EARLIER,
        ENABLE,
        (
            f"it failed for good, whatever attempts were left (gone). {SINCE} Its endpoint is disabled. To send it "
            f"again, run `{REPLAY}` after you have enabled the endpoint: `{ENABLE}`."
        ),
    ),
    (
        ended(State.CANCELLED, endpoint=None, last_error="the endpoint was deleted"),
        EARLIER,
        None,
        (
            f"it is cancelled and will not be sent (the endpoint was deleted). {SINCE} Its endpoint is deleted, so "
            "that it cannot be sent."
        ),
    ),
]


@pytest.mark.parametrize(("facts", "since", "command", "text"), CASES)
def test_each_state_is_explained(facts: dict[str, Any], since: datetime | None, command: str | None, text: str) -> None:
    """The paragraph says it all, and the other fields say the same."""
    found = explain(replace(FACTS, **facts))

    assert f"Delivery {ID}: {text}" == found.text
    assert (facts.get("state", State.PENDING), facts.get("waiting_for")) == (found.state, found.waiting_for)
    assert (since, command) == (found.since, found.command)
    assert (found.released_by is None) == (found.state not in {State.PENDING, State.SENDING})
    assert found.released_by is None or f"It is released by {found.released_by}." in found.text


def test_every_state_and_reason_has_a_case() -> None:
    """Every state and every reason to wait has a case, so that a new one needs its sentence."""
    assert set(State) == {facts.get("state", State.PENDING) for facts, *_ in CASES}
    assert {None, *WaitingFor} == {facts.get("waiting_for") for facts, *_ in CASES}


async def test_states_and_reasons_are_those_of_the_table(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """The states and reasons of the table are those that are explained."""
    rows = await pool.fetch(
        "SELECT a.attname, pg_get_constraintdef(c.oid) FROM pg_attribute AS a JOIN pg_constraint AS c"
        " ON c.contypid = a.atttypid WHERE a.attrelid = 'hookseal.deliveries'::regclass"
    )
    words = {column: set(re.findall(r"'(\w+)'", check)) for column, check in rows}

    assert set(State) == words["state"]
    assert set(WaitingFor) == words["waiting_for"]


async def test_the_facts_are_those_of_the_tables(begun_pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """The facts are those of the tables: lease, newest attempt, probe, and what is ahead in the order."""
    stored = await begin(begun_pool)
    await stored.add(
        NewEndpoint(tenant_id=TenantId("acme"), url="https://r.example/", event_types=("*",), ordered=True)
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
    await begun_pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for, probe_at)"
        " VALUES ('acme', $1::text::uuid, 'breaker', $2)",
        *(first.endpoint_id, NOW),
    )
    holding = await delivery_queries.facts(begun_pool, second.delivery_id)
    assert (WaitingFor.BREAKER, NOW) == (holding.held_for, holding.probe_at)
    await begun_pool.execute(
        "UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL WHERE id = $1::text::uuid",
        first.delivery_id,
    )
    assert (await delivery_queries.facts(begun_pool, first.delivery_id)).stops_line
