"""Refused secrets are counted and audited every minute, on a real PostgreSQL under the rights of a worker."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.audit import log
from hookseal.errors import InDoubt, SecretDenied, SecretError, SecretNotFound, SecretTampered, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations import operator
from hookseal.operations.audit_reports import audit_denied
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.ref import Provider
from hookseal.worker import audit_reports
from hookseal.worker.audit_reports import EVERY_SECONDS, MOST_ENDPOINTS, MOST_TENANTS, DenialReports, StaleReports
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.run import cancelled
from tests.doubles.claims import POINTER
from tests.doubles.clock import FakeClock, TurningClock
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.replaced import replace
from tests.doubles.stored import begin, keyring
from tests.worker.figures import figures
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-14", part="counted")

REFUSED = ("hookseal_audit_rows_refused_total", None)


@dataclass(kw_only=True)
class Scene:
    """An installation, and the report of refusals of a worker that has the rights of a worker."""

    owner: Pool
    pool: Pool
    url: str
    unlocked: Unlocked
    clock: FakeClock
    meter: WorkerMeter
    denials: DenialReports

    def counting(self, *, pool: Pool | None = None, clock: Any = None) -> DenialReports:
        return DenialReports(
            pool or self.pool,
            self.unlocked,
            worker_id="w1",
            clock=clock or self.clock,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    async def rows(self, tenant: str = "acme") -> list[dict[str, Any]]:
        """Return the facts of each audit row about refusals."""
        return [row["after"] for row in await audited(self.owner, tenant) if row["action"] == "secret.denied"]


@pytest.fixture
async def scene(begun_pool: Pool, database_url: str) -> AsyncIterator[Scene]:
    """Yield an installation, and a pool of a login that has the role of a worker only."""
    await begin(begun_pool)
    async with (
        login(begun_pool, database_url, "hookseal_worker") as (_, url),
        asyncpg.create_pool(url, min_size=1, max_size=4) as own,
    ):
        unlocked = await unlock(own, Provider.DB, keyring())
        made = Scene(
            owner=begun_pool,
            pool=own,
            url=url,
            unlocked=unlocked,
            clock=FakeClock(),
            meter=WorkerMeter(),
            denials=None,  # type: ignore[arg-type]  # made from the other parts in the next line
        )
        made.denials = made.counting()
        yield made


def of(tenant: str = "acme", endpoint: int = 1) -> Pointer:
    return replace(POINTER, tenant_id=TenantId(tenant), endpoint_id=endpoint_of(endpoint))


def endpoint_of(number: int) -> EndpointId:
    return EndpointId(f"01900000-0000-7000-8000-{number:012d}")


async def test_a_minute_is_one_row_for_a_tenant(scene: Scene) -> None:
    """All refusals of a tenant in a minute are one audit row: counts by code, first and last time, endpoints."""
    errors: list[SecretError] = [SecretTampered(), SecretDenied(), SecretTampered()]
    for number, error in enumerate(errors * 500):
        scene.denials.add(of(endpoint=number % 2), error)
        scene.clock.elapsed += 0.01
    scene.denials.add(of("globex"), SecretNotFound())
    await scene.denials.once()
    await scene.denials.once()

    [row] = [row for row in await audited(scene.owner) if row["action"] == "secret.denied"]
    assert ("tenant:acme", "worker/w1", None) == (row["subject"], row["who"], row["before"])
    assert {
        "worker": "w1",
        "from": "2026-01-02T03:04:05.000000Z",
        "to": "2026-01-02T03:04:19.990000Z",
        "denied": {"secret_denied": 500, "secret_tampered": 1000},
        "endpoints": [endpoint_of(0), endpoint_of(1)],
        "endpoints_are_all": True,
    } == row["after"]
    assert [{"secret_not_found": 1}] == [row["denied"] for row in await scene.rows("globex")]
    assert {None} == {each.broken for each in await log.verify(scene.owner, scene.unlocked.integrity)}
    scene.denials.add(of(), SecretDenied())
    await scene.denials.once()
    assert [{"secret_denied": 500, "secret_tampered": 1000}, {"secret_denied": 1}] == [
        row["denied"] for row in await scene.rows()
    ]
    assert 0.0 == figures(scene.meter)[REFUSED]


async def test_counts_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of named endpoints and tenants are bounded; all others are counted without a name under `_system`."""
    assert (10, 1_000) == (MOST_ENDPOINTS, MOST_TENANTS)
    monkeypatch.setattr(audit_reports, "MOST_TENANTS", 2)
    for endpoint in range(MOST_ENDPOINTS + 1):
        for _ in range(2):
            scene.denials.add(of("aaaa", endpoint), SecretDenied())
    for tenant in ("bbbb", "cccc", "dddd", "aaaa"):
        scene.denials.add(of(tenant), SecretTampered())
    await scene.denials.once()

    [first] = await scene.rows("aaaa")
    assert ([endpoint_of(number) for number in range(10)], False) == (first["endpoints"], first["endpoints_are_all"])
    assert {"secret_denied": 22, "secret_tampered": 1} == first["denied"]
    assert [1, 0, 0] == [len(await scene.rows(tenant)) for tenant in ("bbbb", "cccc", "dddd")]
    rest = (await audited(scene.owner, SYSTEM_TENANT))[-1]
    assert ("tenants:others", {"secret_tampered": 2}) == (rest["subject"], rest["after"]["denied"])
    assert {"worker", "from", "to", "denied"} == rest["after"].keys()


async def test_counts_survive_an_outage(scene: Scene) -> None:
    """While PostgreSQL does not answer, refusals are counted on; afterwards each is audited once."""
    async with asyncpg.create_pool(scene.url, min_size=1, max_size=1) as pool:
        other = scene.counting(pool=pool)
        other.add(of(), SecretDenied())
        await pool.close()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await other.once()
            other.add(of(), SecretTampered())
        assert [] == await scene.rows()
        other._pool = scene.pool
        await other.once()
        await other.once()

    assert [{"secret_denied": 1}, {"secret_tampered": 2}] == [row["denied"] for row in await scene.rows()]


async def test_locked_audit_logs_delay_no_other_tenant(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants whose audit logs are locked keep their counts for the next time; the other tenants are audited."""
    monkeypatch.setattr(operator, "LOCK_SECONDS", 0.05)
    locked, tenants = ("acme", "bbbb", "cccc"), ("acme", "bbbb", "cccc", "dddd")
    for tenant in tenants:
        scene.denials.add(of(tenant), SecretDenied())
    async with scene.owner.acquire() as connection:
        async with connection.transaction():
            for tenant in locked:
                await log.lock_chain(connection, TenantId(tenant))
            with pytest.raises(Unavailable):
                await scene.denials.once()
        assert [0, 0, 0, 1] == [len(await scene.rows(tenant)) for tenant in tenants]
    await scene.denials.once()
    assert [1, 1, 1, 1] == [len(await scene.rows(tenant)) for tenant in tenants]


async def test_a_locked_audit_log_delays_no_stale_row_of_another_tenant(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the locked one are kept, and only one of them is tried; the other tenants' are audited."""
    monkeypatch.setattr(operator, "LOCK_SECONDS", 0.05)
    stale = StaleReports(
        scene.pool, scene.unlocked, worker_id="w1", clock=scene.clock, meter=scene.meter, log=structlog.get_logger()
    )
    for pointer in (of("acme", 1), of("acme", 2), of("bbbb")):
        stale.add(pointer, "it is old")

    async def found(tenant: str) -> int:
        return [row["action"] for row in await audited(scene.owner, tenant)].count("stale.found")

    async with scene.owner.acquire() as connection:
        async with connection.transaction():
            await log.lock_chain(connection, TenantId("acme"))
            with pytest.raises(Unavailable):
                await stale.once()
        assert [0, 1] == [await found(tenant) for tenant in ("acme", "bbbb")]
    await stale.once()
    assert [2, 1] == [await found(tenant) for tenant in ("acme", "bbbb")]


@pytest.mark.parametrize("was_done", [True, False])
async def test_an_unanswered_commit_is_looked_up(scene: Scene, was_done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a commit without an answer the row is looked up: it and all later refusals are audited once."""
    scene.denials.add(of(), SecretDenied())

    async def lost(*arguments: Any, again: bool) -> bool:
        assert not again
        if was_done:
            await audit_denied(*arguments, again=again)
        raise InDoubt("PostgreSQL did not answer to the commit")

    with monkeypatch.context() as patched:
        patched.setattr(audit_reports, "audit_denied", lost)
        with pytest.raises(InDoubt):
            await scene.denials.once()
    assert int(was_done) == len(await scene.rows())
    scene.denials.add(of(), SecretTampered())
    await scene.denials.once()
    await scene.denials.once()

    assert [{"secret_denied": 1}, {"secret_tampered": 1}] == [row["denied"] for row in await scene.rows()]


async def test_a_broken_audit_log_is_logged_and_counted(scene: Scene) -> None:
    """If a broken audit log accepts no row, the counts are logged once instead; other tenants are audited."""
    scene.denials.add(of(), SecretDenied())
    await scene.denials.once()
    await scene.owner.execute("UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = 'acme'")
    for tenant in ("acme", "acme", "globex"):
        scene.denials.add(of(tenant), SecretTampered())
    with capture_logs() as logs:
        await scene.denials.once()
        await scene.denials.once()

    assert [("secret.denied_unaudited", "acme", {"secret_tampered": 2}, "error")] == [
        (line["event"], line["tenant_id"], line["denied"], line["log_level"]) for line in logs
    ]
    assert "does not end where its head says" in logs[0]["reason"]
    assert (1, 1) == (len(await scene.rows()), len(await scene.rows("globex")))
    assert 1.0 == figures(scene.meter)[REFUSED]
    await scene.owner.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'acme'")
    scene.denials.add(of(), SecretDenied())
    await scene.denials.once()
    assert 2 == len(await scene.rows())


async def test_the_loop_writes_once_a_minute(scene: Scene) -> None:
    """The report is written every minute; a failure is logged once and the counts are written after it ended."""
    clock = TurningClock()
    async with asyncpg.create_pool(scene.url, min_size=1, max_size=1) as pool:
        looping = scene.counting(pool=pool, clock=clock)
        looping.add(of(), SecretDenied())
        await pool.close()
    with capture_logs() as logs:
        task = asyncio.create_task(looping.loop.run())
        await clock.asleep(1)
        for _ in range(2):
            await clock.turn()
        assert [] == await scene.rows()
        looping._pool = scene.pool
        for _ in range(2):
            await clock.turn()
        await cancelled([task])
    assert [EVERY_SECONDS] * 5 == clock.slept
    assert [{"secret_denied": 1}] == [row["denied"] for row in await scene.rows()]
    assert ["denials.failed", "denials.resumed"] == [line["event"] for line in logs]


async def test_counts_survive_a_cancellation(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts survive a cancellation within a row: they and later ones are written when the worker ends."""
    monkeypatch.setattr(audit_reports, "_END_SECONDS", 30.0)  # the machine may be slow
    scene.denials.add(of(), SecretDenied())
    async with scene.owner.acquire() as connection, connection.transaction():
        await log.lock_chain(connection, TenantId("acme"))
        writing = asyncio.create_task(scene.denials.once())
        await eventually(
            lambda: scene.owner.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock')"
            )
        )
        scene.denials.add(of(), SecretTampered())
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await scene.denials.end()

    assert [{"secret_denied": 1}, {"secret_tampered": 1}] == [row["denied"] for row in await scene.rows()]


async def test_the_end_of_the_worker_is_not_delayed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that cannot be written when the worker ends are logged in full, and the worker ends without delay."""
    monkeypatch.setattr(audit_reports, "_END_SECONDS", 0.05)
    scene.denials.add(of(), SecretDenied())
    with capture_logs() as logs:
        async with scene.owner.acquire() as connection, connection.transaction():
            await log.lock_chain(connection, TenantId("acme"))
            await scene.denials.end()

    assert [("secret.denied_unaudited", {"secret_denied": 1})] == [(line["event"], line["denied"]) for line in logs]
    assert [] == await scene.rows()
