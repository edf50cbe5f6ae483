"""What the leader measures for the whole installation, on a real PostgreSQL and Valkey."""

import asyncio

import asyncpg
import pytest
import structlog

from hookseal.queue.bell import DEFAULT_QUEUE, bell
from hookseal.worker.measure import Measuring
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.run import cancelled
from tests.doubles.clock import FakeClock
from tests.doubles.stored import begin
from tests.worker.figures import figures
from tests.worker.producer import publish, subscribe
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
SWEEP_SECONDS = 15
DAY_SECONDS = 86_400
OF_THE_LEADER = (
    "hookseal_oldest_due_seconds",
    "hookseal_due",
    "hookseal_waiting",
    "hookseal_queue_depth",
    "hookseal_master_key_records",
    "hookseal_master_key_age_seconds",
    "hookseal_plaintext_rows",
    "hookseal_rotations_overdue",
    "hookseal_workers_live",
)


class Scene:
    """A worker that leads or not, and what it measures."""

    def __init__(self, pool: "Pool[asyncpg.Record]", redis_url: str, clock: FakeClock) -> None:
        self.leads = True
        self.bell = bell(redis_url)
        self.meter = WorkerMeter()
        self.measuring = Measuring(
            pool,
            self.bell.depth,
            lambda: self.leads,
            seconds=SWEEP_SECONDS,
            clock=clock,
            log=structlog.get_logger(),
        )
        self.measuring.told_by(self.meter)

    def told(self) -> dict[tuple[str, str | None], float]:
        """Return what it tells of the whole installation."""
        return {key: value for key, value in figures(self.meter).items() if key[0] in OF_THE_LEADER}


@pytest.mark.req("OPS-02", part="measured")
async def test_a_known_story(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """Due, oldest, waiting, queue, records, plaintext and live workers are as they are, and then as they become."""
    await begin(pool)
    key_id = await pool.fetchval("SELECT key_id FROM hookseal.secret_keys")
    scene = Scene(pool, redis_url, FakeClock())
    await scene.measuring.once()
    nothing = {
        ("hookseal_oldest_due_seconds", None): 0.0,
        ("hookseal_due", None): 0.0,
        ("hookseal_waiting", "secret"): 0.0,
        ("hookseal_waiting", "endpoint_disabled"): 0.0,
        ("hookseal_queue_depth", None): 0.0,
        ("hookseal_master_key_records", f"{key_id} active"): 2.0,
        ("hookseal_plaintext_rows", None): 0.0,
        ("hookseal_rotations_overdue", None): 0.0,
        ("hookseal_workers_live", None): 0.0,
    }
    told = scene.told()
    assert 0 <= told.pop(("hookseal_master_key_age_seconds", f"{key_id} active")) < 60
    assert nothing == told

    await subscribe(pool)
    await publish(pool, 4)
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', next_attempt_at = now() - interval '200 s'"
        " WHERE id = (SELECT id FROM hookseal.deliveries LIMIT 1)"
    )
    await pool.execute(
        "UPDATE hookseal.deliveries SET next_attempt_at = now() - interval '100 s' WHERE waiting_for IS NULL"
    )
    await pool.execute("UPDATE hookseal.endpoints SET secret = 'of an older system'")
    await pool.execute("UPDATE hookseal.secret_records SET key_id = 'ffffffffffffffff' WHERE name = 'sentinel'")
    for name, age in (("w1", 29), ("w2", 31)):
        await pool.execute(
            "INSERT INTO hookseal.workers VALUES ($1, '1', 25, 45, '{}', now(), now() - make_interval(secs => $2))",
            name,
            age,
        )
    await scene.bell.redis.zadd(DEFAULT_QUEUE, {"a": 1, "b": 2})
    await scene.measuring.once()
    told = scene.told()
    del told["hookseal_master_key_age_seconds", f"{key_id} active"]
    assert 100 <= told.pop(("hookseal_oldest_due_seconds", None)) < 160
    assert {
        ("hookseal_due", None): 3.0,
        ("hookseal_waiting", "secret"): 1.0,
        ("hookseal_waiting", "endpoint_disabled"): 0.0,
        ("hookseal_queue_depth", None): 2.0,
        ("hookseal_master_key_records", f"{key_id} active"): 1.0,
        ("hookseal_master_key_records", "unregistered unregistered"): 1.0,
        ("hookseal_plaintext_rows", None): 1.0,
        ("hookseal_rotations_overdue", None): 0.0,
        ("hookseal_workers_live", None): 1.0,
    } == told
    await scene.bell.close()


@pytest.mark.req("OPS-02", part="measured")
async def test_absent_while_another_leads(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A worker that does not lead measures nothing and tells nothing; once it leads it does within three seconds."""
    turns = asyncio.Event()

    class Turning(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            await turns.wait()
            turns.clear()

    turning = Turning()
    scene = Scene(pool, redis_url, turning)
    scene.leads = False
    task = asyncio.create_task(scene.measuring.run())

    async def asleep(times: int) -> None:
        async def look() -> bool:
            return times == len(turning.slept)

        await eventually(look)

    await asleep(1)
    assert {} == scene.told()
    scene.leads = True
    turns.set()
    await asleep(2)
    of_keys = {"hookseal_master_key_records", "hookseal_master_key_age_seconds"}  # of which there is none
    assert set(OF_THE_LEADER) - of_keys == {name for name, _ in scene.told()}
    scene.leads = False
    assert {} == scene.told()
    await cancelled([task])
    assert [3.0, SWEEP_SECONDS] == turning.slept
    await scene.bell.close()


async def test_what_cannot_be_measured_is_absent(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """While PostgreSQL or Redis does not answer its figures are absent, those of the other stay; told once each."""
    with structlog.testing.capture_logs() as logs:
        scene = Scene(pool, redis_url, FakeClock())
        await scene.measuring.once()
        await scene.bell.redis.set(DEFAULT_QUEUE, "no queue at all")
        for _ in range(2):
            await scene.measuring.once()
        assert ("hookseal_queue_depth", None) not in scene.told()
        assert ("hookseal_due", None) in scene.told()
        await scene.bell.redis.delete(DEFAULT_QUEUE)
        await pool.close()
        for _ in range(2):
            await scene.measuring.once()
        assert {("hookseal_queue_depth", None): 0.0} == scene.told()

    assert [("measure.failed", "redis"), ("measure.failed", "postgresql"), ("measure.resumed", "redis")] == [
        (line["event"], line["of"]) for line in logs
    ]
    await scene.bell.close()


@pytest.mark.req("OPS-11", part="secrets")
async def test_how_old_master_keys_are(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A key's age is that of its state: promoted, followed by another, registered, retired, destroyed."""
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
        await pool.execute(
            "INSERT INTO hookseal.secret_keys"
            " (key_id, state, check_value, created_at, promoted_at, retired_at, destroyed_at) VALUES"
            " ($1, $2, '', now() - interval '100 days', now() - make_interval(days => $3),"
            " now() - make_interval(days => $4), now() - make_interval(days => $4))",
            f"{number:016x}",
            state,
            promoted,
            ended,
        )
    await pool.execute(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, key_id)"
        " VALUES ('acme', 'a', 1, 'db', 'p', '', $1), ('acme', 'b', 1, 'db', 'p', '', 'x'),"
        " ('acme', 'c', 1, 'db', 'p', '', 'y')",
        f"{2:016x}",
    )
    scene = Scene(pool, redis_url, FakeClock())
    await scene.measuring.once()
    told = {
        (name.removeprefix("hookseal_master_key_"), label): value // DAY_SECONDS if "age" in name else value
        for (name, label), value in scene.told().items()
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
    } == told
    await scene.bell.close()


@pytest.mark.req("OPS-11", part="rotations-due")
@pytest.mark.parametrize(
    ("age", "announced", "overlap_ends", "overdue"),
    [
        ("31 days 30 minutes", None, None, False),  # it should have been announced, and is not for long
        ("31 days 2 hours", None, None, True),
        ("31 days 2 hours", "30 minutes", None, False),  # it has its warning
        ("31 days 2 hours", "24 hours 30 minutes", None, False),
        ("31 days 2 hours", "25 hours 30 minutes", None, True),
        ("30 days 2 hours", "25 hours 30 minutes", None, True),
        ("30 days 30 minutes", "25 hours 30 minutes", None, False),
        ("31 days 2 hours", "20 days", None, True),  # announced was another one
        ("40 days", "20 days", "-1 hour", False),  # an overlap runs
        ("40 days", None, "26 hours", True),
    ],
)
async def test_rotations_overdue(
    pool: "Pool[asyncpg.Record]",
    redis_url: str,
    *,
    age: str,
    announced: str | None,
    overlap_ends: str | None,
    overdue: bool,
) -> None:
    """A rotation by schedule is overdue an hour after it should have come, as announced or as it should have been."""
    await subscribe(pool)
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
    scene = Scene(pool, redis_url, FakeClock())
    await scene.measuring.once()
    assert float(overdue) == scene.told()["hookseal_rotations_overdue", None]
    await scene.bell.close()
