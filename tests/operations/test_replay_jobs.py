"""A replay job sends finished deliveries again, each once, at its rate, and continues where a killed worker ended."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.core.replay_job import FINAL, MAX_RUNNING, JobState, ReplayJob, Selection, Tally
from hookseal.dispatcher.store import replays
from hookseal.dispatcher.store.delivery_queries import Filter, page
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.replays import RunningJob, Step, replay_all
from hookseal.errors import Conflict, NotFound, Refused, Unavailable
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, ReplayId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint, disable_endpoint
from hookseal.operations.replay import cancel_replay, enable_and_replay, replay_delivery, start_replay, take_step
from hookseal.postgres.statements import statements
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.watched import End, connect
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("DEL-07", part="jobs")

ACME = TenantId("acme")
EVERYTHING = Selection(tenant_id=ACME)
UNKNOWN = ReplayId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
_DEAD = """
UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL, waiting_for = NULL, budget_spent = 9,
       attempts = 9
WHERE state = 'pending'
"""
_ARRIVED = "UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL WHERE id = $1::text::uuid"
_PUBLISH = "SELECT hookseal.publish('acme', $2, '{}'::json) FROM generate_series(1, $1)"
_WAITED = "UPDATE hookseal.replays SET paid_until = paid_until - make_interval(secs => $1)"
_NO_SESSION = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'dying')"
_MADE_AT = """
UPDATE hookseal.deliveries
SET id = (lpad(to_hex((extract(epoch FROM $2::timestamptz) * 1000)::bigint), 12, '0') || right(id::text, 23))::uuid
WHERE id = $1::text::uuid RETURNING id::text
"""


async def dead_letters(installation: Installation, number: int, event_type: str = "invoice.paid") -> list[str]:
    """Publish that many events, and return their deliveries as dead letters, oldest first."""
    await installation.pool.execute(_PUBLISH, number, event_type)
    rows = await installation.pool.fetch(f"{_DEAD} RETURNING id::text")
    return sorted(row[0] for row in rows)


async def rings(installation: Installation) -> list[Ring]:
    rows = await installation.pool.fetch(
        "SELECT tenant_id, endpoint_id::text AS endpoint_id, id::text AS delivery_id FROM hookseal.deliveries"
    )
    return [Ring(**row) for row in rows]


async def in_state(installation: Installation, *states: str) -> list[str]:
    rows = await installation.pool.fetch(
        "SELECT id::text FROM hookseal.deliveries WHERE state = ANY ($1) ORDER BY id", list(states)
    )
    return [row[0] for row in rows]


async def started(installation: Installation, selection: Selection = EVERYTHING, *, rate: int = 1_000) -> ReplayJob:
    return await installation.act(start_replay, selection, rate=rate)


async def stepped(installation: Installation, job: ReplayJob, *, after: float = 60.0) -> Step | None:
    """Take the next step of the job, as if that many seconds had passed since its last one."""
    await installation.pool.execute(_WAITED, after)
    return await installation.act(take_step, RunningJob(ACME, job.replay_id))


async def ended(installation: Installation, job: ReplayJob) -> ReplayJob:
    """Take steps until the job has ended."""
    while (step := await stepped(installation, job)) is not None:
        job = step.job
    return await replays.show(installation.pool, job.replay_id)


@pytest.mark.parametrize("state", ["pending", "sending"])
async def test_what_is_not_finished_any_more_is_not_changed(installation: Installation, state: str) -> None:
    """A delivery that somebody else replayed after the job read it keeps its lease, and what it has spent since."""
    await installation.endpoint()
    again, dead = await dead_letters(installation, 2)
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET state = 'pending', next_attempt_at = now(), budget_spent = 3"
        " WHERE id = $1::text::uuid",
        again,
    )
    if state == "sending":
        [ring] = [ring for ring in await rings(installation) if ring.delivery_id == again]
        assert await PostgresLedger(installation.pool, worker="w1", lease_seconds=45).claim(ring) is not None
    read = "SELECT * FROM hookseal.deliveries WHERE id = $1::text::uuid"
    before = await installation.pool.fetchrow(read, again)
    async with installation.pool.acquire() as connection, connection.transaction():
        assert 1 == await replay_all(connection, ACME, [again, dead])

    assert before == await installation.pool.fetchrow(read, again)


async def test_dead_letters_are_replayed(installation: Installation) -> None:
    await installation.endpoint()
    deliveries = await dead_letters(installation, 3)
    job = await started(installation, rate=7)
    assert (JobState.RUNNING, 3, 3, Tally()) == (job.state, job.matched, job.remaining, job.tally)
    done = await ended(installation, job)

    assert (JobState.DONE, Tally(replayed=3), 0, 0) == (done.state, done.tally, done.remaining, done.changed)
    assert done.ended_at is not None
    assert deliveries == await in_state(installation, "pending")
    rows = await installation.pool.fetch("SELECT attempts, budget_spent, rung_at, waiting_for FROM hookseal.deliveries")
    assert [(9, 0, None, None)] * 3 == [tuple(row) for row in rows]
    counts = {"matched": 3, "skipped": {"endpoint_disabled": 0, "endpoint_deleted": 0, "changed": 0}}
    until = job.selection.until
    assert until is not None
    shown = EVERYTHING.shown() | {"until": until.isoformat().replace("+00:00", "Z")}
    assert [
        ("replay.started", "ada@desk", {**shown, "rate": 7, "matched": 3}),
        ("replay.ended", "ada@desk", {**counts, "replayed": 3}),
    ] == [(row["action"], row["who"], row["after"]) for row in (await audited(installation.pool))[1:]]


async def test_a_list_shows_what_is_replayed(installation: Installation) -> None:
    await installation.endpoint()
    async with installation.pool.acquire() as producer, producer.transaction():
        began = await producer.fetchval("SELECT now() FROM pg_sleep(0.01)")
        before_call = await producer.fetchval("SELECT clock_timestamp() FROM pg_sleep(0.01)")
        await producer.execute("SELECT pg_sleep(0.01)")
        await producer.execute(_PUBLISH, 1, "invoice.paid")
    [delivery] = [row[0] for row in await installation.pool.fetch(f"{_DEAD} RETURNING id::text")]
    called = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(delivery.replace("-", "")[:12], 16))
    assert began < before_call < called
    tick = timedelta(microseconds=1)
    for since, until, expected in (
        (began, before_call, []),
        (before_call, None, [delivery]),
        (called, called + tick, [delivery]),
        (called - tick, called, []),
        (called + 999 * tick, None, [delivery]),
        (called + 1000 * tick, None, []),
    ):
        wanted = Filter(tenant_id=ACME, since=since, until=until)
        listed, _ = await page(installation.pool, wanted, limit=10, cursor=None)
        assert expected == [item["delivery_id"] for item in listed], (since, until)
        selection = Selection(tenant_id=ACME, since=since, until=until)
        assert len(expected) == (await replays.count(installation.pool, selection))[0].total, (since, until)


async def test_a_count_may_end_before_all(installation: Installation) -> None:
    """It then counts among the oldest, and says that there are more."""
    await installation.endpoint()
    await dead_letters(installation, 3)
    selection = Selection(tenant_id=ACME)
    assert (Tally(replayed=2), False) == await replays.count(installation.pool, selection, most=2)
    assert (Tally(replayed=3), True) == await replays.count(installation.pool, selection, most=4)


async def test_each_condition_selects(installation: Installation) -> None:
    one = (await installation.endpoint()).pointer.endpoint_id
    await installation.endpoint("globex")
    [ours] = await dead_letters(installation, 1)
    await installation.deliveries("globex")
    await dead_letters(installation, 0)
    [other] = await dead_letters(installation, 1, "user.created")
    earlier = datetime(2026, 1, 2, tzinfo=UTC)
    [old] = [row[0] for row in await installation.pool.fetch(_MADE_AT, other, earlier)]
    other = old
    event = EventId(
        await installation.pool.fetchval("SELECT event_id FROM hookseal.deliveries WHERE id::text = $1", ours)
    )
    two = (await installation.endpoint(url="https://receiver.example/two")).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.deliveries SET state = 'failed' WHERE id = $1::text::uuid", other)
    for given, expected in (
        ({}, [other, ours]),
        ({"endpoint_id": one}, [other, ours]),
        ({"endpoint_id": two}, []),
        ({"event_type": "user.created"}, [other]),
        ({"event_id": event}, [ours]),
        ({"event_id": event, "event_type": "user.created"}, []),
        ({"states": (State.FAILED,)}, [other]),
        ({"states": (State.DELIVERED,)}, []),
        ({"since": earlier}, [other, ours]),
        ({"since": earlier + timedelta(milliseconds=1)}, [ours]),
        ({"until": earlier + timedelta(milliseconds=1)}, [other]),
        ({"until": earlier}, []),
    ):
        selection = Selection(tenant_id=ACME, **given)
        assert (Tally(replayed=len(expected)), True) == await replays.count(installation.pool, selection), given
        if not expected:
            with pytest.raises(NotFound, match="nothing to replay"):
                await started(installation, selection)
            continue
        await ended(installation, await started(installation, selection))
        assert expected == await in_state(installation, "pending"), given
        await installation.pool.execute(
            "UPDATE hookseal.deliveries SET next_attempt_at = NULL, state = CASE id::text"
            " WHEN $1 THEN 'failed' ELSE 'dead_letter' END WHERE state = 'pending'",
            other,
        )


async def test_delivered_ones_are_replayed_on_request_only(installation: Installation) -> None:
    await installation.endpoint()
    deliveries = await dead_letters(installation, 4)
    for delivery, state in zip(deliveries, FINAL, strict=True):
        await installation.pool.execute(
            "UPDATE hookseal.deliveries SET state = $2, attempts = 0 WHERE id = $1::text::uuid", delivery, state.value
        )
    assert Tally(replayed=3) == (await ended(installation, await started(installation))).tally
    assert deliveries[:1] == await in_state(installation, "delivered")
    everything = Selection(tenant_id=ACME, states=FINAL)
    assert Tally(replayed=1) == (await ended(installation, await started(installation, everything))).tally


async def test_a_job_of_an_event_includes_its_replays(installation: Installation) -> None:
    await installation.endpoint()
    [delivery] = await dead_letters(installation, 1)
    await installation.act(replay_delivery, DeliveryId(delivery), new_id=True)
    await installation.pool.execute(_DEAD)
    event = EventId(await installation.pool.fetchval("SELECT id FROM hookseal.events"))
    job = await started(installation, Selection(tenant_id=ACME, event_id=event))
    assert Tally(replayed=2) == (await ended(installation, job)).tally


async def test_what_has_arrived_as_a_copy_is_left_out(installation: Installation) -> None:
    await installation.endpoint()
    delivered, early, late, alone = await dead_letters(installation, 4)
    await installation.pool.execute(_ARRIVED, delivered)

    async def copied(delivery: str) -> str:
        made = await installation.act(replay_delivery, DeliveryId(delivery), new_id=True)
        return made.delivery_id

    again, early_copy, late_copy = [await copied(each) for each in (delivered, early, late)]
    await installation.pool.execute(_ARRIVED, early_copy)
    await installation.pool.execute(_DEAD)
    assert (Tally(replayed=4), True) == await replays.count(installation.pool, EVERYTHING)
    everything = Selection(tenant_id=ACME, states=FINAL)
    assert (Tally(replayed=7), True) == await replays.count(installation.pool, everything)

    job = await started(installation)
    await installation.pool.execute(_ARRIVED, late_copy)
    done = await ended(installation, job)
    assert (4, Tally(replayed=2), 2) == (done.matched, done.tally, done.changed)
    assert [alone, again] == await in_state(installation, "pending")
    assert [early, late] == await in_state(installation, "dead_letter")


async def test_disabled_and_deleted_endpoints_are_skipped(installation: Installation) -> None:
    urls = [f"https://receiver.example/{n}" for n in range(3)]
    endpoints = [(await installation.endpoint(url=url)).pointer.endpoint_id for url in urls]
    deliveries = await dead_letters(installation, 2)
    await installation.act(disable_endpoint, ACME, endpoints[0], reason="it moves")
    await installation.act(delete_endpoint, ACME, endpoints[1])
    job = await started(installation)
    await installation.pool.execute(
        "DELETE FROM hookseal.deliveries"
        " WHERE id = (SELECT id FROM hookseal.deliveries WHERE endpoint_id = $1::text::uuid LIMIT 1)",
        endpoints[2],
    )
    done = await ended(installation, job)

    assert (6, Tally(replayed=1, disabled=2, deleted=2), 1) == (done.matched, done.tally, done.changed)
    assert 4 == len(await in_state(installation, "dead_letter"))
    assert set(await in_state(installation, "pending")) < set(deliveries)


async def test_a_disabled_or_unknown_endpoint_is_refused(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await dead_letters(installation, 1)
    await installation.act(disable_endpoint, ACME, endpoint, reason="it moves")
    with pytest.raises(Refused, match="the endpoint is disabled") as refused:
        await started(installation, Selection(tenant_id=ACME, endpoint_id=endpoint))
    assert f"hookseal endpoint enable --tenant acme --endpoint {endpoint}" in (refused.value.advice or "")
    with pytest.raises(Refused, match="1 delivery; enable them first"):
        await started(installation)
    with pytest.raises(NotFound):
        await started(installation, Selection(tenant_id=ACME, endpoint_id=EndpointId(UNKNOWN)))
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.replays")


async def test_a_held_endpoints_delivery_waits(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [delivery] = await dead_letters(installation, 1)
    await installation.pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, reason) VALUES ('acme', $1::text::uuid, 'lost')",
        endpoint,
    )
    await ended(installation, await started(installation))
    row = await installation.pool.fetchrow("SELECT id::text, state, waiting_for, last_error FROM hookseal.deliveries")
    assert (delivery, "pending", "secret", "lost") == tuple(row or ())


async def test_a_step_replays_what_the_rate_allows(installation: Installation) -> None:
    """A step replays what the rate allows for the time since the last one; what was not used for 2 s is lost."""
    await installation.endpoint()
    await dead_letters(installation, 40)
    job = await started(installation, rate=10)
    counts = []
    for after in (0.05, 0.5, 0.5, 60.0):
        await installation.pool.execute("UPDATE hookseal.replays SET paid_until = now()")
        step = await stepped(installation, job, after=after)
        counts.append(0 if step is None else step.tally.replayed)
        assert step is None or not step.may_go_on
    assert [0, 5, 5, 20] == counts


async def test_small_steps_replay_all_once(installation: Installation) -> None:
    await installation.endpoint()
    deliveries = await dead_letters(installation, 7)
    job = await started(installation)
    seen: list[list[str]] = []
    running = RunningJob(ACME, job.replay_id)
    while True:
        await installation.pool.execute(_WAITED, 60.0)
        async with installation.pool.acquire() as connection:
            step = await replays.step(connection, running, walked=2)
        assert step is not None
        seen.append(await in_state(installation, "pending"))
        if not step.may_go_on:
            break
    assert [deliveries[:count] for count in (2, 4, 6, 7)] == seen
    assert JobState.DONE == step.job.state


async def test_one_worker_at_a_time_steps_a_job(installation: Installation) -> None:
    await installation.endpoint()
    await dead_letters(installation, 2)
    running = RunningJob(ACME, (await started(installation)).replay_id)
    await installation.pool.execute(_WAITED, 60.0)
    async with installation.pool.acquire() as one, installation.pool.acquire() as two, one.transaction():
        assert await replays.step(one, running) is not None
        assert await replays.step(two, running) is None


@pytest.mark.req("SEC-08")
async def test_a_step_needs_the_jobs_tenant(installation: Installation) -> None:
    await installation.endpoint()
    await installation.endpoint("globex")
    await installation.deliveries("globex")
    await dead_letters(installation, 1)
    job = await started(installation)
    await installation.pool.execute(_WAITED, 60.0)
    assert await installation.act(take_step, RunningJob(TenantId("globex"), job.replay_id)) is None
    assert await installation.act(take_step, RunningJob(ACME, job.replay_id)) is not None
    rows = await installation.pool.fetch("SELECT tenant_id, state FROM hookseal.deliveries ORDER BY 1")
    assert [("acme", "pending"), ("globex", "dead_letter")] == [tuple(row) for row in rows]


async def test_a_cancelled_job_replays_nothing(installation: Installation) -> None:
    await installation.endpoint()
    await dead_letters(installation, 3)
    job = await started(installation, rate=1)
    assert await stepped(installation, job, after=1.5) is not None
    cancelled = await installation.act(cancel_replay, job.replay_id)
    assert (JobState.CANCELLED, Tally(replayed=1), 2) == (cancelled.state, cancelled.tally, cancelled.remaining)
    with pytest.raises(Conflict, match="cancelled already"):
        await installation.act(cancel_replay, job.replay_id)
    with pytest.raises(NotFound):
        await installation.act(cancel_replay, UNKNOWN)
    assert await stepped(installation, job) is None
    assert 2 == len(await in_state(installation, "dead_letter"))
    *_, entry = await audited(installation.pool)
    assert ("replay.cancelled", f"replay:{job.replay_id}", "ada@desk", 1) == (
        entry["action"], entry["subject"], entry["who"], entry["after"]["replayed"],
    )  # fmt: skip


async def test_a_tenant_has_at_most_five_running_jobs(installation: Installation) -> None:
    """A tenant has at most five running jobs, also if they are started at the same time; one more is refused whole.

    Those of one tenant keep no other from starting one.
    """
    await installation.endpoint()
    await dead_letters(installation, 1)
    results = await asyncio.gather(*(started(installation) for _ in range(MAX_RUNNING + 2)), return_exceptions=True)
    assert MAX_RUNNING == len([job for job in results if isinstance(job, ReplayJob)])
    assert 2 == len([error for error in results if isinstance(error, Conflict)])
    jobs, following = await replays.page(installation.pool, ACME, JobState.RUNNING, limit=3, cursor=None)
    rest, end = await replays.page(installation.pool, ACME, JobState.RUNNING, limit=3, cursor=following)
    assert (MAX_RUNNING, None) == (len({job.replay_id for job in jobs + rest}), end)
    assert MAX_RUNNING == [row["action"] for row in await audited(installation.pool)].count("replay.started")

    await installation.endpoint("globex")
    await installation.deliveries("globex")
    await installation.pool.execute(_DEAD)
    assert "globex" == (await started(installation, Selection(tenant_id=TenantId("globex")))).selection.tenant_id


async def test_without_its_audit_row_a_job_does_not_end(installation: Installation) -> None:
    await installation.endpoint()
    await dead_letters(installation, 1)
    job = await started(installation)
    await installation.pool.execute("ALTER TABLE hookseal.audit_log ADD CONSTRAINT no CHECK (action <> 'replay.ended')")
    with pytest.raises(asyncpg.CheckViolationError):
        await stepped(installation, job)
    assert 1 == len(await in_state(installation, "dead_letter"))
    await installation.pool.execute("ALTER TABLE hookseal.audit_log DROP CONSTRAINT no")
    assert Tally(replayed=1) == (await ended(installation, job)).tally


async def test_enabling_starts_the_job_in_one_transaction(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [delivery] = await dead_letters(installation, 1)
    missed = Selection(tenant_id=ACME, endpoint_id=endpoint, since=datetime(2026, 1, 1, tzinfo=UTC))
    await installation.act(disable_endpoint, ACME, endpoint, reason="it moves")
    await installation.pool.execute(
        "ALTER TABLE hookseal.audit_log ADD CONSTRAINT no CHECK (action <> 'replay.started')"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await installation.act(enable_and_replay, ACME, endpoint, missed, own_drain_seconds=25)
    assert not await installation.pool.fetchval("SELECT enabled FROM hookseal.endpoints")
    await installation.pool.execute("ALTER TABLE hookseal.audit_log DROP CONSTRAINT no")
    enabled, job = await installation.act(enable_and_replay, ACME, endpoint, missed, own_drain_seconds=25)
    assert enabled.changed
    assert job is not None
    await ended(installation, job)
    assert [delivery] == await in_state(installation, "pending")
    again, none = await installation.act(enable_and_replay, ACME, endpoint, missed, own_drain_seconds=25)
    assert (False, None) == (again.changed, none)


async def test_a_step_killed_at_any_statement_can_be_repeated(installation: Installation, database_url: str) -> None:
    await installation.endpoint()
    await dead_letters(installation, 2)
    job = await started(installation, rate=2)
    moved, stored = 0, job
    for end in (End.CUT, End.ANSWER_LOST):
        at, was_reached = 0, True
        while was_reached:
            at += 1
            await installation.pool.execute("UPDATE hookseal.replays SET paid_until = now() - interval '0.6 s'")
            connection = await connect(database_url, {"application_name": "dying"})
            connection.interrupt(end, at)
            operator = installation.operator(connection)
            with suppress(Unavailable):
                await take_step(operator, RunningJob(ACME, job.replay_id))
            was_reached = connection.was_reached
            connection.terminate()
            await eventually(lambda: installation.pool.fetchval(_NO_SESSION))
            stored = await replays.show(installation.pool, job.replay_id)
            assert stored.tally.replayed == len(await in_state(installation, "pending")), (end, at)
            assert stored.tally.replayed >= moved
            moved = stored.tally.replayed
        assert at > 6, end
    assert (JobState.DONE, 2) == (stored.state, moved)


_FILL = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT '{tenant}', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(1, {number}) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at)
SELECT '{tenant}', hookseal.uuid7(), md5('1')::uuid, 'e' || n,
       CASE WHEN n % 100 = 0 THEN 'dead_letter' ELSE 'delivered' END, NULL
FROM generate_series(1, {number}) AS n;
"""
_ENDPOINT = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
VALUES ('acme', md5('1')::uuid, 'https://a.example/', '{*}');
"""
_GROWN = _ENDPOINT + _FILL.format(tenant="acme", number=20_000) + "ANALYZE;"


async def test_a_step_reads_little_of_a_new_tenant(installation: Installation) -> None:
    await installation.pool.execute(_GROWN)
    await installation.pool.execute(_FILL.format(tenant="new", number=2_000))
    walk = statements("hookseal.dispatcher.store", "replay_jobs.sql")["walk"]
    least, most = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
    rows = await installation.pool.fetch(
        f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {walk}",
        *("new", least, most, ["dead_letter"], None, None, None, 50, 10),
    )
    plan = "\n".join(row[0] for row in rows)
    _, found, matched = plan.partition("CTE matched")
    assert found
    assert "delivery_links_once" in matched, plan
    assert "using delivery_links_pkey" not in matched, plan


async def test_a_step_reads_by_indexes(installation: Installation) -> None:
    await installation.pool.execute(_GROWN)
    walk = statements("hookseal.dispatcher.store", "replay_jobs.sql")["walk"]
    least, most = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
    for states, event, index in (
        (["dead_letter"], None, "deliveries_not_delivered"),
        (["delivered"], None, "delivery_links_pkey"),
        (["dead_letter"], "e100", "delivery_links_once"),
    ):
        rows = await installation.pool.fetch(
            f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {walk}",
            *("acme", least, most, states, None, None, event, 50, 10),
        )
        plan = "\n".join(row[0] for row in rows)
        walked, found, _ = plan.partition("CTE matched")
        assert found
        assert index in walked, plan
        assert "Seq Scan on deliveries" not in plan, plan
        assert states == ["delivered"] or "delivery_links_once" in plan, plan
        assert "Rows Removed by Filter" not in walked, plan
