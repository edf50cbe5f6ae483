"""Plaintext secrets of an older system and a whole worker: production requires their migration first."""

import hashlib
import hmac

import pytest

from hookseal.errors import Unavailable
from hookseal.operations.migrate_secrets import migrate_endpoint
from tests.cli.command import Ended, hookseal
from tests.doubles.legacy import SECRET, legacy
from tests.worker.environment import environment
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

PRODUCTION = {"HOOKSEAL_ENV": "production", "HOOKSEAL_ALLOW_HTTP": ""}


async def started(world: World, **changes: str) -> Ended:
    """Start a worker that must refuse to start, and return how it ended."""
    return await hookseal("worker", "--json", **environment(world.database_url, world.redis_url, **changes))


@pytest.mark.req("SEC-13")
async def test_production_waits_for_the_migration(world: World) -> None:
    """In production a worker is refused (78) until plaintext is migrated; the error has the number and the command."""
    for number in range(2):
        await legacy(world.pool, url=f"https://receiver.example/{number}")
    ended = await started(world, **PRODUCTION)
    assert (78, "configuration") == (ended.code, ended.json["error"]["code"])
    assert "2 endpoints have a plaintext secret" in ended.json["error"]["message"]
    assert "hookseal migrate-secrets" in ended.json["error"]["message"]
    assert SECRET[:20] not in ended.out + ended.err
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.workers")

    settings = environment(world.database_url, world.redis_url, **PRODUCTION)
    assert 0 == (await hookseal("migrate-secrets", **settings)).code
    async with world.worker(**PRODUCTION) as worker:
        assert 200 == (await worker.get("/readyz"))[0]


@pytest.mark.req("SEC-13")
@pytest.mark.parametrize("name", ["development", "test"])
async def test_outside_production_it_is_logged(world: World, name: str) -> None:
    """In development and test a worker starts, and its log says how many rows wait and which command to run."""
    await legacy(world.pool)
    async with world.worker(HOOKSEAL_ENV=name) as worker:
        [line] = [line for line in worker.log if line["event"] == "secrets.unmigrated"]

    assert ("warning", 1) == (line["level"], line["endpoints"])
    assert "hookseal migrate-secrets" in line["reason"]


@pytest.mark.req("SEC-13")
@pytest.mark.req("SEC-12")
@pytest.mark.parametrize("name", ["development", "test"])
async def test_a_later_plaintext_row_waits(world: World, receiver: Receiver, name: str) -> None:
    """Only the endpoint of a plaintext row waits, unspent; the worker stays ready, and sends after the migration."""
    await world.endpoint(f"{receiver.base_url}/ours")
    async with world.worker(HOOKSEAL_ENV=name) as worker:
        held = await legacy(world.pool, url=f"{receiver.base_url}/theirs")
        rings = {ring.endpoint_id: ring for ring in await world.publish()}
        assert "/ours" == (await receiver.wait_for(1)).path
        theirs = rings.pop(held.endpoint_id)
        for ring in rings.values():
            await world.state(ring, "delivered")
        waiting = await world.state(theirs, "pending", waiting_for="secret")
        assert (0, 0) == (waiting["attempts"], waiting["budget_spent"])
        assert 200 == (await worker.get("/readyz"))[0]

        async with world.pool.acquire() as connection:
            await migrate_endpoint(world.installation.operator(connection), held)
        got = await receiver.wait_for(2)
        await world.state(theirs, "delivered")
    headers = {name.lower(): value for name, value in got.headers.items()}
    signed = headers["x-webhook-timestamp"].encode() + b"." + got.body
    assert ("/theirs", 2) == (got.path, len(receiver.received))
    assert "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() == headers["x-webhook-signature"]
    assert "webhook-signature" not in headers


@pytest.mark.req("SEC-12")
async def test_a_worker_continues_without_the_column(world: World, receiver: Receiver) -> None:
    """A running worker continues when the plaintext column is dropped, and later workers deliver as before."""
    held = await legacy(world.pool, url=f"{receiver.base_url}/theirs")
    settings = environment(world.database_url, world.redis_url)
    async with world.worker() as worker:
        await hookseal("migrate-secrets", **settings)
        await world.publish()
        await receiver.wait_for(1)
        assert 0 == (await hookseal("migrate-secrets", "--finalize", **settings)).code
        assert "gone" == (await hookseal("db", "upgrade", "--json", **settings)).json["plaintext_column"]
        await world.publish()
        await receiver.wait_for(2)

        async def measured() -> bool:
            return (await worker.figures()).get(("hookseal_plaintext_rows", None)) == 0.0

        await eventually(measured)
    async with world.worker(HOOKSEAL_ENV="production", HOOKSEAL_ALLOW_HTTP="") as worker:
        assert 200 == (await worker.get("/startupz"))[0]
    async with world.worker():
        [ring] = await world.publish()
        await world.state(ring, "delivered")
    of = ("--tenant", "acme", "--endpoint", held.endpoint_id, "--json")
    assert 0 == (await hookseal("endpoint", "rotate", *of, "--no-wait", **settings)).code
    assert not (await hookseal("endpoint", "show", *of, **settings)).json["has_plaintext"]


async def test_a_refused_worker_ends(world: World) -> None:
    """A worker process that refuses to start ends and does not hang."""
    await legacy(world.pool)
    with pytest.raises(Unavailable, match="migrate-secrets"):
        async with world.worker(**PRODUCTION):
            pass
