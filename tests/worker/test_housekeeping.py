"""Housekeeping on a real database with a moved clock, by a login that has the role of a worker only."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.operations import operator
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.rotation import retire_ended_overlap, take_turn
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose
from hookseal.secrets.store import retention
from hookseal.worker import maintenance
from hookseal.worker.maintenance import FailureLog, Housekeeping, HousekeepingRules
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.run import cancelled
from tests.doubles import moved_clock
from tests.doubles.clock import FakeClock, TurningClock
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import keyring
from tests.operations.scheduling import DAY, DAY_SECONDS, Scheduling, scheduling
from tests.worker.figures import figures

pytestmark = pytest.mark.req("SEC-11")

RETENTION_DAYS = 90


@dataclass(kw_only=True)
class Scene:
    """An installation, and a worker that logs in by a role with the rights of a worker."""

    scheduling: Scheduling
    role: str
    pool: Pool
    leads: bool = True

    async def keeper(self, clock: FakeClock, *, name: str = "w1", pool: Pool | None = None) -> Housekeeping:
        source = self.pool if pool is None else pool
        return Housekeeping(
            source,
            await unlock(source, Provider.DB, keyring()),
            lambda: self.leads,
            rules=HousekeepingRules(who=f"worker/{name}", overlap_seconds=DAY_SECONDS, retention_days=RETENTION_DAYS),
            clock=clock,
            log=structlog.get_logger(),
        )

    async def generations(self) -> list[int]:
        """Return the generation of every endpoint, in the order of their creation."""
        rows = await self.scheduling.pool.fetch("SELECT generation FROM hookseal.endpoints ORDER BY id")
        return [row["generation"] for row in rows]


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Yield an installation on a moved clock, and a pool of a login that has the role of a worker only."""
    async with (
        scheduling(database_url) as made,
        login(made.pool, database_url, "hookseal_worker") as (role, url),
        asyncpg.create_pool(url, min_size=1, max_size=4, server_settings=moved_clock.SETTINGS) as pool,
    ):
        await moved_clock.guard(database_url)
        yield Scene(scheduling=made, role=role, pool=pool)


def events(logs: list[Any]) -> list[str]:
    """Return the names of the logged events, in order."""
    return [line["event"] for line in logs]


async def test_a_workers_rights_suffice(scene: Scene) -> None:
    """With the rights of a worker it announces, rotates and destroys; each change is audited by its name and logged."""
    endpoint_id = (await scene.scheduling.endpoint(days=30)).pointer.endpoint_id
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        for days in (29, 1):
            await scene.scheduling.pass_(days * DAY)
            await keeper.once()
        await scene.scheduling.pass_(timedelta(days=29))
        await keeper.once()
        await scene.scheduling.pass_(DAY)
        await keeper.once()
        await scene.scheduling.pass_(timedelta(days=RETENTION_DAYS))
        await keeper.purge()

    rounds = ["secret.rotation_announced", "secret.rotated_by_schedule"] * 2
    assert [*rounds, "secret.purged"] == events(logs)
    assert [{"tenant_id": "acme", "endpoint_id": endpoint_id}] * 4 == [
        {name: line[name] for name in ("tenant_id", "endpoint_id")} for line in logs[:4]
    ]
    assert [1, 2, 2, 3] == [line["generation"] for line in logs[:4]]
    actions = [*["secret.rotation_announced", "secret.rotated"] * 2, "secret.destroyed"]
    assert [("endpoint.added", "ada@desk"), *((action, "worker/w1") for action in actions)] == [
        (row["action"], row["who"]) for row in await audited(scene.scheduling.pool)
    ]
    assert [3] == await scene.generations()
    assert "whsec_" not in repr(logs)


async def altered_endpoints(scene: Scene) -> None:
    """Make five endpoints: two rows and the audit log of a third are altered, so that two can be announced."""
    for number in range(5):
        await scene.scheduling.endpoint(days=30, number=number, tenant="globex" if number == 4 else "acme")
    await scene.scheduling.pass_(29 * DAY)
    for alters in (
        "UPDATE hookseal.endpoints SET url = 'https://evil/' WHERE url LIKE '%/1'",
        "UPDATE hookseal.endpoints SET algorithm = 'rot13' WHERE url LIKE '%/2'",
        "UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = 'globex'",
    ):
        await scene.scheduling.pool.execute(alters)


async def test_a_failed_endpoint_delays_no_other(scene: Scene) -> None:
    """A failure at one endpoint is logged once, not at every look, and does not delay other endpoints."""
    await altered_endpoints(scene)
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.once()
        await scene.scheduling.pass_(DAY)
        await keeper.once()
    failed = [line for line in logs if line["event"] == "secret.scheduled_rotation_failed"]
    assert 3 == len({(line["tenant_id"], line["endpoint_id"], line["reason"]) for line in failed}) == len(failed)
    assert 2 == events(logs).count("secret.rotation_announced") == events(logs).count("secret.rotated_by_schedule")
    assert sorted([1, 1, 1, 2, 2]) == sorted(await scene.generations())


@pytest.mark.req("SEC-14", part="append")
async def test_a_shortened_audit_log_stops_its_tenants_rotations(scene: Scene) -> None:
    """If the last audit row of a tenant was removed, its secrets are not rotated: logged, counted; others are."""
    pool = scene.scheduling.pool
    for tenant in ("acme", "acme", "globex"):
        await scene.scheduling.endpoint(days=1, tenant=tenant, number=len(await scene.generations()))
    await scene.scheduling.pass_(DAY / 2)
    meter, keeper = WorkerMeter(), await scene.keeper(FakeClock())
    keeper.report_to(meter)
    await keeper.rotate_due()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence = 4")
    await scene.scheduling.pass_(DAY / 2)
    with capture_logs() as logs:
        await keeper.rotate_due()

    failed = [line for line in logs if line["event"] == "secret.scheduled_rotation_failed"]
    assert [("acme", "error")] * 2 == [(line["tenant_id"], line["log_level"]) for line in failed]
    assert all("hookseal audit verify" in line["reason"] for line in failed)
    assert [1, 1, 2] == await scene.generations()
    assert 2.0 == figures(meter)["hookseal_rotations_failing", None]


@pytest.mark.req("OPS-11", part="rotations-due")
async def test_the_number_of_failed_endpoints_is_reported(scene: Scene) -> None:
    """The figure is the number of endpoints that failed at the last look; a worker that does not lead reports none."""
    await altered_endpoints(scene)
    keeper = await scene.keeper(FakeClock())
    meter = WorkerMeter()
    keeper.report_to(meter)
    await keeper.once()
    assert 3.0 == figures(meter)["hookseal_rotations_failing", None]
    await scene.scheduling.pool.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'globex'")
    await keeper.once()
    assert 2.0 == figures(meter)["hookseal_rotations_failing", None]
    scene.leads = False
    assert ("hookseal_rotations_failing", None) not in figures(meter)


async def test_a_broken_audit_log_prevents_its_tenants_purge(scene: Scene) -> None:
    """If the audit log of a tenant accepts no row, its secret is kept, logged once; other tenants are purged."""
    pool = scene.scheduling.pool
    for tenant in ("acme", "globex"):
        added = await scene.scheduling.endpoint(days=None, tenant=tenant)
        async with pool.acquire() as connection:
            operator = scene.scheduling.installation.operator(connection)
            await delete_endpoint(operator, TenantId(tenant), added.pointer.endpoint_id)
    await pool.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'acme'")
    await scene.scheduling.pass_(timedelta(days=RETENTION_DAYS, seconds=1))
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.purge()
    assert ["secret.purge_failed", "secret.purged"] == events(logs)
    rows = await pool.fetch("SELECT tenant_id, state FROM hookseal.secret_records WHERE purpose = 'webhook-signing'")
    assert {"acme": "retired", "globex": "destroyed"} == {row["tenant_id"]: row["state"] for row in rows}


async def test_a_version_is_retired_and_destroyed_once(scene: Scene) -> None:
    """A version is previous during its overlap, retired an hour later and destroyed after its retention, each once."""
    endpoint_id = (await scene.scheduling.endpoint(days=30)).pointer.endpoint_id
    keeper = await scene.keeper(FakeClock())
    for days in (29, 1):
        await scene.scheduling.pass_(days * DAY)
        await keeper.rotate_due()
    await scene.scheduling.pool.execute("UPDATE hookseal.endpoints SET rotate_every_days = NULL")
    seen = []
    for passed in (timedelta(0), DAY, timedelta(hours=1), RETENTION_DAYS * DAY):
        await scene.scheduling.pass_(passed + timedelta(seconds=1))
        for _ in range(2):
            await keeper.retire()
            await keeper.purge()
        seen.append(
            await scene.scheduling.pool.fetchval(
                "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 1"
            )
        )
    assert ["previous", "previous", "retired", "destroyed"] == seen
    assert (3, ["2"]) == (
        (await scene.scheduling.pointer(endpoint_id)).generation,
        await scene.scheduling.signed_by(endpoint_id),
    )
    assert ["secret.rotated", "secret.overlap_ended", "secret.destroyed"] == [
        row["action"] for row in (await audited(scene.scheduling.pool))[2:]
    ]


async def test_an_altered_row_is_not_retired(scene: Scene) -> None:
    """An altered row is logged once and left; the next one is retired; a deleted endpoint is no failure."""
    for number in range(3):
        await scene.scheduling.endpoint(days=1, number=number)
    keeper = await scene.keeper(FakeClock())
    for _ in range(2):
        await scene.scheduling.pass_(DAY / 2)
        await keeper.rotate_due()
    await scene.scheduling.pass_(2 * DAY)
    await scene.scheduling.pool.execute("UPDATE hookseal.endpoints SET lead = 'current' WHERE url LIKE '%/0'")
    [_, _, last] = await retention.ended_overlaps(scene.pool, None)
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.retire()
    assert ["secret.retirement_failed"] == events(logs)
    assert [2, 3, 3] == await scene.generations()
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=scene.scheduling.installation.unlocked, who="worker/w1")
        assert not await retire_ended_overlap(operator, last)


async def test_two_leaders_do_each_step_once(scene: Scene) -> None:
    """If two workers both believe that they lead, each step is done once."""
    for number in range(6):
        await scene.scheduling.endpoint(days=1, number=number)
    keepers = [await scene.keeper(FakeClock(), name=name) for name in ("w1", "w2")]
    with capture_logs() as logs:
        for _ in range(2):
            await scene.scheduling.pass_(DAY / 2)
            await asyncio.gather(*(keeper.once() for keeper in keepers))
    assert [2] * 6 == await scene.generations()
    assert 6 == events(logs).count("secret.rotation_announced") == events(logs).count("secret.rotated_by_schedule")
    actions = [row["action"] for row in await audited(scene.scheduling.pool)]
    assert 6 == actions.count("secret.rotation_announced") == actions.count("secret.rotated")
    assert "secret.revealed" not in actions


async def test_the_newest_integrity_key_is_used(scene: Scene) -> None:
    """Changes are authenticated by the newest integrity key, even if it was made after the worker started."""
    await scene.scheduling.endpoint(days=1)
    keeper = await scene.keeper(FakeClock())
    store = scene.scheduling.installation.unlocked.store
    await store.rotate(SYSTEM_TENANT, "integrity", SecretMaterial(bytes(range(32))), purpose=Purpose.INTEGRITY)
    for _ in range(2):
        await scene.scheduling.pass_(DAY / 2)
        await keeper.once()
    assert [("2", 2)] == [
        tuple(row) for row in await scene.scheduling.pool.fetch("SELECT mac_key_id, generation FROM hookseal.endpoints")
    ]


async def test_only_the_leader_looks(scene: Scene) -> None:
    """Only the leader looks: within three seconds after it begins to lead, and then every minute."""
    await scene.scheduling.endpoint(days=1)
    await scene.scheduling.pass_(DAY / 2)
    scene.leads = False
    clock = TurningClock()
    task = asyncio.create_task((await scene.keeper(clock)).loop.run())
    await clock.asleep(1)
    assert ["endpoint.added"] == [row["action"] for row in await audited(scene.scheduling.pool)]
    scene.leads = True
    await clock.turn()
    await scene.scheduling.pass_(DAY / 2)
    await clock.turn()
    await cancelled([task])
    assert [2] == await scene.generations()
    assert [3.0, 60.0, 60.0] == clock.slept


async def test_housekeeping_purges_once_an_hour(scene: Scene) -> None:
    """Retired versions are purged at the first look, and again an hour later."""
    clock = FakeClock()
    keeper = await scene.keeper(clock)
    await keeper.once()
    added = await scene.scheduling.endpoint(days=None)
    await scene.scheduling.installation.act(delete_endpoint, TenantId("acme"), added.pointer.endpoint_id)
    await scene.scheduling.pass_(timedelta(days=RETENTION_DAYS, seconds=1))
    states = "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    for passed, state in ((3_599, "retired"), (1, "destroyed")):
        clock.elapsed += passed
        await keeper.once()
        assert state == await scene.scheduling.pool.fetchval(states)


async def test_an_outage_is_survived(scene: Scene) -> None:
    """While PostgreSQL accepts no connection the outage is logged; afterwards all due work is done."""
    await scene.scheduling.endpoint(days=30)
    await scene.scheduling.pass_(29 * DAY)
    clock = TurningClock()
    keeper = await scene.keeper(clock)
    with capture_logs() as logs:
        await scene.scheduling.pool.execute(f"ALTER ROLE {scene.role} CONNECTION LIMIT 0")
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1"
        await scene.scheduling.pool.fetch(ended, scene.role)
        task = asyncio.create_task(keeper.loop.run())
        await clock.asleep(1)
        await clock.turn()
        assert {"housekeeping.failed"} == set(events(logs))
        await scene.scheduling.pool.execute(f"ALTER ROLE {scene.role} CONNECTION LIMIT -1")
        await clock.turn()
        await cancelled([task])
    assert ["secret.rotation_announced", "housekeeping.resumed"] == events(logs)[-2:]


async def test_a_locked_row_is_left_for_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint whose row is locked for too long is logged and left; the same look handles the next endpoint."""
    for number in range(2):
        await scene.scheduling.endpoint(days=30, number=number)
    await scene.scheduling.pass_(29 * DAY)
    monkeypatch.setattr(operator, "LOCK_SECONDS", 0.05)
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        async with scene.scheduling.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM hookseal.endpoints WHERE url LIKE '%/0' FOR UPDATE")
            await keeper.once()
        await keeper.once()
    assert ["secret.scheduled_rotation_failed", *["secret.rotation_announced"] * 2] == events(logs)


async def test_locked_rows_of_one_tenant_stop_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three locked rows of a tenant the look leaves its others, and handles those of the next tenant."""
    for number in range(5):
        await scene.scheduling.endpoint(days=30, number=number)
    await scene.scheduling.endpoint(days=30, tenant="globex")
    await scene.scheduling.pass_(29 * DAY)
    monkeypatch.setattr(operator, "LOCK_SECONDS", 0.05)
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        async with scene.scheduling.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM hookseal.endpoints WHERE tenant_id = 'acme' FOR UPDATE")
            await keeper.once()
        await keeper.once()
    failed, announced = "secret.scheduled_rotation_failed", "secret.rotation_announced"
    assert [failed] * maintenance.MOST_LOCKED + [announced] * 6 == events(logs)
    assert ["globex", *["acme"] * 5] == [line["tenant_id"] for line in logs if line["event"] == announced]


def test_three_outages_in_a_row_end_a_look() -> None:
    """Each further endpoint would wait as long for PostgreSQL, which does not answer."""
    failures = FailureLog("look", structlog.get_logger())
    for _ in range(maintenance.UNANSWERED_IN_A_ROW - 1):
        with failures.survived(tenant_id=TenantId("acme")):
            raise Unavailable
    with pytest.raises(Unavailable), failures.survived(tenant_id=TenantId("globex")):
        raise Unavailable


async def test_a_defect_is_logged_and_survived(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect at one endpoint is logged with its traceback, and the next endpoint is handled."""
    for number in range(2):
        await scene.scheduling.endpoint(days=30, number=number)
    await scene.scheduling.pass_(29 * DAY)
    keeper = await scene.keeper(FakeClock())
    first: list[str] = []

    async def faulty(operator: Any, each: Any, **options: Any) -> Any:
        first.append(each.endpoint_id)
        if each.endpoint_id == first[0]:
            raise ZeroDivisionError
        return await take_turn(operator, each, **options)

    monkeypatch.setattr(maintenance, "take_turn", faulty)
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.once()
    assert ["secret.scheduled_rotation_defect", "secret.rotation_announced"] == events(logs)


async def test_deliveries_continue_during_housekeeping(scene: Scene) -> None:
    """While housekeeping waits for a lock of one tenant, a delivery of another tenant is claimed at once."""
    await scene.scheduling.endpoint(days=30, number=0)
    await scene.scheduling.endpoint(days=None, number=1, tenant="globex")
    await scene.scheduling.pass_(29 * DAY)
    keeper = await scene.keeper(FakeClock())
    ledger = PostgresLedger(scene.pool, worker="w1", lease_seconds=45)
    async with scene.scheduling.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM hookseal.audit_heads WHERE tenant_id = 'acme' FOR UPDATE")
        task = asyncio.create_task(keeper.once())
        [ring] = await scene.scheduling.installation.deliveries("globex")
        assert await ledger.claim(ring) is not None
        assert not task.done()
    await task
    assert "secret.rotation_announced" == (await audited(scene.scheduling.pool))[-1]["action"]
