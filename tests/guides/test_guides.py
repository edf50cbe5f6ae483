"""The commands of the guides run as written, on a real installation with a receiver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from aiohttp import ClientSession
from standardwebhooks.webhooks import Webhook

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.core.keyring import MasterKey
from tests.cli.listeners import closed_port
from tests.cli.shell import Shell
from tests.doubles.legacy import legacy
from tests.doubles.logins import login
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.guides.reader import Reader, blocks
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, status

pytestmark = [pytest.mark.req("OPS-06"), pytest.mark.timeout(300)]

_OPEN = "SELECT count(*) = 0 FROM hookseal.deliveries WHERE state IN ('pending', 'sending') AND waiting_for IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An endpoint of acme whose receiver was down, and the delivery that became a dead letter; it works again."""

    added: AddedEndpoint
    ring: Ring

    @property
    def names(self) -> dict[str, str]:
        return {"ENDPOINT": self.ring.endpoint_id, "DELIVERY": self.ring.delivery_id}

    @property
    def secret(self) -> str:
        assert self.added.secret is not None
        return self.added.secret.reveal().decode()


@asynccontextmanager
async def failed(
    world: World, receiver: Receiver, reader: Reader, *, is_ordered: bool = False
) -> AsyncIterator[Failed]:
    """Run a worker, and yield a dead letter; from then on each command is followed by what it made due."""
    receiver.answers["/hook"] = status(500)
    new = NewEndpoint(
        tenant_id=TenantId("acme"),
        url=f"{receiver.base_url}/hook",
        event_types=("*",),
        settings={"max_attempts": 1, "ordered": is_ordered},
    )
    added = await world.installation.add(new)
    async with world.worker():
        [ring] = await world.publish()
        await world.state(ring, "dead_letter")
        if not is_ordered:
            receiver.answers.clear()
        reader.settled = lambda: eventually(lambda: world.pool.fetchval(_OPEN))
        yield Failed(added=added, ring=ring)


def save(shell: Shell, name: str, text: str | bytes) -> None:
    """Write a private file."""
    file = shell.folder / name
    file.touch(mode=0o600)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


def save_request(shell: Shell, receiver: Receiver, secret: str, *, file: str = "acme.secret") -> None:
    """Save the newest request of the receiver, and the secret, in the files that the guides name."""
    got = receiver.received[-1]
    save(shell, file, f"{secret}\n")
    save(shell, "headers.txt", "".join(f"{name}: {value}\n" for name, value in got.headers.items()))
    save(shell, "body.json", got.body)


async def states(world: World) -> list[str]:
    """Return the state of each delivery, the first one first."""
    found = await world.pool.fetch("SELECT state FROM hookseal.deliveries ORDER BY id")
    return [row["state"] for row in found]


async def test_when_a_receiver_fails(world: World, receiver: Receiver, reader: Reader) -> None:
    """What was a dead letter is delivered again in each way of the page."""
    async with failed(world, receiver, reader) as of:
        event = (await world.installation.delivery(of.ring))["event_id"]
        reader.names = {**of.names, "EVENT": event}

        async def another_fails() -> None:
            receiver.answers["/hook"] = status(500)
            [ring] = await world.publish()
            await world.state(ring, "dead_letter")
            receiver.answers.clear()

        await reader.follow("docs/guide/retrying.md", before={"Many at once": another_fails})

        await eventually_equals(["delivered"] * 3, lambda: states(world))  # the first, its copy, and what a job sent
        sent = [each.headers["webhook-id"] for each in receiver.received]
        assert 3 == sent.count(of.ring.delivery_id), "failed, replayed and resent; no job takes it again"


async def test_troubleshooting(world: World, receiver: Receiver, reader: Reader, database_url: str) -> None:
    async with failed(world, receiver, reader) as of, login(world.pool, database_url) as (role, _):
        save_request(reader.shell, receiver, of.secret)
        reader.names = {**of.names, "ID": of.ring.delivery_id, "shop": role}
        reader.codes = {"hookseal status": 1, "hookseal doctor": 1}
        ended = await reader.follow("docs/guide/troubleshooting.md")

        await eventually_equals(["delivered"], lambda: states(world))  # by the replay of `endpoint enable --since`
        assert of.secret == (reader.shell.folder / "current.secret").read_text(encoding="utf-8").strip()
        assert any("verified" in each.out for each in ended)


async def test_receiving(world: World, receiver: Receiver, reader: Reader) -> None:
    """The receiver of the page accepts what is published, and refuses a request without a signature."""
    port, page = str(closed_port()), "docs/guide/receiving.md"
    [program] = blocks(page, "python")
    save(reader.shell, "receiver.py", program.replace("8003", port))
    async with failed(world, receiver, reader) as of:
        reader.names = {**of.names, "8003": port}

        async def published() -> None:
            async with ClientSession() as session, session.post(f"http://127.0.0.1:{port}/hooks", data=b"{}") as answer:
                assert 401 == answer.status
            save_request(reader.shell, receiver, of.secret, file="receiver.secret")

        await reader.follow(page, before={"Test an endpoint": published})

        assert ["dead_letter", "delivered", "delivered"] == await states(world)


async def test_order(world: World, receiver: Receiver, reader: Reader) -> None:
    """What stops a line is sent again in its place, then skipped; later ones leave the line by themselves."""
    async with failed(world, receiver, reader, is_ordered=True) as of:
        reader.names = of.names
        await reader.follow("docs/guide/ordering.md")
        for _ in range(2):
            [ring] = [each for each in await world.publish() if each.endpoint_id == of.ring.endpoint_id]
            await world.state(ring, "dead_letter")

        assert 2 == len([each for each in receiver.received if each.headers["webhook-id"] == of.ring.delivery_id])


async def test_rotating(world: World, receiver: Receiver, reader: Reader) -> None:
    """The secret is rotated and the master key changed; a worker delivers with what is left."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    save(reader.shell, "master.key", MASTER_KEY_TEXT)
    variables = reader.shell.variables
    del variables["SECRETS_MASTER_KEY"]
    variables["SECRETS_MASTER_KEY_FILE"] = str(reader.shell.folder / "master.key")

    def key_in(name: str) -> str:
        text = (reader.shell.folder / name).read_text(encoding="utf-8").strip()
        return MasterKey.parse(text, variable=name).key_id

    reader.names = {
        "ENDPOINT": added.pointer.endpoint_id,
        "ID": lambda: key_in("next.key"),
        "OLD": lambda: key_in("master.key"),
    }
    reader.codes = {"hookseal endpoint end-overlap": 1}  # this receiver verifies nothing, so the overlap goes on
    await reader.follow("docs/guide/rotating.md")

    async with world.worker(SECRETS_MASTER_KEY="", SECRETS_MASTER_KEY_FILE=str(reader.shell.folder / "next.key")):
        await world.deliver()
    secret = (reader.shell.folder / "newer.secret").read_text(encoding="utf-8").strip()
    Webhook(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)


async def test_running(empty_database_url: str, redis_url: str, reader: Reader) -> None:
    """An empty database becomes an installation in production, whose worker starts and ends."""
    for name in (
        "HOOKSEAL_ENV",
        "HOOKSEAL_ALLOW_HTTP",
        "HOOKSEAL_EGRESS_ALLOW",
        "SECRETS_PROVIDER",
        "SECRETS_MASTER_KEY",
    ):
        del reader.shell.variables[name]
    reader.names = {
        "postgresql://user:password@db:5432/app": empty_database_url,
        "redis://redis:6379/0": redis_url,
    }
    reader.codes = {"hookseal doctor": 1}
    await reader.follow("docs/guide/running.md")

    assert (reader.shell.folder / "acme.secret").read_text(encoding="utf-8").startswith("whsec_")


async def test_publishing(world: World, reader: Reader, database_url: str) -> None:
    async with login(world.pool, database_url) as (role, _):
        reader.names = {"shop": role}
        await reader.follow("docs/guide/publishing.md")

    assert "invoice-1-paid" == await world.pool.fetchval("SELECT id FROM hookseal.events")


@pytest.mark.usefixtures("world")
async def test_upgrading(reader: Reader) -> None:
    ended = await reader.follow("docs/guide/upgrading.md")

    assert "fingerprint" in ended[-1].out


@pytest.mark.usefixtures("world")
async def test_operator_events(reader: Reader) -> None:
    await reader.follow("docs/guide/operator-events.md")


@pytest.mark.usefixtures("world")
async def test_tracing(reader: Reader) -> None:
    await reader.follow("docs/guide/tracing.md")


@pytest.mark.usefixtures("world")
async def test_pages(reader: Reader) -> None:
    reader.shell.variables["HOOKSEAL_PORTAL_URL"] = "https://webhooks.product.example/portal"
    ended = await reader.follow("docs/pages.md")

    assert 2 == len([each for each in ended if "/portal/login?code=" in each.out])


async def test_the_api(world: World, receiver: Receiver, reader: Reader) -> None:
    """The token of the page publishes a message over HTTP."""
    await world.endpoint(f"{receiver.base_url}/hook")
    port = str(closed_port())
    reader.shell.variables["HOOKSEAL_API_PORT"] = port
    reader.names = {"8071": port}
    async with world.worker():
        await reader.follow("docs/api.md")

        assert b'{"id": 1}' == (await receiver.wait_for(1)).body


async def test_migrating(world: World, reader: Reader) -> None:
    """Plaintext is sealed and its column removed; endpoints come from files of both schemes."""
    await legacy(world.pool, tenant="initech")
    lines = "tenant_id,url,event_types,secret\nacme,https://receiver.example/{0},*,{1}\n"
    save(reader.shell, "endpoints.csv", lines.format("older", "a secret of an older system"))
    save(reader.shell, "standard.csv", lines.format("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    await reader.follow("docs/migration.md")

    found = await world.pool.fetch("SELECT scheme FROM hookseal.endpoints WHERE secret_ref IS NOT NULL ORDER BY scheme")
    assert ["standard", "x-webhook", "x-webhook"] == [row["scheme"] for row in found]
    assert not await world.pool.fetchval(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'hookseal' AND table_name = 'endpoints' "
        "AND column_name = 'secret'"
    )


# The columns of Convoy 26.3 that the query of the cookbook reads, with Convoy's types.
_CONVOY = """
CREATE SCHEMA convoy;
CREATE TABLE convoy.endpoints (
    id varchar PRIMARY KEY, name text NOT NULL, url text NOT NULL, owner_id text, project_id varchar NOT NULL,
    status text NOT NULL, http_timeout int NOT NULL, rate_limit int NOT NULL, rate_limit_duration int NOT NULL,
    secrets jsonb NOT NULL, deleted_at timestamptz);
CREATE TABLE convoy.subscriptions (
    id varchar PRIMARY KEY, name text, type text, endpoint_id varchar, filter_config_event_types text[] NOT NULL,
    deleted_at timestamptz);
INSERT INTO convoy.endpoints VALUES
    ('01H0JA5MEES38RRK3HTEJC647K', 'billing', $1 || '/convoy', 'globex', 'p', 'active', 10, 120, 60,
     '[{"value": "an expired secret of 25 cs", "expires_at": "2026-01-01T00:00:00Z"},
       {"value": "6bNkqh0VZ8g2XvYtR4sLw1mPd", "expires_at": null}]', NULL),
    ('01H0JA5MEES38RRK3HTEJC648A', 'nobody', $1 || '/unsubscribed', 'globex', 'p', 'active', 10, 0, 0,
     '[{"value": "6bNkqh0VZ8g2XvYtR4sLw1mPe"}]', NULL);
INSERT INTO convoy.subscriptions VALUES
    ('s1', 'of billing', 'api', '01H0JA5MEES38RRK3HTEJC647K', '{invoice.paid,invoice.sent}', NULL),
    ('s2', 'also', 'api', '01H0JA5MEES38RRK3HTEJC647K', '{invoice.paid}', NULL);
"""
_OWN = """
CREATE TABLE webhook_endpoints (
    id text PRIMARY KEY, customer text, url text, types text[], active bool, secret text);
INSERT INTO webhook_endpoints VALUES
    ('we_1', 'acme', $1 || '/own', '{invoice.paid}', true, 'the secret of our own worker'),
    ('we_2', 'acme', $1 || '/off', '{invoice.*}', false, 'another secret of our worker');
CREATE TABLE invoices (number int PRIMARY KEY);
"""


async def _make(url: str, statements: str, base: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements.replace("$1", f"'{base}'"))
    finally:
        await connection.close()


async def test_cookbook(
    world: World, receiver: Receiver, reader: Reader, database_url: str, empty_database_url: str
) -> None:
    """Endpoints of Convoy and of a worker of one's own arrive with their keys, and get what is published."""
    await _make(empty_database_url, _CONVOY, receiver.base_url)
    await _make(database_url, _OWN, receiver.base_url)
    reader.shell.variables["CONVOY_DATABASE_URL"] = empty_database_url
    from_convoy, own, publish = blocks("docs/guide/cookbook.md", "sql")
    save(reader.shell, "from_convoy.sql", from_convoy)
    save(reader.shell, "endpoints.sql", own)
    reader.names = {"http://127.0.0.1:8000/hooks": f"{receiver.base_url}/local"}
    await reader.follow("docs/guide/cookbook.md")

    moved = await world.pool.fetch(
        "SELECT tenant_id, uid, event_types, timeout_ms, rate, enabled FROM hookseal.endpoints "
        "WHERE uid IS NOT NULL ORDER BY uid"
    )
    assert [
        ("globex", "01H0JA5MEES38RRK3HTEJC647K", ["invoice.paid", "invoice.sent"], 10_000, 2, True),
        ("acme", "we_1", ["invoice.paid"], 5_000, None, True),
        ("acme", "we_2", ["invoice.*"], 5_000, None, False),
    ] == [tuple(row) for row in moved]
    await world.pool.execute(publish)
    async with world.worker():
        await world.publish("globex")
        keys = {"/own": b"the secret of our own worker", "/convoy": b"6bNkqh0VZ8g2XvYtR4sLw1mPd"}
        await eventually(lambda: keys.keys() <= {each.path for each in receiver.received})
    for each in receiver.received:
        if each.path in keys:
            Webhook(keys[each.path]).verify(each.body, each.headers)
