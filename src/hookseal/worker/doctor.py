"""Examines an installation with the settings of a worker: what is wrong, what is a risk, and what to do about each.

It reads and changes nothing. A check that cannot be made is a finding, too, so one fault hides no other.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

import asyncpg
from redis.exceptions import ResponseError

from hookseal.config.settings import Environment, Settings
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.store import status
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import ConfigError, HooksealError, Unavailable
from hookseal.ground.clock import Clock
from hookseal.ground.ids import plural
from hookseal.ground.version import VERSION
from hookseal.operations.unlocking import outside, unlock_for_changes
from hookseal.postgres import opening
from hookseal.postgres.connect import has_session_of_its_own
from hookseal.postgres.pool import ANSWER_SECONDS, Pool, connected
from hookseal.postgres.schema import fingerprint, revision, rights, roles
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import for_operator
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import translate_redis_errors
from hookseal.secrets import migrate_secrets
from hookseal.worker.resources import CONNECT_SECONDS, CONNECTIONS, require_time

OLD_SECONDS: Final = 3_600.0  # of a transaction, while which no dead row is removed
_OF_OTHERS: Final = 10  # for producers and commands
_RISKY_SECONDS: Final = 2.0
_WRONG_SECONDS: Final = 30.0  # receivers accept a signature for five minutes; a clock that drifts so far goes on
_FULL: Final = 0.9  # of maxmemory
_OLDEST_REDIS: Final = (6, 2)
_IDLE: Final = "idle_session_timeout"
_CLOCK_FIX: Final = "synchronise the clocks of both machines, for instance with chrony"
_ALTER: Final = (
    "have the administrator of PostgreSQL run: ALTER SYSTEM SET {name} = on, and then SELECT pg_reload_conf()"
)

_SQL: Final = Statements("hookseal.worker", "doctor.sql")


class Verdict(StrEnum):
    """What a finding means: `wrong` needs a person, `risk` may cost something later, `unknown` was not examined."""

    OK = "ok"
    RISK = "risk"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: what was found, and, unless it is `ok`, what to do."""

    check: str
    verdict: Verdict
    found: str
    fix: str | None = None


async def examined(settings: Settings, *, clock: Clock) -> list[Finding]:
    """Return what was found with these settings, which are those of a worker; it takes at most a minute."""
    found = list[Finding]()
    try:
        async with _pool(settings) as pool:
            found += [each async for each in _of_postgresql(settings, pool, clock)]
    except HooksealError as error:
        found.append(_failed("postgresql", error))
    try:
        async with _bell(settings) as ringing:
            found += await _of_redis(ringing, clock)
    except HooksealError as error:
        found.append(_failed("redis", error))
    return found


async def _of_postgresql(settings: Settings, pool: Pool, clock: Clock) -> AsyncIterator[Finding]:
    is_production = settings.environment is Environment.PRODUCTION
    listens, has_way = settings.worker.listen, settings.listen_database is not None
    live = await _read("workers", partial(_SQL.rows, pool, "workers", LIVE_SECONDS))
    processes = max(settings.worker.processes, live[0]["number"] if not isinstance(live, Finding) and live else 0)

    async def apart() -> Sequence[datetime]:
        before = clock.now()
        return before, await _SQL.value(pool, "clock"), clock.now()

    async def is_direct() -> bool:
        async with opening.connection(settings.database) as connection:
            return await has_session_of_its_own(connection, seconds=ANSWER_SECONDS)

    reads: list[tuple[str, Callable[[], Awaitable[Any]], Callable[[Any], Iterable[Finding]]]] = [
        ("clock of PostgreSQL", apart, lambda times: [of_clock("PostgreSQL", *times)]),
        ("durability", partial(_SQL.row, pool, "settings"), partial(of_durability, is_production=is_production)),
        ("autovacuum", partial(_SQL.rows, pool, "neglected"), lambda rows: [of_autovacuum(rows)]),
        (
            "way to PostgreSQL",
            is_direct,
            lambda direct: [of_pooler(is_direct=direct, listens=listens, has_way=has_way)],
        ),
        (
            "connections",
            partial(_SQL.row, pool, "connections"),
            lambda row: [of_connections(dict(row), processes=processes)],
        ),
        ("time-outs of PostgreSQL", partial(_SQL.rows, pool, "timeouts"), lambda rows: [of_timeouts(dict(rows))]),
        ("old transactions", partial(_SQL.row, pool, "old_snapshots", OLD_SECONDS), lambda row: [of_snapshots(row)]),
    ]
    for check, read, judge in reads:
        result = await _read(check, read)
        for finding in [result] if isinstance(result, Finding) else judge(result):
            yield finding
    yield live if isinstance(live, Finding) else of_workers(live, settings.worker.lease_seconds)
    for check, ok, examine in _checks(settings, pool):
        result = await _read(check, examine)
        yield result if isinstance(result, Finding) else Finding(check=check, verdict=Verdict.OK, found=ok)


def _checks(settings: Settings, pool: Pool) -> Iterator[tuple[str, str, Callable[[], Awaitable[object]]]]:
    """Yield the checks of the start of a worker: what each is about, what it means if it passes, and the check.

    A check may return a finding of its own.
    """
    yield "schema", f"the schema is at revision {revision.EXPECTED}", partial(_admitted, pool)
    yield "fingerprint", "the schema is as this version makes it", partial(_compared, pool)
    yield "roles", "no other role may add what hookseal would run", partial(roles.refuse, pool)
    yield "rights", "each role has what its process needs, and no more", partial(_rights, settings, pool)
    yield "keys", "the master keys fit, and open what they sealed", partial(_unlocked, settings, pool)
    yield "secrets", "no secret is refused", partial(_require_secrets, pool)
    yield "plaintext", "no secret of an older system is left", partial(_require_migrated, pool)
    ledger = PostgresLedger(pool, worker="doctor", lease_seconds=settings.worker.lease_seconds)
    yield "time-outs of endpoints", "each request can end within a stop", partial(require_time, settings, ledger)


async def _read(check: str, read: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `read` returns, or the finding that its error is."""
    try:
        return await read()
    except HooksealError as error:
        return _failed(check, error)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        translation = for_operator(error)
        if translation is None:
            raise
        return _failed(check, translation)


def _failed(check: str, error: HooksealError) -> Finding:
    """Return the finding that this error is. Its text says what to do, unless it has advice of its own."""
    fix = error.advice or "do what the message says, then run `hookseal doctor` again"
    verdict = (
        Verdict.UNKNOWN
        if isinstance(error, Unavailable) and check not in {"postgresql", "redis", "rings", "keys"}
        else Verdict.WRONG
    )
    return Finding(check=check, verdict=verdict, found=str(error), fix=fix)


async def _admitted(pool: Pool) -> Finding | None:
    await revision.require(pool)
    at = await revision.current(pool)
    if at == revision.EXPECTED:
        return None
    found = f"the schema is at revision {at}, on which this version runs ({revision.EXPECTED} is its own)"
    return Finding(check="schema", verdict=Verdict.OK, found=found)


async def _compared(pool: Pool) -> Finding | None:
    comparison = await fingerprint.compare(pool)
    if comparison is None:
        found, fix = "there is no schema to compare", "run `hookseal db upgrade`"
    elif comparison.expected is None:
        found = f"this version does not know what revision {comparison.revision} makes"
        fix = "run `hookseal doctor` of the version that made it"
    else:
        if (problem := fingerprint.explanation(comparison)) is not None:
            raise ConfigError(problem)
        return None
    return Finding(check="fingerprint", verdict=Verdict.UNKNOWN, found=found, fix=fix)


async def _rights(settings: Settings, pool: Pool) -> Finding | None:
    """Name what a role of ours has above its set or lacks, and what this login has above the set of a worker."""
    if await revision.current(pool) != revision.EXPECTED:
        return None  # the check of the schema says what to do
    compared = await rights.compare(pool)
    login, above = await rights.above_of_login(pool, ["hookseal_worker"])
    missing = compared.missing
    found = [f"{each} is above what its process needs" for each in (*compared.above, *(above or ()))]
    found += [f"{each} is missing, to {each.step}" for each in missing]
    fix = "`hookseal db roles` prints what each process needs: have the owner of the schema revoke or grant the rest"
    if above is None and settings.environment is Environment.PRODUCTION:
        found.append(f"the login {login} owns the schema or is a superuser, so it may do everything")
        fix = "let workers log in as a role that is a member of hookseal_worker, and of nothing else"
    if not found:
        return None
    is_wrong = bool(compared.above) or any(each.stops_start for each in missing)
    verdict = Verdict.WRONG if is_wrong else Verdict.RISK
    return Finding(check="rights", verdict=verdict, found="; ".join(found), fix=fix)


async def _unlocked(settings: Settings, pool: Pool) -> None:
    async with outside(settings, partial(connected, pool)) as stores:
        unlocked = await unlock_for_changes(pool, settings, outside=stores)
        await unlocked.check_sentinel()
    if unlocked.stores is not None and unlocked.stores.unreachable:
        providers = ", ".join(sorted(unlocked.stores.unreachable))
        problem = f"secrets in use are kept by {providers}, for which there are no settings: their deliveries wait"
        raise ConfigError(problem, advice="add the settings of the provider (docs/guide/providers.md)")


async def _require_secrets(pool: Pool) -> None:
    """A master key that opens the sentinel says nothing of each secret: `hookseal status` names those refused."""
    if refused := await status.secrets_refused(pool):
        problem = f"the secret of {plural(refused, 'endpoint is', 'endpoints are')} refused: its deliveries wait"
        raise ConfigError(problem, advice="run `hookseal status`, which names the endpoints (docs/runbook.md)")


async def _require_migrated(pool: Pool) -> None:
    if count := await migrate_secrets.count_unmigrated(pool):
        problem = f"{plural(count, 'endpoint has', 'endpoints have')} a plaintext secret and no sealed one"
        raise ConfigError(problem, advice="run `hookseal migrate-secrets` (docs/migration.md)")


async def _of_redis(ringing: Bell, clock: Clock) -> list[Finding]:
    found = list[Finding]()
    with translate_redis_errors():
        try:
            info: Mapping[str, Any] = await ringing.redis.info()
        except ResponseError:
            fix = "let the user of Redis run INFO (docs/guide/running.md has all that it needs)"
            text = "INFO is refused, so its version, mode and memory are not known"
            found.append(Finding(check="redis", verdict=Verdict.UNKNOWN, found=text, fix=fix))
        else:
            found += of_redis(info)
            if info.get("cluster_enabled"):
                return found
        before = clock.now()
        seconds, microseconds = await ringing.redis.time()
        after = clock.now()
    at = datetime.fromtimestamp(int(seconds) + int(microseconds) / 1_000_000, tz=before.tzinfo)
    found.append(of_clock("Redis", before, at, after))
    rings = await _read("rings", ringing.ping)
    ok = Finding(check="rings", verdict=Verdict.OK, found="Redis takes and returns them")
    return [*found, rings if isinstance(rings, Finding) else ok]


# What was read, judged. Each function is pure.


def of_clock(server: str, before: datetime, at: datetime, after: datetime) -> Finding:
    """Judge the clock of a server that answered with its time `at`, between two times of this machine."""
    apart = max((before - at).total_seconds(), (at - after).total_seconds(), 0.0)
    check = f"clock of {server}"
    if apart < _RISKY_SECONDS:
        return Finding(check=check, verdict=Verdict.OK, found=f"less than {_RISKY_SECONDS:.0f} s from this machine")
    verdict = Verdict.WRONG if apart >= _WRONG_SECONDS else Verdict.RISK
    found = f"{apart:.1f} s from this machine: receivers refuse a timestamp that is off by five minutes"
    return Finding(check=check, verdict=verdict, found=found, fix=_CLOCK_FIX)


def of_durability(settings: Mapping[str, Any], *, is_production: bool) -> Iterator[Finding]:
    """Judge whether PostgreSQL keeps what it has committed, and cleans up; outside of production a loss is a risk."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if settings[name] == "off":
            yield Finding(
                check=name,
                verdict=Verdict.WRONG if is_production else Verdict.RISK,
                found="is off: a crash of the machine of PostgreSQL may lose events that were published",
                fix=_ALTER.format(name=name),
            )
        else:
            yield Finding(check=name, verdict=Verdict.OK, found=f"is {settings[name]}")
    for name in ("autovacuum", "track_counts"):
        if settings[name] == "off":
            found = "is off: dead rows stay, and each claim gets slower"
            yield Finding(check=name, verdict=Verdict.WRONG, found=found, fix=_ALTER.format(name=name))
    if settings["transaction_read_only"] == "on":
        found = "PostgreSQL accepts no writes: it is a standby, or default_transaction_read_only is on"
        fix = "promote it, correct DATABASE_URL, or turn default_transaction_read_only off"
        yield Finding(check="writes", verdict=Verdict.WRONG, found=found, fix=fix)


def of_autovacuum(neglected: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge whether dead rows are removed: `neglected` are the tables for which that is off, or that have too many."""
    check = "autovacuum"
    off = [f"hookseal.{each['name']}" for each in neglected if each["is_off"]]
    if off:
        fix = f"have the owner of the table run: ALTER TABLE {off[0]} SET (autovacuum_enabled = true)"
        return Finding(check=check, verdict=Verdict.WRONG, found=f"is off for {', '.join(off)}", fix=fix)
    if neglected:
        names = ", ".join(f"hookseal.{each['name']}" for each in neglected)
        fix = "look for a transaction or a slot that keeps them (below), or lower autovacuum_vacuum_cost_delay"
        return Finding(
            check=check, verdict=Verdict.RISK, found=f"more than half of the rows of {names} are dead", fix=fix
        )
    return Finding(check=check, verdict=Verdict.OK, found="is on, and no table is neglected")


def of_pooler(*, is_direct: bool, listens: bool, has_way: bool) -> Finding:
    """Judge the way to PostgreSQL. What a pooler must not do at all has refused the connection before."""
    check = "way to PostgreSQL"
    if is_direct:
        return Finding(check=check, verdict=Verdict.OK, found="direct")
    if listens and not has_way:
        found = "through a pooler, where a LISTEN receives nothing: HOOKSEAL_LISTEN has no effect"
        fix = "set HOOKSEAL_LISTEN_URL to a URL of the same database that bypasses the pooler"
        return Finding(check=check, verdict=Verdict.WRONG, found=found, fix=fix)
    return Finding(
        check=check, verdict=Verdict.OK, found="through a pooler, which keeps transactions and our search path"
    )


def of_connections(limits: Mapping[str, Any], *, processes: int) -> Finding:
    """Judge whether the workers, the producers and commands get their connections."""
    needed = CONNECTIONS * processes + _OF_OTHERS
    least, of = min((limits[name], name) for name in limits if limits[name] is not None)
    what = {
        "of_server": "max_connections",
        "of_role": "the limit of the role",
        "of_database": "the limit of the database",
    }[of]
    found = f"{least} by {what}; {plural(processes, 'worker process', 'worker processes')} and others need {needed}"
    if least >= needed:
        return Finding(check="connections", verdict=Verdict.OK, found=found)
    return Finding(
        check="connections",
        verdict=Verdict.WRONG,
        found=found,
        fix=f"raise {what}, run fewer processes, or put a pooler in front (docs/guide/running.md)",
    )


def of_timeouts(milliseconds: Mapping[str, int]) -> Finding:
    """Judge the time-outs that PostgreSQL has for this login. An idle connection must stay, however long it is idle."""
    short = {name: ms for name, ms in milliseconds.items() if ms < ANSWER_SECONDS * 1000 or name == _IDLE}
    if not short:
        return Finding(check="time-outs of PostgreSQL", verdict=Verdict.OK, found="none ends a statement early")
    named = ", ".join(f"{name} is {ms} ms" for name, ms in short.items())
    found = f"{named}; hookseal waits {ANSWER_SECONDS:.0f} s for a statement, and keeps idle connections"
    fix = f"ALTER ROLE login RESET {next(iter(short))}, or raise it, for the login of DATABASE_URL"
    return Finding(check="time-outs of PostgreSQL", verdict=Verdict.RISK, found=found, fix=fix)


def of_snapshots(row: Mapping[str, Any]) -> Finding:
    """Judge whether an old transaction keeps dead rows."""
    check = "old transactions"
    if found := [row[name] for name in ("session", "prepared", "slot") if row[name]]:
        fix = "SELECT pg_terminate_backend(PID), ROLLBACK PREPARED 'GID', or SELECT pg_drop_replication_slot('SLOT')"
        text = f"dead rows are kept by {' and '.join(found)}"
        return Finding(check=check, verdict=Verdict.RISK, found=text, fix=fix)
    if row["hidden"]:
        found_ = "none of this login; those of others are hidden"
        return Finding(
            check=check, verdict=Verdict.UNKNOWN, found=found_, fix="GRANT pg_read_all_stats TO the login, to see them"
        )
    return Finding(check=check, verdict=Verdict.OK, found="none is older than an hour")


def of_workers(rows: Sequence[Mapping[str, Any]], lease_seconds: int) -> Finding:
    """Judge the live workers: whether they record, run this version, and have the lease of these settings.

    Of those that drain only the ones are given that should have ended.
    """
    check = "workers"
    if not rows:
        return Finding(check=check, verdict=Verdict.OK, found="none is alive")
    blocked = [row["id"] for row in rows if row["unrecorded_since"] is not None and not row["overstays"]]
    if blocked:
        found = f"{', '.join(blocked)}: outcomes cannot be recorded, so nothing is sent"
        return Finding(check=check, verdict=Verdict.WRONG, found=found, fix="look at `hookseal check` and its log")
    if stays := [row["id"] for row in rows if row["overstays"]]:
        found = f"{', '.join(stays)}: has drained for longer than HOOKSEAL_DRAIN_SECONDS"
        fix = "end its process: its deliveries follow when their leases have ended"
        return Finding(check=check, verdict=Verdict.WRONG, found=found, fix=fix)
    other = sorted({f"{row['id']} ({row['version']})" for row in rows if row["version"] != VERSION})
    if other:
        found = f"this is {VERSION}; of another version: {', '.join(other)}"
        return Finding(check=check, verdict=Verdict.RISK, found=found, fix="end the roll-out (docs/guide/upgrading.md)")
    leases = {row["lease_seconds"] for row in rows} | {lease_seconds}
    if len(leases) > 1:
        found = f"leases differ: {', '.join(f'{each} s' for each in sorted(leases))}"
        fix = "give all workers the same HOOKSEAL_LEASE_SECONDS"
        return Finding(check=check, verdict=Verdict.RISK, found=found, fix=fix)
    return Finding(check=check, verdict=Verdict.OK, found=f"{rows[0]['number']} alive, all of version {VERSION}")


def of_redis(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the settings of Redis, or Valkey, by its answer to INFO."""
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    if info.get("cluster_enabled"):
        found = f"{name} {version} in cluster mode: a ring has keys of several slots, which it refuses"
        yield Finding(check="redis", verdict=Verdict.WRONG, found=found, fix="use a Redis without cluster mode")
    elif tuple(int(part) for part in info["redis_version"].split(".")[:2]) < _OLDEST_REDIS:
        yield Finding(
            check="redis", verdict=Verdict.WRONG, found=f"{name} {version}", fix="use Redis 6.2 or newer, or Valkey"
        )
    else:
        yield Finding(check="redis", verdict=Verdict.OK, found=f"{name} {version}")
    policy, most = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    used = int(info.get("used_memory", 0))
    if policy != "noeviction":
        yield Finding(
            check="memory of Redis",
            verdict=Verdict.WRONG,
            found=f"maxmemory-policy is {policy}: it may drop rings, and each costs up to one sweep",
            fix="CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )
    elif most and used > _FULL * most:
        found = f"{used / most:.0%} of maxmemory is used; at 100 % it takes no ring"
        yield Finding(
            check="memory of Redis", verdict=Verdict.RISK, found=found, fix="raise maxmemory, or find what fills it"
        )
    else:
        yield Finding(check="memory of Redis", verdict=Verdict.OK, found="nothing is evicted")


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[Pool]:
    async with opening.pool(
        settings.database, size=2, name="hookseal-doctor", seconds=CONNECT_SECONDS, close_seconds=1.0
    ) as pool:
        yield pool


@asynccontextmanager
async def _bell(settings: Settings) -> AsyncIterator[Bell]:
    ringing = bell(settings.redis.current_url, settings.worker.queue)
    try:
        with translate_redis_errors(address=settings.redis.address, variable=settings.redis.variable):
            await ringing.redis.ping()
        yield ringing
    finally:
        await ringing.close()
