"""`hookseal doctor` finds what is wrong: each finding is provoked by its real cause, and names what to do."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from hookseal.embedded.valkey import valkey
from hookseal.postgres.connect import SEARCH_PATH
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema.revision import EXPECTED
from hookseal.worker import doctor
from hookseal.worker.doctor import (
    Finding,
    Verdict,
    of_autovacuum,
    of_clock,
    of_connections,
    of_durability,
    of_pooler,
    of_redis,
    of_snapshots,
)
from hookseal.worker.resources import CONNECTIONS
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port
from tests.doubles.logins import login
from tests.doubles.pgbouncer import pgbouncer
from tests.faults.outages import WallClock, library
from tools.bench.scaling import OF_A_PROCESS

pytestmark = pytest.mark.req("OPS-12")

DOCS = Path(__file__).parents[2] / "docs"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RISKS = {"fsync", "full_page_writes", "synchronous_commit"}  # the servers of the tests are not durable

FLIPPED = "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, 0) WHERE name = 'sentinel'"
NEWER = "UPDATE hookseal.alembic_version SET version_num = '9998'"
ELSEWHERE = (
    "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme)"
    " VALUES ('acme', 'n', 1, 'openbao', 'webhook_signing', 'standard')"
)
_WORKER = "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, unrecorded_since) VALUES "
OLDER_WORKER = _WORKER + "('w1', '0.0.1', 30, 45, '{{}}', NULL)"
BLOCKED_WORKER = _WORKER + "('w1', '0.0.1', 30, 45, '{{}}', now())"
DRAINING_WORKER = (
    "INSERT INTO hookseal.workers"
    " (id, version, drain_seconds, lease_seconds, key_ids, unrecorded_since, drains, draining_since)"
    " VALUES ('w1', '0.0.1', 30, 45, '{{{{}}}}', now(), true, now() - interval '{seconds} s')"
)
REFUSED = (
    "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
    " VALUES ('acme', '0197c1f0-5e6a-7c3b-9d2e-4f5061728394', 'https://receiver.example/', '{{*}}');"
    " INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id)"
    " VALUES ('acme', '0197c1f0-5e6a-7c3b-9d2e-4f5061728394')"
)


async def findings(installation: Begun, **changes: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command; return its exit code, and what is not ok and no risk of the servers of the tests, by check."""
    ended = await installation.run("doctor", "--json", **changes)
    assert "" == ended.err
    found = {each["check"]: each for each in ended.json["findings"]}
    assert sum(ended.json[verdict] for verdict in Verdict) == len(ended.json["findings"])
    return ended.code, {name: each for name, each in found.items() if each["verdict"] != "ok" and name not in RISKS}


async def test_a_sound_installation_has_no_finding(begun: Begun) -> None:
    """All that is examined is named, with what was found; what the tests do without is a risk outside of production."""
    ended = await begun.run("doctor")

    assert (0, "") == (ended.code, ended.err)
    assert "0 wrong, 3 at risk, 0 unknown" == ended.out.splitlines()[-1]
    for line in (
        "risk    fsync: is off: a crash of the machine of PostgreSQL may lose events that were published",
        "        -> have the administrator of PostgreSQL run: ALTER SYSTEM SET fsync = on, and then",
        "ok      clock of PostgreSQL: less than 2 s from this machine",
        "ok      way to PostgreSQL: direct",
        "ok      keys: the master keys fit, and open what they sealed",
        "ok      secrets: no secret is refused",
        "ok      workers: none is alive",
        "ok      rings: Redis takes and returns them",
    ):
        assert line in ended.out


@pytest.mark.parametrize(
    ("cause", "check", "verdict", "found", "fix"),
    [
        (
            "ALTER TABLE hookseal.attempts SET (autovacuum_enabled = false)",
            "autovacuum",
            "wrong",
            "is off for hookseal.attempts",
            "ALTER TABLE hookseal.attempts SET (autovacuum_enabled = true)",
        ),
        (
            "ALTER DATABASE {database} SET statement_timeout = 900",
            "time-outs of PostgreSQL",
            "risk",
            "statement_timeout is 900 ms; hookseal waits 5 s",
            "RESET statement_timeout",
        ),
        (
            "ALTER DATABASE {database} SET idle_session_timeout = 900000",
            "time-outs of PostgreSQL",
            "risk",
            "idle_session_timeout is 900000 ms",
            "RESET idle_session_timeout",
        ),
        (
            "ALTER DATABASE {database} CONNECTION LIMIT 20",
            "connections",
            "wrong",
            "20 by the limit of the database; 1 worker process and others need 23",
            "raise the limit of the database",
        ),
        (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "writes",
            "wrong",
            "PostgreSQL accepts no writes",
            "promote it",
        ),
        ("DROP INDEX hookseal.events_newest", "fingerprint", "wrong", "events_newest", ""),
        (NEWER + ", runs_from = '9998'", "schema", "wrong", f"up to {EXPECTED}", ""),
        ("GRANT CREATE ON SCHEMA hookseal TO PUBLIC", "roles", "wrong", "REVOKE CREATE ON SCHEMA hookseal", ""),
        (
            "REVOKE EXECUTE ON FUNCTION hookseal.remove_tokens() FROM hookseal_worker",
            "rights",
            "risk",
            "hookseal_worker: EXECUTE on function hookseal.remove_tokens() is missing, to remove",
            "hookseal db roles",
        ),
        (
            "GRANT DELETE ON hookseal.events TO hookseal_api",
            "rights",
            "wrong",
            "hookseal_api: DELETE on table hookseal.events is above what its process needs",
            "hookseal db roles",
        ),
        (
            FLIPPED,
            "keys",
            "wrong",
            "",
            "",
        ),
        (
            ELSEWHERE,
            "keys",
            "wrong",
            "kept by openbao, for which there are no settings: their deliveries wait",
            "docs/guide/providers.md",
        ),
        (
            OLDER_WORKER,
            "workers",
            "risk",
            "of another version: w1 (0.0.1)",
            "docs/guide/upgrading.md",
        ),
        (
            BLOCKED_WORKER,
            "workers",
            "wrong",
            "w1: outcomes cannot be recorded",
            "hookseal check",
        ),
        (
            DRAINING_WORKER.format(seconds=42),
            "workers",
            "wrong",
            "w1: has drained for longer than HOOKSEAL_DRAIN_SECONDS",
            "end its process",
        ),
        (
            REFUSED,
            "secrets",
            "wrong",
            "the secret of 1 endpoint is refused: its deliveries wait",
            "hookseal status",
        ),
    ],
)
async def test_a_fault_of_postgresql_is_found(
    begun: Begun, begun_pool: Pool, cause: str, check: str, verdict: str, found: str, fix: str
) -> None:
    database = await begun_pool.fetchval("SELECT quote_ident(current_database())")
    await begun_pool.execute(cause.format(database=database))
    code, bad = await findings(begun)

    assert {check} <= bad.keys()
    assert (verdict, True, True) == (bad[check]["verdict"], found in bad[check]["found"], fix in bad[check]["fix"])
    assert code == (1 if verdict == "wrong" else 0)


@pytest.mark.req("OPS-10")
async def test_what_a_login_has_above_a_worker_is_named(begun: Begun, begun_pool: Pool) -> None:
    """A login with the role of workers alone has nothing above it; one that may also publish, or do everything, has."""
    url = begun.settings["DATABASE_URL"]
    async with login(begun_pool, url, "hookseal_worker") as (_, narrow):
        _, bad = await findings(begun, DATABASE_URL=narrow)
    assert "rights" not in bad
    async with login(begun_pool, url, "hookseal_worker", "hookseal_producer") as (name, wide):
        _, bad = await findings(begun, DATABASE_URL=wide)
    assert ("risk", True) == (
        bad["rights"]["verdict"],
        f"{name}: EXECUTE on function hookseal.publish_many(text, json[], boolean) is above" in bad["rights"]["found"],
    )
    _, bad = await findings(begun, HOOKSEAL_ENV="production")
    assert "owns the schema or is a superuser" in bad["rights"]["found"]


async def test_a_worker_that_drains_in_time_is_no_finding(begun: Begun, begun_pool: Pool) -> None:
    """It is of an older version, and cannot record, but it ends by itself: a roll-out and each stop have such ones."""
    await begun_pool.execute(DRAINING_WORKER.format(seconds=38).replace("{{}}", "{}"))

    assert (0, {}) == await findings(begun)


async def test_the_way_through_pgbouncer_is_found(begun: Begun, begun_pool: Pool) -> None:
    """A `LISTEN` there is wrong; without one, or with a way past it, the pooler is fine."""
    url = begun.settings["DATABASE_URL"]
    name = await begun_pool.fetchval("SELECT quote_ident(current_database())")
    await begun_pool.execute(f"ALTER DATABASE {name} SET search_path = {SEARCH_PATH}")
    async with pgbouncer(url) as pooled:
        code, bad = await findings(begun, DATABASE_URL=pooled.url, HOOKSEAL_LISTEN="true")
        past = await findings(begun, DATABASE_URL=pooled.url, HOOKSEAL_LISTEN="true", HOOKSEAL_LISTEN_URL=url)
        ended = await begun.run("doctor", DATABASE_URL=pooled.url, HOOKSEAL_LISTEN="false")

    assert (1, ["way to PostgreSQL"], (0, {})) == (code, [*bad], past)
    assert "HOOKSEAL_LISTEN has no effect" in bad["way to PostgreSQL"]["found"]
    assert "ok      way to PostgreSQL: through a pooler" in ended.out


def test_a_worker_needs_as_many_connections_as_are_documented() -> None:
    """Its pools, and one that listens: doctor, the settings, the guide and the plan for a large one say the same."""
    assert OF_A_PROCESS == CONNECTIONS
    guide, settings = [(DOCS / page).read_text(encoding="utf-8") for page in ("guide/running.md", "settings.md")]
    for text in (guide, settings):
        assert f"up to {CONNECTIONS - 1} connections to PostgreSQL, or {CONNECTIONS} with `HOOKSEAL_LISTEN`" in text
    assert f"less than {CONNECTIONS} for each worker process and 10 more" in guide


async def test_a_schema_is_said_to_be_as_it_should_only_if_it_was_compared(begun: Begun, begun_pool: Pool) -> None:
    """That of a newer version, as after a roll-back, is not known; without a schema there is nothing to compare."""
    await begun_pool.execute(NEWER)  # its migrations say that this version runs on it
    ended = await begun.run("doctor")
    assert 0 == ended.code
    assert (
        f"ok      schema: the schema is at revision 9998, on which this version runs ({EXPECTED} is its own)"
        in ended.out
    )
    assert "unknown fingerprint: this version does not know what revision 9998 makes" in ended.out

    await begun_pool.execute("DROP SCHEMA hookseal CASCADE")
    code, bad = await findings(begun)
    assert (1, "unknown", True) == (code, bad["fingerprint"]["verdict"], "db upgrade" in bad["fingerprint"]["fix"])


async def test_each_server_is_examined_without_the_other(begun: Begun) -> None:
    """One fault hides no other: without PostgreSQL, or Redis, the other one is examined."""
    port = closed_port()
    code, without = await findings(begun, DATABASE_URL=f"postgresql://x@127.0.0.1:{port}/x")
    code_, no_redis = await findings(begun, REDIS_URL=f"redis://127.0.0.1:{port}/0")

    assert (1, ["postgresql"], 1, ["redis"]) == (code, [*without], code_, [*no_redis])
    assert f"PostgreSQL at 127.0.0.1:{port}" in without["postgresql"]["found"]


async def test_a_login_without_rights_gets_findings(begun: Begun, begun_pool: Pool) -> None:
    """What the login may not read is not known or wrong, each with the role that may; nothing is an internal error."""
    name = f"stranger_{(await begun_pool.fetchval('SELECT current_database()')).rpartition('_')[2]}"
    await begun_pool.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        _, _, place = begun.settings["DATABASE_URL"].partition("@")
        code, bad = await findings(begun, DATABASE_URL=f"postgresql://{name}:x@{place}")
    finally:
        await begun_pool.execute(f"DROP ROLE {name}")

    assert (1, True) == (code, {"schema", "keys", "workers"} <= bad.keys())
    assert "hookseal_worker" in bad["workers"]["found"]


@pytest.mark.parametrize(
    ("name", "value", "verdict", "found"),
    [
        ("maxmemory-policy", "allkeys-lru", "wrong", "maxmemory-policy is allkeys-lru: it may drop rings"),
        ("maxmemory", "{used}", "risk", "of maxmemory is used"),
    ],
)
async def test_what_redis_may_drop_is_found(
    begun: Begun, tmp_path: Path, name: str, value: str, verdict: str, found: str
) -> None:
    async with valkey(tmp_path, durable=False) as own, Redis.from_url(own.url) as redis:  # others use that of the tests
        for number in range(100):
            await redis.set(f"x{number}", b"x" * 200_000)  # so that 5 % of all are enough for a connection
        used = int((await redis.info("memory"))["used_memory"] * 1.05)
        await redis.config_set(name, value.format(used=used))
        code, bad = await findings(begun, REDIS_URL=own.url)

    assert ["memory of Redis"] == [*bad], bad
    assert (verdict, True) == (bad["memory of Redis"]["verdict"], found in bad["memory of Redis"]["found"])
    assert code == (1 if verdict == "wrong" else 0)


async def test_a_user_of_redis_without_info_is_said(begun: Begun) -> None:
    """The other checks of Redis are made all the same."""
    url = begun.settings["REDIS_URL"]
    async with Redis.from_url(url) as redis:
        await redis.acl_setuser("narrow", enabled=True, passwords=["+x"], keys=["*"], commands=["+@all", "-info"])
        try:
            ended = await begun.run("doctor", REDIS_URL=f"redis://narrow:x@{url.partition('@')[2]}")
        finally:
            await redis.acl_deluser("narrow")

    assert "unknown redis: INFO is refused, so its version, mode and memory are not known" in ended.out
    assert "ok      rings: Redis takes and returns them" in ended.out


async def test_a_wrong_clock_of_this_machine_is_found(begun: Begun, tmp_path: Path) -> None:
    if (preloaded := library()) is None:
        pytest.skip("there is no wheel of libfaketime for this machine")
    clock = WallClock(preloaded, tmp_path, offset=timedelta(seconds=90))
    code, bad = await findings(begun, **clock.settings)

    assert (1, {"clock of PostgreSQL", "clock of Redis"}) == (code, {*bad})
    assert bad["clock of Redis"]["found"].startswith(("89.", "90."))


async def test_an_old_transaction_is_found(begun: Begun, begun_pool: Pool) -> None:
    """Its session is named, if the login may see it."""
    holder: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(begun.settings["DATABASE_URL"])
    async with holder.transaction():
        await holder.execute("CREATE TABLE hookseal.held ()")
        row = await doctor._SQL.row(begun_pool, "old_snapshots", 0)
        assert row is not None
        found = of_snapshots(dict(row))
    await holder.close()

    assert (Verdict.RISK, True) == (found.verdict, f"session {holder.get_server_pid()}" in found.found)
    nothing = {"session": None, "prepared": None, "slot": None}
    assert Verdict.UNKNOWN is of_snapshots({**nothing, "hidden": True}).verdict
    assert Verdict.OK is of_snapshots({**nothing, "hidden": False}).verdict


# The judges.


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0.0, "ok"), (2.4, "ok"), (2.5, "risk"), (-2.5, "risk"), (30.5, "wrong"), (-30.5, "wrong")]
)
def test_a_clock_is_judged_beyond_what_the_answer_took(seconds: float, verdict: str) -> None:
    """The server answered between two times of this machine, half a second apart."""
    at = NOON + timedelta(seconds=seconds)
    times = (NOON - timedelta(seconds=0.5), NOON) if seconds < 0 else (NOON, NOON + timedelta(seconds=0.5))

    assert verdict == of_clock("Redis", times[0], at, times[1]).verdict


def test_what_postgresql_may_lose_is_wrong_in_production() -> None:
    sound = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "autovacuum", "track_counts"), "on")
    sound["transaction_read_only"] = "off"

    assert {Verdict.OK} == {each.verdict for each in of_durability(sound, is_production=True)}
    for name in sound.keys() - {"transaction_read_only", "autovacuum", "track_counts"}:
        [lost] = [each for each in of_durability({**sound, name: "off"}, is_production=True) if each.fix]
        assert (name, Verdict.WRONG) == (lost.check, lost.verdict)
    [stopped] = [each for each in of_durability({**sound, "autovacuum": "off"}, is_production=False) if each.fix]
    assert ("autovacuum", Verdict.WRONG) == (stopped.check, stopped.verdict)


def test_a_neglected_table_is_a_risk() -> None:
    assert Verdict.RISK is of_autovacuum([{"name": "events", "is_off": False}]).verdict
    assert Verdict.OK is of_autovacuum([]).verdict


def test_a_listen_through_a_pooler_is_wrong_without_a_way_past_it() -> None:
    assert Verdict.OK is of_pooler(is_direct=True, listens=True, has_way=False).verdict
    assert Verdict.OK is of_pooler(is_direct=False, listens=True, has_way=True).verdict
    assert Verdict.OK is of_pooler(is_direct=False, listens=False, has_way=False).verdict
    assert Verdict.WRONG is of_pooler(is_direct=False, listens=True, has_way=False).verdict


def test_the_smallest_limit_of_connections_counts() -> None:
    limits = {"of_server": 97, "of_role": 60, "of_database": None}

    assert Verdict.OK is of_connections(limits, processes=3).verdict
    few = of_connections(limits, processes=4)
    assert (Verdict.WRONG, True) == (few.verdict, few.found.startswith("60 by the limit of the role; 4 worker"))


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({}, ["ok", "ok"]),
        ({"cluster_enabled": 1}, ["wrong", "ok"]),
        ({"redis_version": "6.0.16"}, ["wrong", "ok"]),
        ({"valkey_version": "8.1.0", "maxmemory": 100, "used_memory": 91}, ["ok", "risk"]),
    ],
)
def test_redis_is_judged_by_what_it_says(changes: Mapping[str, Any], verdicts: list[str]) -> None:
    info = {"redis_version": "7.2.4", "cluster_enabled": 0, "maxmemory_policy": "noeviction", "maxmemory": 0}

    found: list[Finding] = [*of_redis({**info, **changes})]
    assert verdicts == [each.verdict for each in found]
