"""What the leader measures for the whole installation, on a real PostgreSQL and Valkey."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from hookseal.postgres.pool import Pool
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.metrics import database
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.metrics.database import Measuring, Rules
from hookseal.worker.run import cancelled
from tests import rows
from tests.doubles.clock import TurningClock
from tests.doubles.stored import begin
from tests.worker.figures import Figures, figures

SWEEP_SECONDS = 15
DAY_SECONDS = 86_400
OF_THE_LEADER = (
    "hookseal_retention_lag_seconds",
    "hookseal_oldest_due_seconds",
    "hookseal_due",
    "hookseal_waiting",
    "hookseal_tenant_pending",
    "hookseal_tenant_oldest_seconds",
    "hookseal_breakers_open",
    "hookseal_lanes_crowded",
    "hookseal_lines_stopped",
    "hookseal_replays_running",
    "hookseal_replay_idle_seconds",
    "hookseal_queue_depth",
    "hookseal_master_key_records",
    "hookseal_master_key_age_seconds",
    "hookseal_plaintext_rows",
    "hookseal_rotations_overdue",
    "hookseal_workers_live",
)

OTHER_WAITS: Figures = {("hookseal_waiting", name): 0.0 for name in ("breaker", "rate", "concurrency", "order")}
REPLAYS_AND_LANES = """
INSERT INTO hookseal.replays (tenant_id, id, state, states, until, end_id, rate, cursor, matched, moved_at, ended_at)
SELECT 'acme', hookseal.uuid7(), s, '{failed}', now(), gen_random_uuid(), 1, gen_random_uuid(), 1,
       now() - interval '50 s', CASE WHEN s = 'done' THEN now() END
FROM unnest(ARRAY['running', 'done']) AS s;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for)
SELECT tenant_id, id, 'breaker' FROM hookseal.endpoints
"""


class Scene:
    """A worker, its leadership, and what it measures."""

    def __init__(self, pool: Pool, queue: Bell, *, tenants: int = 2) -> None:
        self.leads = True
        self.bell = queue
        self.clock = TurningClock()
        self.meter = WorkerMeter()
        self.measuring = Measuring(
            pool,
            self.bell.depth,
            lambda: self.leads,
            rules=Rules(seconds=SWEEP_SECONDS, retention_days=30, tenants=tenants),
            clock=self.clock,
            log=structlog.get_logger(),
        )
        self.measuring.report_to(self.meter)

    def figures(self) -> dict[tuple[str, str | None], float]:
        """Return the reported figures about the whole installation."""
        return {key: value for key, value in figures(self.meter).items() if key[0] in OF_THE_LEADER}


@pytest.fixture
async def scene(pool: Pool, redis_url: str) -> AsyncIterator[Scene]:
    queue = bell(redis_url)
    yield Scene(pool, queue)
    await queue.close()


@pytest.mark.req("OPS-02", part="measured")
async def test_figures_equal_database_and_queue(pool: Pool, scene: Scene) -> None:
    """The figures about the installation equal the state of the database and the queue, before and after changes."""
    await begin(pool)
    key_id = await pool.fetchval("SELECT key_id FROM hookseal.secret_keys")
    await scene.measuring.once()
    nothing = {
        ("hookseal_retention_lag_seconds", None): 0.0,
        ("hookseal_oldest_due_seconds", None): 0.0,
        ("hookseal_due", None): 0.0,
        ("hookseal_waiting", "secret"): 0.0,
        ("hookseal_waiting", "endpoint_disabled"): 0.0,
        **OTHER_WAITS,
        ("hookseal_tenant_pending", "_other"): 0.0,
        ("hookseal_tenant_oldest_seconds", "_other"): 0.0,
        ("hookseal_breakers_open", None): 0.0,
        ("hookseal_lanes_crowded", None): 0.0,
        ("hookseal_lines_stopped", None): 0.0,
        ("hookseal_replays_running", None): 0.0,
        ("hookseal_replay_idle_seconds", None): 0.0,
        ("hookseal_queue_depth", None): 0.0,
        ("hookseal_master_key_records", f"{key_id} active"): 2.0,
        ("hookseal_plaintext_rows", None): 0.0,
        ("hookseal_rotations_overdue", None): 0.0,
        ("hookseal_workers_live", None): 0.0,
    }
    found = scene.figures()
    assert 0 <= found.pop(("hookseal_master_key_age_seconds", f"{key_id} active")) < 60
    assert nothing == found

    await rows.endpoint(pool)
    await rows.publish(pool, 4)
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', next_attempt_at = now() - interval '200 s'"
        " WHERE id = (SELECT id FROM hookseal.deliveries LIMIT 1)"
    )
    await pool.execute(
        "UPDATE hookseal.deliveries SET next_attempt_at = now() - interval '100 s' WHERE waiting_for IS NULL;"
        "INSERT INTO hookseal.deliveries"
        " (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, position, finished_at)"
        " SELECT tenant_id, gen_random_uuid(), gen_random_uuid(), event_id, 'failed', NULL, 1,"
        " now() - interval '30 days 50 seconds' FROM hookseal.deliveries LIMIT 1"
    )
    await pool.execute("UPDATE hookseal.endpoints SET secret = 'of an older system'")
    await pool.execute("UPDATE hookseal.secret_records SET sealed = '\\x0101ffffffffffffffff' WHERE name = 'sentinel'")
    for name, age in (("w1", 29), ("w2", 31)):
        await rows.worker(pool, name, beaten_at=rows.ago(seconds=age))
    await pool.execute(REPLAYS_AND_LANES)
    await scene.bell.redis.zadd(DEFAULT_QUEUE, {"a": 1, "b": 2})
    await scene.measuring.once()
    found = scene.figures()
    del found["hookseal_master_key_age_seconds", f"{key_id} active"]
    for measured in ("hookseal_replay_idle_seconds", "hookseal_retention_lag_seconds"):
        assert 50 <= found.pop((measured, None)) < 110
    assert 100 <= found.pop(("hookseal_oldest_due_seconds", None)) < 160
    assert 100 <= found.pop(("hookseal_tenant_oldest_seconds", "acme")) < 160
    assert {
        ("hookseal_tenant_pending", "acme"): 4.0,
        ("hookseal_tenant_pending", "_other"): 0.0,
        ("hookseal_tenant_oldest_seconds", "_other"): 0.0,
        ("hookseal_due", None): 3.0,
        ("hookseal_waiting", "secret"): 1.0,
        ("hookseal_waiting", "endpoint_disabled"): 0.0,
        **OTHER_WAITS,
        ("hookseal_breakers_open", None): 1.0,
        ("hookseal_lanes_crowded", None): 1.0,
        ("hookseal_lines_stopped", None): 1.0,
        ("hookseal_replays_running", None): 1.0,
        ("hookseal_queue_depth", None): 2.0,
        ("hookseal_master_key_records", f"{key_id} active"): 1.0,
        ("hookseal_master_key_records", "unregistered unregistered"): 1.0,
        ("hookseal_plaintext_rows", None): 1.0,
        ("hookseal_rotations_overdue", None): 0.0,
        ("hookseal_workers_live", None): 1.0,
    } == found


@pytest.mark.req("OPS-02", part="measured")
async def test_a_long_line_for_one_reason_hides_no_other_reason(
    pool: Pool, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reason is counted up to the limit: a long line of one tenant does not silence the alert about secrets."""
    monkeypatch.setattr(database, "COUNTED_AT_MOST", 3)
    await begin(pool)
    await rows.endpoint(pool)
    await rows.publish(pool, 9)
    await pool.execute(
        "UPDATE hookseal.deliveries AS d SET waiting_for = CASE WHEN n < 3 THEN 'secret' ELSE 'order' END"
        " FROM (SELECT id, row_number() OVER () AS n FROM hookseal.deliveries) AS of WHERE of.id = d.id"
    )
    await scene.measuring.once()
    found = scene.figures()
    assert (2.0, 3.0, 0.0) == tuple(found["hookseal_waiting", name] for name in ("secret", "order", "rate"))


@pytest.mark.req("OPS-02", part="measured")
async def test_what_waits_in_the_lane_of_a_held_endpoint_counts_for_what_holds_it(
    pool: Pool, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog in the lane of an endpoint whose secret is refused waits for the secret, and hides no other lane."""
    monkeypatch.setattr(database, "COUNTED_AT_MOST", 3)
    await begin(pool)
    await rows.endpoint(pool)
    await rows.endpoint(pool)
    await rows.publish(pool, 5)
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = CASE endpoint_id WHEN (SELECT min(id::text)::uuid FROM"
        " hookseal.endpoints) THEN 'concurrency' ELSE 'rate' END;"
        "INSERT INTO hookseal.lanes (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints;"
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for)"
        " SELECT tenant_id, id, 'secret' FROM hookseal.endpoints ORDER BY id::text LIMIT 1"
    )
    names = ("secret", "concurrency", "rate")
    await scene.measuring.once()
    assert (3.0, 0.0, 3.0) == tuple(scene.figures()["hookseal_waiting", name] for name in names)
    await pool.execute("UPDATE hookseal.held_endpoints SET released_at = now()")
    await scene.measuring.once()
    assert (0.0, 3.0, 3.0) == tuple(scene.figures()["hookseal_waiting", name] for name in names)


@pytest.mark.req("OPS-02", part="measured")
async def test_only_the_leader_measures(pool: Pool, scene: Scene) -> None:
    """A worker that does not lead measures and reports nothing; within three seconds of leading it does."""
    scene.leads = False
    task = asyncio.create_task(scene.measuring.loop.run())
    await scene.clock.asleep(1)
    assert {} == scene.figures()
    scene.leads = True
    await scene.clock.turn()
    of_keys = {"hookseal_master_key_records", "hookseal_master_key_age_seconds"}  # no key is registered here
    assert set(OF_THE_LEADER) - of_keys == {name for name, _ in scene.figures()}
    scene.leads = False
    assert {} == scene.figures()
    await cancelled([task])
    assert [3.0, SWEEP_SECONDS] == scene.clock.slept


async def test_figures_of_an_unreachable_server_are_absent(pool: Pool, scene: Scene) -> None:
    """While PostgreSQL or Redis does not answer, only its figures are absent; each outage is logged once."""
    with structlog.testing.capture_logs() as logs:
        await scene.measuring.once()
        await scene.bell.redis.set(DEFAULT_QUEUE, "no queue at all")
        for _ in range(2):
            await scene.measuring.once()
        assert ("hookseal_queue_depth", None) not in scene.figures()
        assert ("hookseal_due", None) in scene.figures()
        await scene.bell.redis.delete(DEFAULT_QUEUE)
        await pool.close()
        for _ in range(2):
            await scene.measuring.once()
        assert {("hookseal_queue_depth", None): 0.0} == scene.figures()

    assert [("measure.failed", "redis"), ("measure.failed", "postgresql"), ("measure.resumed", "redis")] == [
        (line["event"], line["of"]) for line in logs
    ]


@pytest.mark.req("OPS-02", part="measured")
async def test_the_ten_longest_failing_endpoints_are_named(pool: Pool, scene: Scene) -> None:
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, enabled, first_failure_at)"
        " SELECT 'acme', hookseal.uuid7(), 'https://a.example/' || n, '{*}', n <> 12,"
        " CASE WHEN n > 0 THEN now() - make_interval(hours => n) END FROM generate_series(0, 12) AS n"
    )
    failing = await pool.fetch(
        "SELECT id::text FROM hookseal.endpoints WHERE enabled AND first_failure_at IS NOT NULL"
        " ORDER BY first_failure_at LIMIT 10"
    )
    await scene.measuring.once()
    found = {
        label: value // 3600
        for (name, label), value in figures(scene.meter).items()
        if name == "hookseal_endpoint_failing_seconds"
    }
    assert {id_: float(hours) for (id_,), hours in zip(failing, range(11, 1, -1), strict=True)} == found


@pytest.mark.req("OPS-11", part="secrets")
async def test_the_age_of_a_key_depends_on_its_state(pool: Pool, scene: Scene) -> None:
    """By its state, a key's age counts from its promotion, replacement, registration, retirement or destruction."""
    for number, (state, promoted, ended) in enumerate(
        (
            ("destroyed", 90, 10),
            ("retired", 80, 20),
            ("decrypt_only", 70, None),
            ("decrypt_only", 60, None),
            ("active", 50, None),
            ("staged", None, None),
            ("retired", None, None),
        )
    ):
        end = ended and rows.ago(days=ended)
        times = {"promoted_at": promoted and rows.ago(days=promoted), "retired_at": end, "destroyed_at": end}
        key = {"key_id": f"{number:016x}", "state": state, "check_value": b"", "created_at": rows.ago(days=100)}
        await rows.insert(pool, "secret_keys", **key, **times)
    for name, sealed in (("a", bytes.fromhex(f"0101{2:016x}")), ("b", b"x"), ("c", b"y")):
        await rows.secret_record(pool, name, sealed=sealed)
    await scene.measuring.once()
    found = {
        (name.removeprefix("hookseal_master_key_"), label): value // DAY_SECONDS if "age" in name else value
        for (name, label), value in scene.figures().items()
        if "master_key" in name and value
    }
    assert {
        ("age_seconds", "0000000000000000 destroyed"): 10,
        ("age_seconds", "0000000000000001 retired"): 20,
        ("age_seconds", "0000000000000002 decrypt_only"): 60,
        ("age_seconds", "0000000000000003 decrypt_only"): 50,
        ("age_seconds", "0000000000000004 active"): 50,
        ("age_seconds", "0000000000000005 staged"): 100,
        ("age_seconds", "0000000000000006 retired"): 100,
        ("records", "0000000000000002 decrypt_only"): 1.0,
        ("records", "unregistered unregistered"): 2.0,
    } == found


@pytest.mark.req("OPS-11", part="rotations-due")
@pytest.mark.parametrize(
    ("age", "announced", "overlap_ends", "overdue"),
    [
        ("31 days 30 minutes", None, None, False),  # its announcement is late by less than an hour
        ("31 days 2 hours", None, None, True),
        ("31 days 2 hours", "30 minutes", None, False),  # it was announced
        ("31 days 2 hours", "24 hours 30 minutes", None, False),
        ("31 days 2 hours", "25 hours 30 minutes", None, True),
        ("30 days 2 hours", "25 hours 30 minutes", None, True),
        ("30 days 30 minutes", "25 hours 30 minutes", None, False),
        ("31 days 2 hours", "20 days", None, True),  # this announcement belongs to an earlier rotation
        ("40 days", "20 days", "-1 hour", False),  # an overlap has not ended
        ("40 days", None, "26 hours", True),
    ],
)
async def test_a_late_rotation_is_overdue(
    pool: Pool,
    scene: Scene,
    *,
    age: str,
    announced: str | None,
    overlap_ends: str | None,
    overdue: bool,
) -> None:
    """A scheduled rotation is overdue an hour after its time, as announced or as it should have been announced."""
    await rows.endpoint(pool)
    await pool.execute(
        "UPDATE hookseal.endpoints SET rotate_every_days = 30, secret_ref = 'db:x', previous_secret_ref = 'db:y',"
        " secret_updated_at = now() - $1::text::interval, previous_secret_expires_at = now() - $2::text::interval",
        age,
        overlap_ends,
    )
    if announced is not None:
        await pool.execute(
            "INSERT INTO hookseal.audit_log"
            " (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)"
            " SELECT tenant_id, 1, now() - $1::text::interval, 'x', 'secret.rotation_announced', 'endpoint:' || id,"
            " '{\"generation\": 1}', '', '', '1' FROM hookseal.endpoints",
            announced,
        )
    await scene.measuring.once()
    assert float(overdue) == scene.figures()["hookseal_rotations_overdue", None]


# What names tenants and endpoints: the worst of them, however many there are and whatever they are called.


STRANGE = 'a"} 1\nhookseal_fake{b="\\'


@pytest.mark.req("OPS-02", part="measured")
async def test_the_worst_tenants_are_named_and_the_others_are_one(pool: Pool, redis_url: str) -> None:
    """So many tenants as the setting says are named, those first that have waited for longest; with 0 none is."""
    minutes = {"acme": 9, "globex": 7, "initech": 5, "umbrella": 3}
    for tenant, waited in minutes.items():
        endpoint = await rows.endpoint(pool, tenant)
        for _ in range(2):
            made = await rows.delivery(pool, endpoint, tenant=tenant)
            await rows.change(pool, "deliveries", made, next_attempt_at=rows.ago(minutes=waited))
    for named, expected in (
        (2, {"acme": 9, "globex": 7, "_other": 5}),
        (0, {"_other": 9}),
        (9, minutes | {"_other": 0}),
    ):
        queue = bell(redis_url)
        scene = Scene(pool, queue, tenants=named)
        await scene.measuring.once()
        await queue.close()
        found = scene.figures()
        oldest = {key[1]: value // 60 for key, value in found.items() if key[0] == "hookseal_tenant_oldest_seconds"}
        pending = {key[1]: value for key, value in found.items() if key[0] == "hookseal_tenant_pending"}
        assert expected == oldest
        assert 8 == sum(pending.values())
        assert {name: 2.0 for name in minutes if name in expected}.items() <= pending.items()


@pytest.mark.req("OPS-02", part="measured")
async def test_what_was_held_first_is_reported_by_what_it_waits_for(pool: Pool, scene: Scene) -> None:
    """Its age counts from when it was held; in the lane of a held endpoint it waits for what holds that endpoint."""
    for minutes, reason, holds in (
        (50, "secret", None),
        (40, "concurrency", None),
        (30, "concurrency", "breaker"),
        (20, "order", None),
        (10, "rate", None),
    ):
        endpoint = await rows.endpoint(pool)
        for late in (0, 1):
            await rows.wait_for(
                pool, reason, await rows.delivery(pool, endpoint), held_at=rows.ago(minutes=minutes - late)
            )
        if reason in {"concurrency", "rate"}:
            await rows.lane(pool, endpoint)
        if holds is not None:
            await rows.hold(pool, endpoint, waiting_for=holds)
    await scene.measuring.once()
    name = "hookseal_pending_oldest_seconds"
    found = {key[1]: value // 60 for key, value in figures(scene.meter).items() if key[0] == name}

    assert {
        "secret": 50, "concurrency": 40, "breaker": 30, "order": 20, "rate": 10, "endpoint_disabled": 0,
    } == found  # fmt: skip


@pytest.mark.req("OPS-11", part="stopped")
async def test_what_was_tried_in_vain_has_waited_since_its_endpoint_was_held(pool: Pool, scene: Scene) -> None:
    """Each try in vain holds the delivery anew; else no alert would ever see one that is alone for an hour."""
    for minutes, published in ((70, 90), (200, 65)):
        endpoint = await rows.endpoint(pool)
        tried = await rows.delivery(pool, endpoint, created_at=rows.ago(minutes=published))
        await rows.wait_for(pool, "secret", tried, held_at=rows.NOW)
        await rows.hold(pool, endpoint, waiting_for="secret", since=rows.ago(minutes=minutes))
    await scene.measuring.once()

    assert 70 == figures(scene.meter)["hookseal_pending_oldest_seconds", "secret"] // 60


@pytest.mark.req("OPS-11", part="stopped")
async def test_a_tenant_is_stopped_if_all_its_endpoints_are_held(pool: Pool, scene: Scene) -> None:
    """Also if it is only one, since the last of them was held; one that works, or is disabled, makes a difference."""
    for tenant, held, works, disabled in (
        ("one", (9,), 0, 0),
        ("two", (8, 30), 0, 0),
        ("partly", (60,), 1, 0),
        ("with-disabled", (7,), 0, 1),
        ("only-disabled", (), 0, 1),
    ):
        for minutes in held:
            endpoint = await rows.endpoint(pool, tenant)
            await rows.hold(pool, endpoint, tenant=tenant, waiting_for="breaker", since=rows.ago(minutes=minutes))
        for _ in range(works):
            await rows.endpoint(pool, tenant)
        for _ in range(disabled):
            await rows.endpoint(pool, tenant, enabled=False)
    await scene.measuring.once()
    found = {
        key[1]: value // 60
        for key, value in figures(scene.meter).items()
        if key[0] == "hookseal_tenant_stopped_seconds"
    }
    assert {"one": 9, "two": 8, "_other": 7} == found
    open_longest = [
        (key[1] or "").split()[-1] for key in figures(scene.meter) if key[0] == "hookseal_breaker_open_seconds"
    ]
    assert ["partly", "two"] == sorted(open_longest)
    await rows.change(pool, "held_endpoints", released_at=rows.NOW)
    await scene.measuring.once()
    assert [] == [key for key in figures(scene.meter) if key[0] == "hookseal_tenant_stopped_seconds"]


@pytest.mark.req("OPS-02", part="measured")
async def test_ten_thousand_tenants_make_no_large_page(pool: Pool, redis_url: str) -> None:
    """With any names, and as many tenants named as may be, the page is valid OpenMetrics and has less than 200 KB."""
    async with rows.without_triggers(pool) as connection:
        await connection.execute(
            "INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at)"
            " SELECT $1 || n || repeat('x', CASE n WHEN 10000 THEN 1000 ELSE 20 END), gen_random_uuid(),"
            " gen_random_uuid(), 'e',"
            " now() - make_interval(secs => n) FROM generate_series(1, 10000) AS n",
            STRANGE,
        )
        await connection.execute(
            "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for)"
            " SELECT $1 || n, gen_random_uuid(), 'breaker' FROM generate_series(1, 10000) AS n",
            STRANGE,
        )
    await pool.execute("ANALYZE hookseal.deliveries, hookseal.held_endpoints")  # as autovacuum does
    queue = bell(redis_url)
    scene = Scene(pool, queue, tenants=100)
    await scene.measuring.once()
    await queue.close()
    body, _ = scene.meter.scrape("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics(body.decode())}  # type: ignore[no-untyped-call]

    assert len(body) < 200_000
    assert "hookseal_fake" not in families
    pending = {sample.labels["tenant"]: sample.value for sample in families["hookseal_tenant_pending"].samples}
    assert (101, 10_000.0) == (len(pending), sum(pending.values()))
    assert {STRANGE} == {name[: len(STRANGE)] for name in pending if name != "_other"}
    assert 100 == len(families["hookseal_breaker_open_seconds"].samples)


@pytest.mark.req("OPS-02", part="measured")
async def test_the_age_of_what_was_measured_is_reported(pool: Pool, scene: Scene) -> None:
    """It grows until the next measurement, also if that fails; a worker that does not lead reports none."""
    key = ("hookseal_measured_age_seconds", None)
    assert key not in figures(scene.meter)
    await scene.measuring.once()
    scene.clock.elapsed += 7
    assert 7.0 == figures(scene.meter)[key]
    await scene.measuring.once()
    assert 0.0 == figures(scene.meter)[key]
    scene.leads = False
    assert key not in figures(scene.meter)
