"""A login with one SQL role and nothing else can do all the work of that role."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from hookseal.embedded.server import Server
from tests.cli.command import Ended, hookseal
from tests.dispatcher.test_history import MANY
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker import world as worlds
from tests.worker.waiting import PATIENCE_SECONDS, eventually
from tests.worker.world import Receiver, World, status

pytestmark = pytest.mark.timeout(300)  # many commands in sequence

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
    """Return the URL of the database for that login."""
    parts = urlsplit(world.database_url)
    return parts._replace(netloc=f"{login}:hunter2@{parts.hostname}:{parts.port}").geturl()


async def run(world: World, login: str, *arguments: str) -> Ended:
    """Run a command as that login, with `--json`."""
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
        assert (200, 200) == ((await worker.get("/readyz"))[0], (await worker.get("/startupz"))[0])
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


@pytest.mark.req("OPS-10")
async def test_the_read_only_role_shows_everything(roles: World, receiver: Receiver) -> None:
    """The read-only role can list and show everything."""
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
