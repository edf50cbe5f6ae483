"""The status of the installation: what is in trouble since when, what limits workers, and how fast it is."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from hookseal import Admin
from hookseal.dispatcher.core.policy import NOT_SENT, await_other_worker, await_repair
from hookseal.dispatcher.store import status
from hookseal.ground.ids import EVERY_TENANT, first_uuid7
from tests import rows
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("OPS-15", part="status")


async def test_endpoints_in_trouble_have_since_when_and_why(admin: Admin, installation: Installation) -> None:
    """Each once, in the first state that is true, those that are only at their limit last; none that is disabled."""
    pool = installation.pool
    held, stopped, failing, crowded, disabled, released, _ = await rows.endpoints(pool, 7)
    await rows.hold(pool, held, waiting_for="breaker", since=rows.ago(minutes=3), reason="ten failures")
    await rows.change(pool, "endpoints", held, first_failure_at=rows.ago(hours=3), name="billing")
    await rows.change(pool, "endpoints", failing, first_failure_at=rows.ago(minutes=9))
    await rows.lane(pool, crowded, since=rows.ago(hours=9))
    await rows.hold(pool, disabled, since=rows.ago(days=1))
    await rows.change(pool, "endpoints", disabled, enabled=False)
    await rows.hold(pool, released, released_at=rows.NOW)
    stopping = await rows.delivery(pool, stopped, state="dead_letter")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", stopping, position=1, finished_at=rows.ago(minutes=5))
    for minutes in (2, 1):
        waiting = await rows.delivery(pool, held, created_at=rows.ago(minutes=minutes))
        await rows.wait_for(pool, "breaker", waiting, held_at=rows.ago(minutes=minutes))
        await rows.attempt(pool, waiting, outcome="timeout", status=None, started_at=rows.ago(minutes=minutes))
    tried = await rows.delivery(pool, held, state="delivered")
    await rows.attempt(pool, tried, outcome="server_error", status=503)

    found = await admin.status()
    states = [(each.endpoint_id, each.state, each.held_for, _minutes(found, each.since)) for each in found.endpoints]
    assert [
        (failing, "failing", None, 9),
        (stopped, "stopped", None, 5),
        (held, "held", "breaker", 3),
        (crowded, "crowded", None, 540),
    ] == states
    [seen] = [each for each in found.endpoints if each.endpoint_id == held]
    assert ("billing", "ten failures", "server_error", 503, 2) == (
        *(seen.name, seen.reason, seen.last_outcome, seen.last_status, seen.waiting),
    )
    assert 120 <= (seen.oldest_seconds or 0) < 180
    assert not found.more_endpoints
    assert ["hookseal worker", "hookseal endpoint list --state stopped"] == [each.command for each in found.must_act]
    for number in range(status.ENDPOINTS):
        await rows.hold(pool, await rows.endpoint(pool), since=rows.ago(minutes=number))
    many = await admin.status()
    assert (status.ENDPOINTS, True) == (len(many.endpoints), many.more_endpoints)


async def test_an_endpoint_is_in_its_first_state_however_many_others_are(
    admin: Admin, installation: Installation
) -> None:
    """One that is held is not shown as failing, stopped or crowded if too many others have been held for longer.

    Nor does it hide one that is failing since a shorter time, and not held.
    """
    pool = installation.pool
    for _ in range(status.ENDPOINTS + 1):
        longer = await rows.endpoint(pool, first_failure_at=rows.ago(days=3))
        await rows.hold(pool, longer, since=rows.ago(hours=1))
    failing, stopped, crowded, free = await rows.endpoints(pool, 4)
    for held in (failing, stopped, crowded):
        await rows.hold(pool, held, since=rows.ago(minutes=1))
    for endpoint in (failing, free):
        await rows.change(pool, "endpoints", endpoint, first_failure_at=rows.ago(days=2))
    await rows.lane(pool, crowded, since=rows.ago(days=2))
    stopping = await rows.delivery(pool, stopped, state="dead_letter")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", stopping, position=1, finished_at=rows.ago(days=2))

    found = await admin.status()
    shown = {each.endpoint_id: each.state for each in found.endpoints}
    assert {"failing": [free]} == {
        state: [one for one in shown if shown[one] == state] for state in shown.values() if state != "held"
    }
    assert status.ENDPOINTS == len(shown)


async def test_the_oldest_of_each_reason_to_wait(admin: Admin, installation: Installation) -> None:
    """What is parked in the lane of a held endpoint waits for what holds the endpoint."""
    pool = installation.pool
    free, held = await rows.endpoints(pool, 2)
    for endpoint in (free, held):
        await rows.lane(pool, endpoint)
        parked = await rows.delivery(pool, endpoint)
        await rows.wait_for(pool, "concurrency", parked, held_at=rows.ago(minutes=5 if endpoint == free else 7))
    await rows.hold(pool, held, waiting_for="breaker")
    for minutes in (1, 2):
        await rows.wait_for(pool, "order", await rows.delivery(pool, free), held_at=rows.ago(minutes=minutes))

    tried = await rows.endpoint(pool)
    alone = await rows.delivery(pool, tried, created_at=rows.ago(minutes=90))
    await rows.wait_for(pool, "secret", alone, held_at=rows.NOW)  # it was tried in vain just now
    await rows.hold(pool, tried, waiting_for="secret", since=rows.ago(minutes=70))

    oldest = (await admin.status()).oldest_waiting_seconds
    assert {"secret": 70, "breaker": 7, "concurrency": 5, "order": 2} == {
        name: int(age // 60) for name, age in oldest.items()
    }


async def test_first_attempts_are_timed_where_nothing_is_held_back(admin: Admin, installation: Installation) -> None:
    """Not what was held before, or is tried again, nor a replay, nor what is old; nor what is due where it may wait."""
    pool = installation.pool
    good, held, crowded = await rows.endpoints(pool, 3)
    ordered = await rows.endpoint(pool, ordered=True)
    await rows.hold(pool, held)
    await rows.lane(pool, crowded)

    async def took(endpoint: str, seconds: float | None, *, ago: float = 100, **columns: Any) -> None:
        tried = {"state": "pending"} if seconds is None else {"state": "delivered", "attempts": 1, "rung_at": rows.NOW}
        now: datetime = await pool.fetchval("SELECT now()")
        made_at = first_uuid7(now - timedelta(seconds=ago))
        columns = {"id": made_at[:24] + str(uuid4())[24:], "created_at": rows.ago(seconds=ago)} | tried | columns
        made = await rows.delivery(pool, endpoint, **columns)
        if seconds is not None:
            await rows.attempt(pool, made, started_at=rows.ago(seconds=ago - seconds))

    assert (0, None, None, None) == await _timed(admin)
    for endpoint in (held, crowded, ordered):
        await took(endpoint, None, next_attempt_at=rows.ago(seconds=1))
    assert (0, None, None, None) == await _timed(admin)
    await rows.remove(pool, "deliveries")
    await took(good, 90, rung_at=None)
    await took(good, 90, attempts=2)
    await took(good, 90, state="pending", next_attempt_at=rows.NOW)
    await took(good, None, last_error="the breaker of its endpoint is open")
    await took(good, 90, replay_of="0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
    await took(good, 90, ago=400)
    await took(good, None, next_attempt_at=rows.ahead(hours=1))
    assert (0, None, None, None) == await _timed(admin)
    assert (await admin.status()).first_attempts.meets_objective is None
    for seconds in (1, 2, 3):
        await took(good, seconds)
    # The transaction of its call began long before the call.
    await took(good, 2, created_at=rows.ago(minutes=50))
    assert (4, 2.0, 2.9, 3.0) == await _timed(admin)
    assert (await admin.status()).first_attempts.meets_objective
    await took(good, None, ago=50, next_attempt_at=rows.ago(seconds=50))  # it was not tried: so it is late
    number, _, p95, p99 = await _timed(admin)
    assert (5, True) == (number, 38 < (p95 or 0) < (p99 or 0) < 60)
    late = (await admin.status()).first_attempts
    assert (False, True) == (late.meets_objective, 48 < late.oldest_due_seconds < 60)


async def test_what_hookseal_itself_delays_is_late(admin: Admin, installation: Installation) -> None:
    """It counts with the time until now, although it is due again only in some seconds."""
    pool = installation.pool
    [good] = await rows.endpoints(pool, 1)
    for wait in (await_repair(0.5), await_other_worker("no TLS context", 0.5)):
        await rows.delivery(
            pool,
            good,
            id=str(uuid4()),  # which has no time: `created_at` counts
            created_at=rows.ago(minutes=4),
            next_attempt_at=rows.ahead(seconds=15),
            last_error=wait.reason,
        )

    first = (await admin.status()).first_attempts
    assert (2, False) == (first.number, first.meets_objective)


async def test_first_attempts_that_are_held_are_counted_by_what_holds_them(
    admin: Admin, installation: Installation
) -> None:
    """Where every endpoint holds there is none to time. What waits for room there waits for what holds the endpoint."""
    pool = installation.pool
    broken, refused, disabled = await rows.endpoints(pool, 3)
    await rows.hold(pool, broken, waiting_for="breaker")
    await rows.hold(pool, refused)
    for endpoint, reason in (
        (broken, "breaker"),
        (broken, "concurrency"),
        (refused, "secret"),
        (disabled, "endpoint_disabled"),
    ):
        await rows.wait_for(pool, reason, await rows.delivery(pool, endpoint))
    await rows.wait_for(pool, "breaker", await rows.delivery(pool, broken, attempts=1))  # its first attempt was made

    first = (await admin.status()).first_attempts
    assert {"breaker": 2, "endpoint_disabled": 1, "secret": 1} == first.waiting_for
    assert (0, None) == (first.number, first.meets_objective)


async def test_what_was_given_up_is_worth_a_look(admin: Admin, installation: Installation) -> None:
    """Dead letters and failed deliveries are named, with the command that lists them, and nobody must act."""
    endpoint = await rows.endpoint(installation.pool)
    await rows.worker(installation.pool)
    assert () == (await admin.status()).worth_a_look
    for state in ("dead_letter", "dead_letter", "failed"):
        await rows.delivery(installation.pool, endpoint, state=state)

    found = await admin.status()
    assert () == found.must_act
    assert ["given up: 2 dead letters and 1 failed delivery"] == [each.reason for each in found.worth_a_look]


async def test_a_backlog_is_late_however_fast_the_newest_are(admin: Admin, installation: Installation) -> None:
    """The newest deliveries are timed, and more there are is said; the oldest that is due counts, too."""
    pool = installation.pool
    [good] = await rows.endpoints(pool, 1)
    await rows.delivery(pool, good, next_attempt_at=rows.ago(hours=2), created_at=rows.ago(hours=2))
    for _ in range(3):
        made = await rows.delivery(pool, good, state="delivered", attempts=1, rung_at=rows.NOW)
        await rows.attempt(pool, made)

    found = dict(await status._SQL.row(pool, "first_attempts", 3, 300.0, NOT_SENT) or {})
    assert (3, True) == (found["number"], found["has_more"])
    assert found["p95_seconds"] < 5
    first = (await admin.status()).first_attempts
    assert (False, False) == (first.has_more, first.meets_objective)


async def test_what_is_pending_is_the_sum_of_what_it_waits_for(admin: Admin, installation: Installation) -> None:
    """What is due, what waits for its next attempt, and what is held for each reason are all of it."""
    pool = installation.pool
    free, held = await rows.endpoints(pool, 2)
    await rows.hold(pool, held, waiting_for="breaker")
    for endpoint in (free, held):
        await rows.lane(pool, endpoint)
        await rows.wait_for(pool, "rate", await rows.delivery(pool, endpoint))
    for reason in ("secret", "breaker", "order", "endpoint_disabled"):
        await rows.wait_for(pool, reason, await rows.delivery(pool, free))
    for at in (rows.ahead(hours=1), rows.ahead(hours=2), rows.ago(seconds=1)):
        for rung_at in (None, rows.NOW):
            await rows.delivery(pool, free, next_attempt_at=at, rung_at=rung_at)
    await rows.delivery(pool, free, state="sending")

    found = (await admin.status()).overview
    assert {"secret": 1, "endpoint_disabled": 1, "breaker": 2, "rate": 1, "order": 1} == found.waiting_for
    assert (2, 4, 6) == (found.due, found.not_due, found.waiting)
    assert await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'") == found.pending


async def test_every_list_says_the_same_of_an_endpoint(admin: Admin, installation: Installation) -> None:
    """Its state and since when: the status, the lists of endpoints and of their statistics, and the endpoint itself."""
    pool = installation.pool
    held, stopped, failing = await rows.endpoints(pool, 3)
    disabled = await rows.endpoint(pool, enabled=False, disabled_at=rows.ago(days=3))
    for endpoint in (held, stopped, failing, disabled):
        await rows.change(pool, "endpoints", endpoint, first_failure_at=rows.ago(days=2))
    await rows.hold(pool, held, since=rows.ago(hours=3))
    stopping = await rows.delivery(pool, stopped, state="failed")
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", stopping, position=1, finished_at=rows.ago(hours=5))

    expected = {held: ("held", 3), stopped: ("stopped", 5), failing: ("failing", 48), disabled: ("disabled", 72)}
    found = await admin.status()

    def hours(since: datetime | None) -> int | None:
        return None if since is None else round((found.at - since).total_seconds() / 3600)

    listed = (await admin.endpoints.list(tenant_id=EVERY_TENANT)).items
    counted = (await admin.endpoints.stats(tenant_id=EVERY_TENANT)).items
    shown = [await admin.endpoints.get(tenant_id="acme", endpoint_id=each) for each in expected]
    for endpoints in (listed, counted, shown):
        assert expected == {each.endpoint_id: (each.state, hours(each.state_since)) for each in endpoints}
    del expected[disabled]
    assert expected == {each.endpoint_id: (each.state, hours(each.since)) for each in found.endpoints}


@pytest.mark.req("OPS-12")
@pytest.mark.parametrize("reason", ["secret", "breaker"])
async def test_a_probe_that_fails_does_not_begin_the_wait_anew(
    admin: Admin, installation: Installation, reason: str
) -> None:
    """It is held anew, and has waited since its endpoint is held: each call says the same."""
    pool = installation.pool
    [endpoint] = await rows.endpoints(pool, 1)
    probe = await rows.delivery(pool, endpoint, created_at=rows.ago(hours=9))
    await rows.wait_for(pool, reason, probe, held_at=rows.NOW)
    await rows.hold(pool, endpoint, waiting_for=reason, since=rows.ago(hours=7), probe_at=rows.ahead(minutes=1))

    found = await admin.status()
    explained = await admin.deliveries.why(tenant_id="acme", delivery_id=probe)
    [stats] = (await admin.endpoints.stats(tenant_id="acme")).items
    details = await admin.endpoints.get(tenant_id="acme", endpoint_id=endpoint)
    assert explained.since is not None
    assert {explained.since} == {stats.waiting_since, details.waiting_since}
    [tenant], [troubled] = found.tenants, found.endpoints
    ages = [
        (found.at - explained.since).total_seconds(),
        found.oldest_waiting_seconds[reason],
        tenant.oldest_seconds,
        troubled.oldest_seconds,
    ]
    assert [7] * 4 == [round((each or 0) / 3600) for each in ages]


async def test_secrets_that_stop_to_sign_are_counted(admin: Admin, installation: Installation) -> None:
    """Those of an overlap that ends within a day; and the leader, while its lease lasts."""
    pool = installation.pool
    soon, later, ended, _ = await rows.endpoints(pool, 4)
    for endpoint, ends in ((soon, rows.ahead(hours=23)), (later, rows.ahead(hours=25)), (ended, rows.ago(hours=1))):
        await rows.change(
            pool, "endpoints", endpoint, previous_secret_ref="db:acme:x:1", previous_secret_expires_at=ends
        )
    await rows.change(pool, "control", "outbox", holder="w-1", until=rows.ahead(seconds=9))
    await rows.worker(pool, limited_by=["bytes", "cpu"])
    await rows.worker(pool, "w-2", unrecorded_since=rows.NOW, drains=True, draining_since=rows.ago(seconds=34))
    await rows.worker(pool, "w-3", beaten_at=rows.ago(minutes=5))

    found = await admin.status()
    assert (1, "w-1") == (found.overlaps_ending, found.leader)
    assert [("w-1", ("bytes", "cpu"), False, False), ("w-2", (), True, False)] == [
        (each.worker_id, each.limited_by, each.cannot_record, each.overstays) for each in found.workers
    ]
    assert () == found.must_act
    await rows.change(pool, "workers", "w-2", draining_since=rows.ago(seconds=36))  # its limit is 25 s
    assert ["hookseal doctor"] == [each.command for each in (await admin.status()).must_act]
    await rows.change(pool, "control", "outbox", until=rows.ago(minutes=5))
    without = await admin.status()
    assert without.leader is None
    assert "no worker has led for 5 min: retries and held deliveries stay" in [each.reason for each in without.must_act]


async def test_an_installation_without_master_keys_lacks_none(admin: Admin, installation: Installation) -> None:
    """A provider outside PostgreSQL keeps its secrets, so no master key is registered."""
    pool = installation.pool
    await rows.endpoint(pool)
    await rows.worker(pool)
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "secret_keys", state="decrypt_only")
        unsafe = await admin.status(connection=connection)
        await rows.remove(connection, "secret_keys")
        found = await admin.status(connection=connection)

    assert (["hookseal key status"], ()) == ([each.command for each in unsafe.must_act], found.must_act)


async def _timed(admin: Admin) -> tuple[int, float | None, float | None, float | None]:
    timed = (await admin.status()).first_attempts
    return timed.number, _rounded(timed.p50_seconds), _rounded(timed.p95_seconds), _rounded(timed.p99_seconds)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _minutes(found: Any, since: Any) -> int:
    return int((found.at - since).total_seconds() // 60)
