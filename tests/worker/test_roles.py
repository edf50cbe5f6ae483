"""Whole workers and commands under logins of one SQL role, beside foreign functions, and with replaced passwords."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from hookseal.dispatcher.store.publish import NewEvent, publish_json, publish_raw
from hookseal.embedded.server import Server
from hookseal.ground.ids import TenantId
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import rights
from hookseal.postgres.schema.upgrade import upgrade
from tests.cli.command import Ended, hookseal
from tests.dispatcher.test_history import MANY
from tests.doubles import hijacked
from tests.doubles.logins import login
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker import world as worlds
from tests.worker.waiting import PATIENCE_SECONDS, eventually
from tests.worker.world import Receiver, World, status

PUBLISH = ("publish", "--tenant", "acme", "--event-type", "invoice.paid", "--data", "{}")
LOGINS = {"runs": "hookseal_worker", "decides": "hookseal_operator", "looks": "hookseal_readonly", "sells": None}


@pytest.fixture
async def roles(own_postgres: Server, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Yield an installation on a server of its own, with a login for each role; `sells` has no role yet."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=5) as pool:
        for login, role in LOGINS.items():
            await pool.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'hunter2' NOSUPERUSER")
            if role is not None:
                await pool.execute(f"GRANT {role} TO {login}")
        yield await worlds.world(pool, own_postgres.url, redis_url, tmp_path)


def url(world: World, login: str) -> str:
    parts = urlsplit(world.database_url)
    return parts._replace(netloc=f"{login}:hunter2@{parts.hostname}:{parts.port}").geturl()


async def run(world: World, login: str, *arguments: str) -> Ended:
    settings = {
        "DATABASE_URL": url(world, login),
        "REDIS_URL": world.redis_url,
        "HOOKSEAL_ENV": "development",
        "HOOKSEAL_ALLOW_HTTP": "true",
        "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    }
    return await hookseal(*arguments, "--json", **settings)


async def done(world: World, login: str, *arguments: str) -> Ended:
    """Run a command as that login; it must succeed."""
    ended = await run(world, login, *arguments)
    assert 0 == ended.code, ended.out + ended.err
    return ended


async def denied(world: World, login: str, *arguments: str) -> None:
    """Run a command as that login; it must be denied (5)."""
    ended = await run(world, login, *arguments)
    assert 5 == ended.code, ended.out + ended.err


async def published(world: World, receiver: Receiver, answer: int, state: str) -> str:
    """Publish as the producer, answered with that status; return the delivery when it is in that state."""
    receiver.answers["/hook"] = status(answer)
    ended = await done(world, "sells", *PUBLISH)
    delivery: str = ended.json["deliveries"][0]["delivery_id"]
    await _in(world, delivery, state)
    return delivery


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-10")
@pytest.mark.req("DEL-16")
@pytest.mark.req("SEC-14", part="append")
async def test_each_role_can_do_its_work(roles: World, receiver: Receiver) -> None:
    """Operators add, grant, rotate, replay, enable; producers publish; workers deliver, disable and remove history."""
    await roles.pool.execute(MANY, 1)
    add = ("endpoint", "add", "--tenant", "acme", "--event-type", "*", "--max-attempts", "1", "--url")
    endpoint = (await done(roles, "decides", *add, f"{receiver.base_url}/hook")).json["endpoint_id"]
    of = ("--tenant", "acme", "--endpoint", endpoint)
    await denied(roles, "sells", *PUBLISH)
    await done(roles, "decides", "producer", "grant", "--role", "sells", "--tenant", "acme")
    async with roles.worker(DATABASE_URL=url(roles, "runs")) as worker:
        await worker.answers("/readyz", 200)
        await worker.answers("/startupz", 200)
        await published(roles, receiver, 204, "delivered")
        await done(roles, "decides", "endpoint", "rotate", *of)
        for words in ("delivery replay {dead}", "replay start --tenant acme"):
            dead = await published(roles, receiver, 500, "dead_letter")
            receiver.answers["/hook"] = status(204)
            await done(roles, "decides", *words.format(dead=dead).split())
            await _in(roles, dead, "delivered")
        await published(roles, receiver, 410, "failed")
        await eventually(lambda: _is_gone(roles, "many1"))
    assert not (await done(roles, "looks", "endpoint", "show", *of)).json["enabled"]
    await done(roles, "decides", "endpoint", "enable", *of)
    shown = (await done(roles, "looks", "endpoint", "show", *of)).json
    assert (None, "the receiver answered 410 Gone") == (shown["disabled_reason"], shown["last_disabled_reason"])
    [gone] = (await done(roles, "looks", "audit", "list", "--action", "endpoint.disabled")).json["items"]
    assert ("the receiver answered 410 Gone", True) == (
        gone["after"]["disabled_reason"],
        gone["actor"].startswith("runs/worker/"),
    )
    await done(roles, "decides", "secret", "cache-clear")
    await done(roles, "decides", "producer", "revoke", "--role", "sells", "--tenant", "acme")
    await denied(roles, "sells", *PUBLISH)
    await done(roles, "decides", "endpoint", "delete", *of, "--yes")
    await done(roles, "decides", "audit", "verify")


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-10")
async def test_the_read_only_role_shows_everything(roles: World, receiver: Receiver) -> None:
    added = await roles.endpoint(f"{receiver.base_url}/hook")
    [ring] = await roles.publish(rung=False)
    of = ("--tenant", "acme", "--endpoint", added.pointer.endpoint_id)
    for command in (
        ("delivery", "list"),
        ("delivery", "show", ring.delivery_id),
        ("delivery", "why", ring.delivery_id),
        ("replay", "list"),
        ("endpoint", "stats", "--tenant", "acme"),
        ("audit", "list"),
        ("audit", "export"),
    ):
        await done(roles, "looks", *command)
    for shown in (("endpoint", "list"), ("endpoint", "show", *of), ("endpoint", "rotation-status", *of)):
        await done(roles, "looks", *shown)
    await done(roles, "looks", "secret", "versions", *of)
    await done(roles, "looks", "producer", "list")


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-10")
@pytest.mark.req("SEC-14", part="append")
async def test_the_workers_role_with_the_key_is_audited(roles: World) -> None:
    """With the master key the worker's role may reveal a secret and disable an endpoint; both are audited."""
    added = await roles.endpoint("https://receiver.example/")
    of = ("--tenant", "acme", "--endpoint", added.pointer.endpoint_id)
    revealed = await done(roles, "runs", "secret", "reveal", *of, "--print-secret")
    assert added.secret.reveal().decode() == revealed.json["secret"]
    await done(roles, "runs", "endpoint", "disable", *of)

    rows = await roles.pool.fetch(
        "SELECT action, split_part(actor, '/', 1) AS role FROM hookseal.audit_log WHERE tenant_id = 'acme'"
        " ORDER BY sequence DESC LIMIT 2"
    )
    assert [("endpoint.disabled", "runs"), ("secret.revealed", "runs")] == [tuple(row) for row in rows]
    assert (await done(roles, "decides", "audit", "verify")).json["intact"]


async def _in(world: World, delivery: str, state: str) -> None:
    async def look() -> bool:
        found = await world.pool.fetchval("SELECT state FROM hookseal.deliveries WHERE id = $1::text::uuid", delivery)
        return bool(found == state)

    await eventually(look, within=PATIENCE_SECONDS)


async def _is_gone(world: World, event: str) -> bool:
    return not await world.pool.fetchval("SELECT EXISTS (SELECT FROM hookseal.events WHERE id = $1)", event)


# Functions that a producer's login creates in `public`, which PostgreSQL 14 allows to all, are never called.


HIJACKED_LOGINS = {"runs": "hookseal_worker", "decides": "hookseal_operator", "looks": "hookseal_readonly"}


@pytest.mark.req("OPS-10")
async def test_a_worker_delivers_with_what_only_deliveries_need(roles: World, receiver: Receiver) -> None:
    """An operator may take from the role what other steps need: a worker starts, delivers and is ready.

    Without a right that deliveries need it does not start, and says which.
    """
    for each in rights.declared():
        if each.role == "hookseal_worker" and not each.stops_start:
            columns = f" ({', '.join(each.columns)})" if each.columns else ""
            on = each.object.removeprefix("view ")
            await roles.pool.execute(f"REVOKE {each.privilege}{columns} ON {on} FROM hookseal_worker")
    await roles.endpoint(f"{receiver.base_url}/hook")
    async with roles.worker(DATABASE_URL=url(roles, "runs")) as worker:
        await roles.deliver()
        await worker.answers("/readyz", 200)

    await roles.pool.execute("REVOKE UPDATE (state) ON hookseal.deliveries FROM hookseal_worker")
    refused = await run(roles, "runs", "worker")
    assert 78 == refused.code
    assert "rights of hookseal_worker to table hookseal.deliveries differs" in refused.out


@pytest.fixture
async def hostile(own_postgres: Server, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Yield an installation where a producer created functions that match our calls better than the built-in ones."""
    async with connection_pool(own_postgres.url, size=3) as pool:
        for name, role in HIJACKED_LOGINS.items() | {("mallory", "hookseal_producer"), ("sells", "hookseal_producer")}:
            await pool.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'; GRANT {role} TO {name}")
        await pool.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        world = await worlds.world(pool, own_postgres.url, redis_url, tmp_path)
        mallory = await asyncpg.connect(url(world, "mallory"))
        try:
            await hijacked.make(mallory)
        finally:
            await mallory.close()
        yield world


def settings(world: World, login: str) -> dict[str, str]:
    return {
        "DATABASE_URL": url(world, login),
        "REDIS_URL": world.redis_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    }


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-10")
@pytest.mark.timeout(180)
async def test_a_worker_calls_no_foreign_function(hostile: World, receiver: Receiver) -> None:
    """A worker claims, delivers and sweeps without calling any of them."""
    await hostile.endpoint(f"{receiver.base_url}/hook")
    async with hostile.worker(DATABASE_URL=url(hostile, "runs"), HOOKSEAL_LISTEN="true") as worker:
        for _ in range(3):
            await hostile.deliver()
        await worker.answers("/readyz", 200)
        await worker.figures()

    assert [] == await hijacked.called(hostile.pool)


COMMANDS = (
    ("decides", "producer", "grant", "--role", "mallory", "--tenant", "acme"),
    ("decides", "producer", "list"),
    ("decides", "key", "status"),
    ("decides", "audit", "verify"),
    ("decides", "endpoint", "list"),
    ("decides", "delivery", "list"),
    ("decides", "secret", "cache-clear"),
    ("looks", "audit", "list"),
)


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-10")
@pytest.mark.timeout(180)
async def test_commands_call_no_foreign_function(hostile: World) -> None:
    """Commands of an operator and of a reader work without calling any of them."""
    await hostile.endpoint("https://receiver.example/hook")
    for name, *command in COMMANDS:
        ended = await hookseal(*command, "--json", **settings(hostile, name))
        assert 0 == ended.code, ended.err
        assert [] == await hijacked.called(hostile.pool), command


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-10")
@pytest.mark.timeout(180)
async def test_publishing_ignores_the_callers_search_path(hostile: World) -> None:
    """The functions that publish set their own search path, so that the caller's path has no effect."""
    await hostile.endpoint("https://receiver.example/hook")
    await hostile.pool.execute("INSERT INTO hookseal.producers VALUES ('sells', 'acme', now(), 'sells')")
    sells = await asyncpg.connect(url(hostile, "sells"), server_settings={"search_path": "public, pg_catalog"})
    try:
        rows = await sells.fetch("SELECT * FROM hookseal.publish('acme', 'a.b', '{}'::json)")
    finally:
        await sells.close()

    assert 1 == len(rows)
    assert [] == await hijacked.called(hostile.pool)


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-10")
@pytest.mark.timeout(180)
async def test_the_publisher_calls_no_foreign_function(hostile: World) -> None:
    """The statements of the Publisher on a caller's connection name the types of PostgreSQL with their schema."""
    sells = await asyncpg.connect(url(hostile, "sells"), server_settings={"search_path": "public, pg_catalog"})
    try:
        await hostile.pool.execute("INSERT INTO hookseal.producers VALUES ('sells', 'acme', now(), 'sells')")
        await publish_json(sells, NewEvent(tenant_id=TenantId("acme"), event_type="a.b"), "{}")
        await publish_raw(sells, NewEvent(tenant_id=TenantId("acme"), event_type="a.b"), b"{}")
    finally:
        await sells.close()

    assert [] == await hijacked.called(hostile.pool)


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-10")
@pytest.mark.timeout(180)
async def test_an_upgrade_calls_no_foreign_function(hostile: World) -> None:
    """`db upgrade` of an existing schema and of an empty database calls none of them."""
    await upgrade(hostile.database_url)
    await hostile.pool.execute("DROP SCHEMA hookseal CASCADE")
    await upgrade(hostile.database_url)

    assert [] == await hijacked.called(hostile.pool)


# The files of the urls of PostgreSQL and Redis are replaced while a worker runs, as an agent of a vault does.


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user = f"{parts.username or ''}:{password}"
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


def private(file: Path, text: str) -> str:
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


@pytest.mark.req("DUR-04", "SEC-13")
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_worker_logs_in_with_what_the_files_say_now(
    begun_pool: Pool, database_url: str, own_valkey: Server, receiver: Receiver, tmp_path: Path, processes: str
) -> None:
    """New passwords, cut sessions and new files: the worker delivers on, without a restart."""
    world: World = await worlds.world(begun_pool, database_url, own_valkey.url, tmp_path)
    await world.endpoint(f"{receiver.base_url}/hook")
    async with (
        login(begun_pool, database_url, "hookseal_worker") as (role, url),
        Redis.from_url(own_valkey.url) as redis,
    ):
        postgresql, valkey = tmp_path / "postgresql", tmp_path / "valkey"
        files = {
            "DATABASE_URL_FILE": private(postgresql, url),
            "REDIS_URL_FILE": private(valkey, own_valkey.url),
        }
        async with world.worker(DATABASE_URL="", REDIS_URL="", HOOKSEAL_PROCESSES=processes, **files) as worker:
            await world.deliver()

            await begun_pool.execute(f"ALTER ROLE {role} PASSWORD 'hunter-two'")
            private(postgresql, with_password(url, "hunter-two"))
            await redis.config_set("requirepass", "hunter-two")
            private(valkey, with_password(own_valkey.url, "hunter-two"))
            await begun_pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role.strip('"')
            )
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

            await world.delivered(*[(await world.publish(rung=False))[0] for _ in range(4)])
            assert "hunter-two" not in worker.log_file.read_text()
