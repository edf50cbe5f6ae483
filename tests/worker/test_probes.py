"""The probes of a whole worker, while one dependency after another is broken."""

import json
from pathlib import Path

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.postgres.schema.revision import EXPECTED
from hookseal.queue.bell import bell
from hookseal.worker.metrics.definitions import LOOPS
from tests.worker.broken_worker import CANARY
from tests.worker.test_engine import ring
from tests.worker.waiting import eventually
from tests.worker.world import Worker, World, world

Pool = asyncpg.Pool
WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
FINE = {
    "/readyz": {"postgresql": "ok", "redis": "ok", "schema": "ok", "secrets": "ok", "queue": "ok", "records": "ok"}
    | {f"loop_{name}": "ok" for name in LOOPS},
    "/startupz": {"schema": "ok", "keys": "ok"},
}


async def wait_for_answer(worker: Worker, path: str, **changes: str) -> None:
    """Return when that probe answers exactly this; the worker must live."""
    checks = FINE[path] | changes
    expected = (503 if changes else 200, {"status": "unavailable" if changes else "ok", "checks": checks})

    async def look() -> bool:
        return expected == await worker.get(path)

    await eventually(look)
    assert (200, {"status": "ok"}) == await worker.get("/livez")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(
    ("path", "check", "alteration", "restoration"),
    [
        pytest.param(
            "/readyz",
            "secrets",
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
            " WHERE name = 'sentinel'",
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
            " WHERE name = 'sentinel'",
            id="sentinel",
        ),
        pytest.param(
            "/readyz",
            "schema",
            "GRANT CREATE ON SCHEMA hookseal TO PUBLIC",
            "REVOKE CREATE ON SCHEMA hookseal FROM PUBLIC",
            id="a stranger may create functions",
        ),
        pytest.param(
            "/startupz",
            "schema",
            "UPDATE hookseal.alembic_version SET version_num = '9999'",
            f"UPDATE hookseal.alembic_version SET version_num = '{EXPECTED}'",  # noqa: S608 -- a constant of ours
            id="schema",
        ),
        pytest.param(
            "/startupz",
            "keys",
            "UPDATE hookseal.secret_keys SET check_value = set_byte(check_value, 0, get_byte(check_value, 0) # 1)",
            "UPDATE hookseal.secret_keys SET check_value = set_byte(check_value, 0, get_byte(check_value, 0) # 1)",
            id="keys",
        ),
    ],
)
async def test_an_alteration_fails_its_own_check(
    path: str, check: str, alteration: str, restoration: str, world: World
) -> None:
    """An altered sentinel, schema, right or key check fails its own check, until it is restored."""
    other = next(each for each in FINE if each != path)
    async with world.worker() as worker:
        await wait_for_answer(worker, path)
        await world.pool.execute(alteration)
        await wait_for_answer(worker, path, **{check: "refused" if check == "secrets" else "unavailable"})
        await wait_for_answer(worker, other)
        await world.pool.execute(restoration)
        await wait_for_answer(worker, path)


@pytest.mark.req("OPS-01")
async def test_a_frozen_postgresql_fails_its_checks(own_postgres: Server, redis_url: str, tmp_path: Path) -> None:
    """While PostgreSQL is frozen the checks that use it are timeouts, and those of Redis pass; afterwards all pass."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=2) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        async with installed.worker() as worker:
            await wait_for_answer(worker, "/readyz")
            own_postgres.freeze()
            try:
                await wait_for_answer(worker, "/readyz", postgresql="timeout", schema="timeout", secrets="timeout")
                await wait_for_answer(worker, "/startupz", schema="timeout", keys="timeout")
                found = await worker.figures()
                names = ("postgresql", "redis", "schema", "secrets", "queue", "records")
                assert [0.0, 1.0, 0.0, 0.0, 1.0, 1.0] == [found["hookseal_ready", name] for name in names]
            finally:
                own_postgres.thaw()
            await wait_for_answer(worker, "/readyz")
            await wait_for_answer(worker, "/startupz")


@pytest.mark.req("OPS-01")
async def test_a_frozen_redis_fails_its_check(
    pool: "Pool[asyncpg.Record]", database_url: str, own_valkey: Server, tmp_path: Path
) -> None:
    """While Redis is frozen only its check is a timeout; afterwards all pass."""
    installed = await world(pool, database_url, own_valkey.url, tmp_path)
    async with installed.worker() as worker:
        await wait_for_answer(worker, "/readyz")
        own_valkey.freeze()
        try:
            await wait_for_answer(worker, "/readyz", redis="timeout")
            await wait_for_answer(worker, "/startupz")
        finally:
            own_valkey.thaw()
        await wait_for_answer(worker, "/readyz")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(("broken", "stuck"), [("taking", True), ("handling", True), ("outbox", False)])
async def test_a_loop_that_dies_at_each_pass_is_not_healthy(broken: str, stuck: bool, world: World) -> None:
    """Such a worker is never ready, and the log names the place; it lives only if it can send without that loop."""
    async with world.broken_worker(broken) as worker:
        expected = dict.fromkeys(FINE["/readyz"], "ok") | {f"loop_{broken}": "unavailable"}
        assert (503, {"status": "unavailable", "checks": expected}) == await worker.get("/readyz")

        async def turned() -> bool:
            return (503, {"status": "stuck", "loops": [broken]}) == await worker.get("/livez")

        async def logged() -> list[str]:
            return [line["exception"] for line in worker.log if "exception" in line]

        if stuck:
            await eventually(turned)
        else:
            assert (200, {"status": "ok"}) == await worker.get("/livez")
        [exception, *_] = await eventually(logged)
        assert (503, {"status": "unavailable", "checks": expected}) == await worker.get("/readyz")
    assert exception.startswith("TypeError\n")
    assert "tests/worker/broken_worker.py:" in exception
    assert " in fail" in exception
    assert "hookseal/worker/" in exception
    assert CANARY not in worker.log_file.read_text(encoding="utf-8")


async def test_a_loop_that_ends_by_itself_ends_the_worker(world: World) -> None:
    """If a loop ends that never should, the worker ends with 70, and the log names the place."""
    async with world.broken_worker("pulse") as worker:
        assert 70 == await worker.ended()
    *lines, last = worker.log_file.read_text(encoding="utf-8").splitlines()
    assert last.startswith("hookseal: the pulse loop ended by itself")
    [line] = [each for each in map(json.loads, lines) if each["event"] == "worker.loop_ended"]
    assert ("pulse", True) == (line["loop"], line["exception"].endswith(" in fail"))
    assert CANARY not in "".join(lines)


@pytest.mark.req("OPS-01")
async def test_a_busy_worker_is_ready(world: World) -> None:
    """While claim and outbox wait for locks the worker is ready, because the probes have their own connections."""
    async with world.worker(HOOKSEAL_SWEEP_SECONDS="300") as worker:
        await wait_for_answer(worker, "/readyz")
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.deliveries, hookseal.control IN ACCESS EXCLUSIVE MODE")
            ringing = bell(world.redis_url)
            await ringing.ring(ring(number) for number in range(50))
            await ringing.close()

            async def all_are_locked() -> bool:
                return bool(await world.pool.fetchval(WAITING_FOR_A_LOCK) >= 2)

            await eventually(all_are_locked)
            assert 200 == (await worker.get("/readyz"))[0]
        await wait_for_answer(worker, "/readyz")
