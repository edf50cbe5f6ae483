"""Housekeeping on a real database whose clock is shifted, under a login that is a worker and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.operations.endpoints import delete_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.scheduled import retire_run_out, take_turn
from hookseal.secrets import retention
from hookseal.secrets.boot import unlock
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider
from hookseal.worker import housekeeping
from hookseal.worker.housekeeping import Housekeeping, Rules
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.run import cancelled
from tests.doubles import shifted
from tests.doubles.clock import FakeClock
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import keyring
from tests.operations.scheduling import DAY, DAY_SECONDS, Scheduling, scheduling
from tests.worker.figures import figures
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-11")

Pool = asyncpg.Pool
RETENTION_DAYS = 90


@dataclass(kw_only=True)
class Scene:
    """An installation, and a worker of it with the rights of a worker, who logs in by that role."""

    scheduling: Scheduling
    role: str
    pool: "Pool[asyncpg.Record]"
    leads: bool = True

    async def keeper(
        self, clock: FakeClock, *, name: str = "w1", pool: "Pool[asyncpg.Record] | None" = None
    ) -> Housekeeping:
        """Return what keeps house for a worker of that name."""
        source = self.pool if pool is None else pool
        return Housekeeping(
            source,
            await unlock(source, Provider.DB, keyring()),
            lambda: self.leads,
            rules=Rules(who=f"worker/{name}", overlap_seconds=DAY_SECONDS, retention_days=RETENTION_DAYS),
            clock=clock,
            log=structlog.get_logger(),
        )

    async def generations(self) -> list[int]:
        """Return the generation of every endpoint, in the order in which they were added."""
        rows = await self.scheduling.pool.fetch("SELECT generation FROM hookseal.endpoints ORDER BY id")
        return [row["generation"] for row in rows]


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Yield an installation on a clock of its own, and a pool of a login that is only a worker."""
    async with (
        scheduling(database_url) as made,
        login(made.pool, database_url, "hookseal_worker") as (role, url),
        asyncpg.create_pool(url, min_size=1, max_size=4, server_settings=shifted.SETTINGS) as pool,
    ):
        yield Scene(scheduling=made, role=role, pool=pool)


def told(logs: list[Any]) -> list[str]:
    """Return the events, in order."""
    return [line["event"] for line in logs]


async def test_the_whole_of_it_as_a_worker(scene: Scene) -> None:
    """With the rights of a worker alone it announces, rotates and destroys; each is audited by its name and logged."""
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
    assert [*rounds, "secret.purged"] == told(logs)
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


async def spoilt(scene: Scene) -> None:
    """Make five endpoints of whom two can be announced: two rows are altered, and the log of one tenant is broken."""
    for number in range(5):
        await scene.scheduling.endpoint(days=30, number=number, tenant="globex" if number == 4 else "acme")
    await scene.scheduling.pass_(29 * DAY)
    for alters in (
        "UPDATE hookseal.endpoints SET url = 'https://evil/' WHERE url LIKE '%/1'",
        "UPDATE hookseal.endpoints SET algorithm = 'rot13' WHERE url LIKE '%/2'",
        "UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = 'globex'",
    ):
        await scene.scheduling.pool.execute(alters)


async def test_one_that_fails_holds_up_no_other(scene: Scene) -> None:
    """What fails at an endpoint is told once, not at every look, and all others have their turn."""
    await spoilt(scene)
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.once()
        await scene.scheduling.pass_(DAY)
        await keeper.once()
    failed = [line for line in logs if line["event"] == "secret.scheduled_rotation_failed"]
    assert 3 == len({(line["tenant_id"], line["endpoint_id"], line["reason"]) for line in failed}) == len(failed)
    assert 2 == told(logs).count("secret.rotation_announced") == told(logs).count("secret.rotated_by_schedule")
    assert sorted([1, 1, 1, 2, 2]) == sorted(await scene.generations())


@pytest.mark.req("SEC-14", part="append")
async def test_a_shortened_log_stops_the_schedule(scene: Scene) -> None:
    """With the last row of its tenant removed an endpoint keeps its secret: logged and counted; others have theirs."""
    pool = scene.scheduling.pool
    for tenant in ("acme", "acme", "globex"):
        await scene.scheduling.endpoint(days=1, tenant=tenant, number=len(await scene.generations()))
    await scene.scheduling.pass_(DAY / 2)
    meter, keeper = WorkerMeter(), await scene.keeper(FakeClock())
    keeper.told_by(meter)
    await keeper.rotate()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence = 4")
    await scene.scheduling.pass_(DAY / 2)
    with capture_logs() as logs:
        await keeper.rotate()

    failed = [line for line in logs if line["event"] == "secret.scheduled_rotation_failed"]
    assert [("acme", "error")] * 2 == [(line["tenant_id"], line["log_level"]) for line in failed]
    assert all("hookseal audit verify" in line["reason"] for line in failed)
    assert [1, 1, 2] == await scene.generations()
    assert 2.0 == figures(meter)["hookseal_rotations_failing", None]


@pytest.mark.req("OPS-11", part="rotations-due")
async def test_how_many_fail(scene: Scene) -> None:
    """The figure is how many endpoints failed at the last look; it falls when one is mended, and others tell none."""
    await spoilt(scene)
    keeper = await scene.keeper(FakeClock())
    meter = WorkerMeter()
    keeper.told_by(meter)
    await keeper.once()
    assert 3.0 == figures(meter)["hookseal_rotations_failing", None]
    await scene.scheduling.pool.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'globex'")
    await keeper.once()
    assert 2.0 == figures(meter)["hookseal_rotations_failing", None]
    scene.leads = False
    assert ("hookseal_rotations_failing", None) not in figures(meter)


async def test_a_tenant_that_cannot_be_purged(scene: Scene) -> None:
    """A tenant whose log takes no row keeps its material and is told once; the next one's is destroyed."""
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
    assert ["secret.purge_failed", "secret.purged"] == told(logs)
    rows = await pool.fetch("SELECT tenant_id, state FROM hookseal.secret_records WHERE purpose = 'webhook-signing'")
    assert {"acme": "retired", "globex": "destroyed"} == {row["tenant_id"]: row["state"] for row in rows}


async def test_the_life_of_a_version(scene: Scene) -> None:
    """Previous while its overlap runs, retired an hour after, destroyed when its retention is over; once each."""
    endpoint_id = (await scene.scheduling.endpoint(days=30)).pointer.endpoint_id
    keeper = await scene.keeper(FakeClock())
    for days in (29, 1):
        await scene.scheduling.pass_(days * DAY)
        await keeper.rotate()
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


async def test_what_cannot_be_retired(scene: Scene) -> None:
    """An altered row is told once and left; the next one is retired; one that was deleted meanwhile is no failure."""
    for number in range(3):
        await scene.scheduling.endpoint(days=1, number=number)
    keeper = await scene.keeper(FakeClock())
    for _ in range(2):
        await scene.scheduling.pass_(DAY / 2)
        await keeper.rotate()
    await scene.scheduling.pass_(2 * DAY)
    await scene.scheduling.pool.execute("UPDATE hookseal.endpoints SET lead = 'current' WHERE url LIKE '%/0'")
    [_, _, last] = await retention.run_out(scene.pool, None)
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.retire()
    assert ["secret.retirement_failed"] == told(logs)
    assert [2, 3, 3] == await scene.generations()
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=scene.scheduling.installation.unlocked, who="worker/w1")
        assert not await retire_run_out(operator, last)


async def test_two_workers_race(scene: Scene) -> None:
    """Two that both believe to lead do everything once between them."""
    for number in range(6):
        await scene.scheduling.endpoint(days=1, number=number)
    keepers = [await scene.keeper(FakeClock(), name=name) for name in ("w1", "w2")]
    with capture_logs() as logs:
        for _ in range(2):
            await scene.scheduling.pass_(DAY / 2)
            await asyncio.gather(*(keeper.once() for keeper in keepers))
    assert [2] * 6 == await scene.generations()
    assert 6 == told(logs).count("secret.rotation_announced") == told(logs).count("secret.rotated_by_schedule")
    actions = [row["action"] for row in await audited(scene.scheduling.pool)]
    assert 6 == actions.count("secret.rotation_announced") == actions.count("secret.rotated")
    assert "secret.revealed" not in actions


async def test_a_key_that_was_rotated_meanwhile(scene: Scene) -> None:
    """What it writes is authenticated by the newest integrity key, also one that it did not know at its start."""
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


class Turning(FakeClock):
    """Sleeps until it is told to wake."""

    def __init__(self) -> None:
        super().__init__()
        self._wake = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until it is told to wake."""
        await super().sleep(seconds)
        await self._wake.wait()
        self._wake.clear()

    async def turned(self) -> None:
        """Wake the sleeper, and return once it sleeps again."""
        slept = len(self.slept)
        self._wake.set()
        await self.asleep(slept + 1)

    async def asleep(self, times: int) -> None:
        """Return once it has fallen asleep so often."""

        async def look() -> bool:
            return len(self.slept) == times

        await eventually(look)


async def test_only_who_leads_looks(scene: Scene) -> None:
    """Who does not lead does nothing; who begins to lead looks within three seconds, and then every minute."""
    await scene.scheduling.endpoint(days=1)
    await scene.scheduling.pass_(DAY / 2)
    scene.leads = False
    clock = Turning()
    task = asyncio.create_task((await scene.keeper(clock)).run())
    await clock.asleep(1)
    assert ["endpoint.added"] == [row["action"] for row in await audited(scene.scheduling.pool)]
    scene.leads = True
    await clock.turned()
    await scene.scheduling.pass_(DAY / 2)
    await clock.turned()
    await cancelled([task])
    assert [2] == await scene.generations()
    assert [3.0, 60.0, 60.0] == clock.slept


async def test_it_purges_hourly(scene: Scene) -> None:
    """It purges at its first look, and again once an hour has passed."""
    clock = FakeClock()
    keeper = await scene.keeper(clock)
    await keeper.once()
    added = await scene.scheduling.endpoint(days=None)
    async with scene.scheduling.pool.acquire() as connection:
        operator = scene.scheduling.installation.operator(connection)
        await delete_endpoint(operator, TenantId("acme"), added.pointer.endpoint_id)
    await scene.scheduling.pass_(timedelta(days=RETENTION_DAYS, seconds=1))
    states = "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    for passed, state in ((3_599, "retired"), (1, "destroyed")):
        clock.elapsed += passed
        await keeper.once()
        assert state == await scene.scheduling.pool.fetchval(states)


async def test_an_outage_is_survived(scene: Scene) -> None:
    """While PostgreSQL takes no connection nothing is done, which is told; afterwards what is due is done."""
    await scene.scheduling.endpoint(days=30)
    await scene.scheduling.pass_(29 * DAY)
    clock = Turning()
    keeper = await scene.keeper(clock)
    with capture_logs() as logs:
        await scene.scheduling.pool.execute(f"ALTER ROLE {scene.role} CONNECTION LIMIT 0")
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1"
        await scene.scheduling.pool.fetch(ended, scene.role)
        task = asyncio.create_task(keeper.run())
        await clock.asleep(1)
        await clock.turned()
        assert {"housekeeping.failed"} == set(told(logs))
        await scene.scheduling.pool.execute(f"ALTER ROLE {scene.role} CONNECTION LIMIT -1")
        await clock.turned()
        await cancelled([task])
    assert ["secret.rotation_announced", "housekeeping.resumed"] == told(logs)[-2:]


async def test_a_row_that_is_held_is_left_for_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that somebody holds for too long is told and left; the next endpoint has its turn in the same look."""
    for number in range(2):
        await scene.scheduling.endpoint(days=30, number=number)
    await scene.scheduling.pass_(29 * DAY)
    monkeypatch.setattr("hookseal.operations.operator._BOUNDS", "SET LOCAL lock_timeout = '50ms'")
    keeper = await scene.keeper(FakeClock())
    with capture_logs() as logs:
        async with scene.scheduling.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM hookseal.endpoints WHERE url LIKE '%/0' FOR UPDATE")
            await keeper.once()
        await keeper.once()
    assert ["secret.scheduled_rotation_failed", *["secret.rotation_announced"] * 2] == told(logs)


async def test_many_that_are_held_are_an_outage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """When three in a row get no answer the look ends there: the others would wait as long, one after the other."""
    for number in range(5):
        await scene.scheduling.endpoint(days=30, number=number)
    await scene.scheduling.pass_(29 * DAY)
    monkeypatch.setattr("hookseal.operations.operator._BOUNDS", "SET LOCAL lock_timeout = '50ms'")
    clock = Turning()
    keeper = await scene.keeper(clock)
    with capture_logs() as logs:
        async with scene.scheduling.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
            task = asyncio.create_task(keeper.run())
            await clock.asleep(1)
        await clock.turned()
        await cancelled([task])
    assert housekeeping.UNANSWERED_IN_A_ROW == told(logs).count("secret.scheduled_rotation_failed")
    assert ["housekeeping.failed", *["secret.rotation_announced"] * 5, "housekeeping.resumed"] == [
        event for event in told(logs) if event != "secret.scheduled_rotation_failed"
    ]


async def test_a_defect_is_told_and_survived(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a fault of ours at one endpoint is told with its traceback, and the next one has its turn."""
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

    monkeypatch.setattr(housekeeping, "take_turn", faulty)
    with capture_logs() as logs:
        for _ in range(2):
            await keeper.once()
    assert ["secret.scheduled_rotation_defect", "secret.rotation_announced"] == told(logs)


async def test_deliveries_go_on_beside_it(scene: Scene) -> None:
    """While it waits for the row of one endpoint a claim for another is made at once."""
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
