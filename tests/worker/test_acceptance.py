"""A whole worker process, from an event in PostgreSQL to a request at a receiver."""

import asyncio
import base64
import os
import signal

import pytest
from aiohttp import web
from arq import create_pool
from arq.connections import RedisSettings
from redis.asyncio import Redis
from standardwebhooks import Webhook

from hookseal.client import Event, Publisher
from hookseal.queue.rings import DEFAULT_QUEUE, bell_key
from hookseal.queue.serializer import job_serializer
from hookseal.secrets.core.material import SecretMaterial
from tests.queue.contents import contents
from tests.worker.test_probes import FINE
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, held, status

NEVER_SWEEPS = {"HOOKSEAL_SWEEP_SECONDS": "300"}
FAILURES = "hookseal_secret_failures_total"
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name = 'webhook-endpoint-' || $1"
)
# Each case: the statement that alters something by hand, and the statement that restores it.
ALTERED = {
    "secret": (FLIP_A_BIT, FLIP_A_BIT),
    "no-secret": (
        "UPDATE hookseal.secret_records SET name = 'elsewhere-' || $1 WHERE name = 'webhook-endpoint-' || $1",
        "UPDATE hookseal.secret_records SET name = 'webhook-endpoint-' || $1 WHERE name = 'elsewhere-' || $1",
    ),
    "url": (
        "UPDATE hookseal.endpoints SET url = replace(url, '/altered', '/elsewhere') WHERE id = $1::text::uuid",
        "UPDATE hookseal.endpoints SET url = replace(url, '/elsewhere', '/altered') WHERE id = $1::text::uuid",
    ),
    "ref": (
        (
            "UPDATE hookseal.endpoints SET secret_ref = (SELECT secret_ref FROM hookseal.endpoints"
            " WHERE url LIKE '%/untouched') WHERE id = $1::text::uuid"
        ),
        (
            "UPDATE hookseal.endpoints SET secret_ref = 'db:acme:webhook-endpoint-' || $1::text || ':1'"
            " WHERE id = $1::text::uuid"
        ),
    ),
}
SECRET_LOOKS_SECONDS = 30.0  # a held endpoint gets a probe about every 15 s


@pytest.mark.req("DEL-02", "DEL-03", "DEL-15")
@pytest.mark.req("DEL-04", part="standard-hmac")
@pytest.mark.req("OPS-03", part="correlation-id")
@pytest.mark.req("OPS-03", part="logs")
async def test_an_event_is_delivered_once(world: World, receiver: Receiver) -> None:
    """An event is delivered once, unchanged, verified by the public library, recorded and logged."""
    added = await world.endpoint(f"{receiver.base_url}/hook?token=abc")
    [ring] = await world.publish()
    in_redis = await contents(world.redis_url)
    async with world.worker(**NEVER_SWEEPS) as worker:
        got = await receiver.wait_for(1)
        row = await world.state(ring, "delivered")

        async def attempted() -> list[dict[str, object]]:
            return [line for line in worker.log if line["event"] == "delivery.attempted"]

        [line] = await eventually(attempted)

    Webhook(added.secret.reveal().decode()).verify(got.body, got.headers)
    assert b'"data":{"n": 1}}' in got.body
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert (ring.delivery_id, "corr-1", "1", "application/json") == tuple(
        headers[name] for name in ("webhook-id", "x-correlation-id", "x-hookseal-attempt", "content-type")
    )
    assert row["event_id"] == headers["x-hookseal-event-id"]
    [kept] = await world.installation.attempts(ring)
    worker_id = worker.process.ready["worker_id"]
    assert (1, 204, "delivered", [added.pointer.secret_ref], worker_id) == tuple(
        kept[name] for name in ("number", "status", "outcome", "signed_by", "worker")
    )
    assert int(headers["webhook-timestamp"]) == int(kept["started_at"].timestamp())
    assert (1, None, None) == (row["attempts"], row["last_error"], row["lease_token"])
    assert line == line | {
        "tenant_id": "acme",
        "delivery_id": ring.delivery_id,
        "endpoint_id": ring.endpoint_id,
        "event_type": "invoice.paid",
        "correlation_id": "corr-1",
        "attempt": 1,
        "outcome": "delivered",
        "state": "delivered",
        "status": 204,
        "host": "127.0.0.1",
        "recorded": True,
        "level": "info",
        "worker_id": worker_id,
    }
    assert {DEFAULT_QUEUE, bell_key(DEFAULT_QUEUE), f"arq:job:{ring.delivery_id}"} == {key.decode() for key in in_redis}
    assert {} == await contents(world.redis_url)
    assert 1 == len(receiver.received)


@pytest.mark.req("DEL-01")
async def test_many_are_delivered(world: World, receiver: Receiver) -> None:
    """All events of one call of `publish_many` are delivered, each once and unchanged."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    events = [Event(event_type="invoice.paid", data={"n": number}) for number in range(40)]
    async with world.worker(**NEVER_SWEEPS), Publisher.connect(world.database_url, world.redis_url) as publisher:
        published = await publisher.publish_many(
            tenant_id="acme", events=[*events, Event(event_type="a", body=b"\xff")]
        )
        rings = [ring for one in published.events for ring in one.deliveries]
        for ring in rings:
            await world.state(ring, "delivered")

    sent = {
        value: got for got in receiver.received for name, value in got.headers.items() if name.lower() == "webhook-id"
    }
    assert (41, 41) == (len(receiver.received), len(sent))
    for ring, number in zip(rings, range(40), strict=False):
        got = sent[ring.delivery_id]
        Webhook(added.secret.reveal().decode()).verify(got.body, got.headers)
        assert got.body.endswith(b'"data":{"n":%d}}' % number)
    assert b"\xff" == sent[rings[40].delivery_id].body


@pytest.mark.req("DEL-02")
async def test_any_arq_producer_can_ring(world: World, receiver: Receiver) -> None:
    """A ring that an unmodified arq pool with the serializer of hookseal enqueues is handled like any other."""
    await world.endpoint(f"{receiver.base_url}/hook")
    [ring] = await world.publish(rung=False)
    await world.pool.execute("UPDATE hookseal.deliveries SET rung_at = now()")
    async with world.worker(**NEVER_SWEEPS):
        producer = await create_pool(RedisSettings.from_dsn(world.redis_url), job_serializer=job_serializer)
        await producer.enqueue_job(
            "deliver",
            *(ring.tenant_id, ring.endpoint_id, ring.delivery_id),
            _job_id=ring.delivery_id,
            _queue_name="hookseal:deliveries",
        )
        await producer.aclose()
        await receiver.wait_for(1)
        await world.state(ring, "delivered")


async def _hang() -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


@pytest.mark.req("DEL-03", "DEL-15")
async def test_a_receivers_failure_is_recorded_and_retried(world: World, receiver: Receiver) -> None:
    """A failure of the receiver is recorded as its outcome and tried again later; a redirect is not followed."""
    cases = {
        "/500": ("server_error", 500, "the receiver answered 500", status(500)),
        "/302": ("redirect", 302, "the receiver answered 302", status(302, Location=f"{receiver.base_url}/there")),
        "/hang": ("timeout", None, "no answer within 0.3 s", _hang),
    }
    for path, (_, _, _, answer) in cases.items():
        receiver.answers[path] = answer
        await world.endpoint(receiver.base_url + path, timeout_ms=300)
    rings = await world.publish()
    async with world.worker():
        for ring in rings:
            await world.tried(ring)

    found = {}
    for ring in rings:
        [kept] = await world.installation.attempts(ring)
        url = await world.pool.fetchval(
            "SELECT url FROM hookseal.endpoints WHERE id = $1::text::uuid", ring.endpoint_id
        )
        row = await world.installation.delivery(ring)
        found[url.removeprefix(receiver.base_url)] = (kept["outcome"], kept["status"], row["last_error"])
    assert {path: case[:3] for path, case in cases.items()} == found
    assert set(cases) == {request.path for request in receiver.received}


@pytest.mark.req("DEL-12")
async def test_a_forbidden_address_is_not_dialled(world: World) -> None:
    """No connection is made to a forbidden address, and the attempt is recorded as `forbidden_address`."""
    connected: list[object] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await world.endpoint(f"http://127.0.0.1:{port}/hook")
        await world.endpoint(f"http://localhost:{port}/hook")
        rings = await world.publish()
        async with world.worker(HOOKSEAL_EGRESS_ALLOW=""):
            for ring in rings:
                await world.tried(ring)

    for ring in rings:
        [kept] = await world.installation.attempts(ring)
        assert ("forbidden_address", None) == (kept["outcome"], kept["status"])
    assert [] == connected


@pytest.mark.req("SEC-07")
@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("DEL-03")
async def test_an_altered_row_waits_until_it_is_restored(world: World, receiver: Receiver) -> None:
    """A delivery whose row or secret was altered waits, is counted, and is delivered after the restoration."""
    added = {f"/altered/{what}": await world.endpoint(f"{receiver.base_url}/altered/{what}") for what in ALTERED}
    await world.endpoint(f"{receiver.base_url}/untouched")
    paths = {made.pointer.endpoint_id: path for path, made in added.items()}
    for (alter, _), endpoint in zip(ALTERED.values(), paths, strict=True):
        await world.pool.execute(alter, endpoint)
    rings = {paths.get(ring.endpoint_id, "/untouched"): ring for ring in await world.publish()}
    untouched = rings.pop("/untouched")
    async with world.worker() as worker:
        rows = {path: await world.state(ring, "pending", waiting_for="secret") for path, ring in rings.items()}
        await world.state(untouched, "delivered")
        found = await worker.figures()
        assert [True, False] == [len(ALTERED) <= found[FAILURES, "definitive"], 0 < found[FAILURES, "transient"]]
        assert [] == [attempt for ring in rings.values() for attempt in await world.installation.attempts(ring)]
        assert dict.fromkeys(added, (0, 0, None)) == {
            path: (row["attempts"], row["budget_spent"], row["lease_token"]) for path, row in rows.items()
        }
        assert ["/untouched"] == [request.path for request in receiver.received]

        for (_, restore), endpoint in zip(ALTERED.values(), paths, strict=True):
            await world.pool.execute(restore, endpoint)
        await receiver.wait_for(1 + len(ALTERED), within=SECRET_LOOKS_SECONDS)
        delivered = {path: (await world.state(ring, "delivered"))["attempts"] for path, ring in rings.items()}

    got = {request.path: request for request in receiver.received}
    assert 1 + len(ALTERED) == len(got) == len(receiver.received)
    for path, made in added.items():
        Webhook(made.secret.reveal().decode()).verify(got[path].body, got[path].headers)
    assert dict.fromkeys(added, 1) == delivered


@pytest.mark.req("DEL-01", "DEL-03")
async def test_a_published_event_needs_no_ring(world: World, receiver: Receiver) -> None:
    """An event that was published by SQL alone is delivered through the outbox, without a sweep."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with world.worker(**NEVER_SWEEPS) as worker:
        await worker.figures()  # the sweep at the start has ended
        await world.pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json, 'evt_1')")
        got = await receiver.wait_for(1)

    assert got.body.startswith(b'{"type":"invoice.paid"')


@pytest.mark.req("DEL-03", "DUR-01")
async def test_an_emptied_redis_loses_no_event(world: World, receiver: Receiver) -> None:
    """If Redis loses all rings, every published event is delivered nevertheless."""
    await world.endpoint(f"{receiver.base_url}/hook")
    rings = [ring for _ in range(20) for ring in await world.publish()]
    await world.pool.execute("UPDATE hookseal.deliveries SET rung_at = now()")
    async with Redis.from_url(world.redis_url) as client:
        await client.flushdb()
    async with world.worker():
        for ring in rings:
            await world.state(ring, "delivered")

    assert {ring.delivery_id for ring in rings} == {_id(request.headers) for request in receiver.received}


@pytest.mark.req("DUR-05")
async def test_sigterm_finishes_what_is_in_flight(world: World, receiver: Receiver) -> None:
    """After SIGTERM a worker finishes and records what is in flight, claims nothing more, and exits with 0."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=15_000)
    async with world.worker() as worker:
        [in_flight] = await world.publish()
        await receiver.wait_for(1)
        os.kill(worker.pid, signal.SIGTERM)

        async def draining() -> bool:
            return (await worker.get("/readyz"))[0] == 503

        await eventually(draining)
        [later] = await world.publish()
        answer.set()
        assert 0 == await worker.ended()
        stopped = [line for line in worker.log if line["event"] == "worker.stopped"]

    [kept] = await world.installation.attempts(in_flight)
    assert ("delivered", 200, "delivered") == (
        kept["outcome"],
        kept["status"],
        (await world.installation.delivery(in_flight))["state"],
    )
    assert [0] == [line["cut_off"] for line in stopped]
    assert "pending" == (await world.installation.delivery(later))["state"]
    assert 1 == len(receiver.received)


@pytest.mark.req("DUR-05")
async def test_a_hanging_request_ends_before_the_drain(world: World, receiver: Receiver) -> None:
    """A request that hangs ends before the drain, whatever timeout its row has by now: no delivery stays `sending`."""
    receiver.answers["/hang"] = _hang
    await world.endpoint(f"{receiver.base_url}/hang", timeout_ms=100)
    async with world.worker(HOOKSEAL_DRAIN_SECONDS="6", HOOKSEAL_LEASE_SECONDS="7") as worker:
        await world.pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 20000")
        [ring] = await world.publish()
        await receiver.wait_for(1)
        os.kill(worker.pid, signal.SIGTERM)
        assert 0 == await worker.ended()

    [kept] = await world.installation.attempts(ring)
    assert ("timeout", "pending") == (kept["outcome"], (await world.installation.delivery(ring))["state"])


@pytest.mark.req("DUR-05")
async def test_a_restart_under_load_leaves_nothing_claimed(world: World, receiver: Receiver) -> None:
    """A worker that stops with hundreds of deliveries due leaves none claimed; the next worker sends the rest once."""
    events = 400
    await world.endpoint(f"{receiver.base_url}/hook")
    await world.pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", events
    )
    count = "SELECT count(*) FROM hookseal.deliveries WHERE state = $1"
    answer = asyncio.Event()
    receiver.answers["/hook"] = held(answer)
    async with world.worker(HOOKSEAL_CONCURRENCY="30") as first:
        await receiver.wait_for(30)
        os.kill(first.pid, signal.SIGTERM)
        answer.set()
        assert 0 == await first.ended()
    assert 0 == await world.pool.fetchval(count, "sending")
    assert 0 < await world.pool.fetchval(count, "pending")
    held_back = [key for key in await contents(world.redis_url) if key.startswith(b"arq:in-progress:")]
    assert [] == held_back
    async with world.worker():

        async def all_delivered() -> bool:
            return bool(events == await world.pool.fetchval(count, "delivered"))

        await eventually(all_delivered)

    assert events == len(receiver.received) == len({_id(request.headers) for request in receiver.received})


@pytest.mark.req("DEL-15", "DEL-03", "DUR-03")
async def test_a_killed_workers_attempt_is_unknown(world: World, receiver: Receiver) -> None:
    """After a kill the lease expires, the attempt is recorded as unknown, and another worker sends the same id."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    added = await world.endpoint(f"{receiver.base_url}/held")
    async with world.worker() as worker:
        [ring] = await world.publish()
        first = await receiver.wait_for(1)
        os.kill(worker.pid, signal.SIGKILL)
        assert -signal.SIGKILL == await worker.ended()
    answer.set()
    assert "sending" == (await world.installation.delivery(ring))["state"]
    async with world.worker() as second:
        await world.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")  # its lease has expired
        again = await receiver.wait_for(2)
        await world.state(ring, "delivered")

    assert _id(first.headers) == _id(again.headers) == ring.delivery_id
    assert first.body == again.body
    kept = await world.installation.attempts(ring)
    assert [(1, "unknown", worker.process.ready["worker_id"]), (2, "delivered", second.process.ready["worker_id"])] == [
        (row["number"], row["outcome"], row["worker"]) for row in kept
    ]
    assert [[added.pointer.secret_ref]] * 2 == [row["signed_by"] for row in kept]


async def test_a_ready_worker_has_id_and_probes(world: World) -> None:
    """The ready line has the id of the worker and the URL of its probes, which report that it lives and is ready."""
    async with world.worker() as worker:
        ready = worker.process.ready
        assert ["event", "worker_id", "pid", "health_url"] == list(ready)
        assert "worker.ready" == ready["event"]
        os.kill(worker.pid, 0)
        checks = FINE["/readyz"]
        assert (200, {"status": "ok", "checks": checks}) == await worker.get("/readyz")
        assert (200, {"status": "ok"}) == await worker.get("/livez")
        assert (200, {"status": "ok", "checks": {"schema": "ok", "keys": "ok"}}) == await worker.get("/startupz")


@pytest.mark.parametrize("body", [b"", b"not a job"])
async def test_foreign_queue_entries_stop_no_delivery(body: bytes, world: World, receiver: Receiver) -> None:
    """Foreign entries in the queue do not keep a worker from delivering."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with Redis.from_url(world.redis_url) as client:
        await client.set("arq:job:poison", body)
        await client.zadd(DEFAULT_QUEUE, {"poison": 1, b"\xff": 2})
    async with world.worker(**NEVER_SWEEPS) as worker:
        [ring] = await world.publish()
        await world.state(ring, "delivered")
        assert 200 == (await worker.get("/readyz"))[0]


async def test_no_output_or_row_has_the_secret(world: World, receiver: Receiver) -> None:
    """After successes and failures at DEBUG, no log, probe, Redis key or row contains the secret in any encoding."""
    canary = os.urandom(32)
    text = b"whsec_" + base64.b64encode(canary)
    receiver.answers["/410"] = status(410)
    await world.endpoint(f"{receiver.base_url}/hook", secret=SecretMaterial(text))
    await world.endpoint(f"{receiver.base_url}/410", secret=SecretMaterial(text))
    altered = await world.endpoint(f"{receiver.base_url}/altered", secret=SecretMaterial(text))
    await world.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1) WHERE name = $1",
        f"webhook-endpoint-{altered.pointer.endpoint_id}",
    )
    async with world.worker(HOOKSEAL_LOG_LEVEL="debug") as worker:
        states = {f"{receiver.base_url}/hook": "delivered", f"{receiver.base_url}/410": "failed"}
        rings = await world.publish()
        in_redis = repr(await contents(world.redis_url)).encode()
        for ring in rings:
            endpoint = "SELECT url FROM hookseal.endpoints WHERE id = $1::text::uuid"
            wanted = states.get(await world.pool.fetchval(endpoint, ring.endpoint_id))
            await world.state(ring, wanted or "pending", waiting_for=None if wanted else "secret")
        probes = repr([await worker.get("/readyz"), await worker.get("/startupz"), await worker.figures()]).encode()
    held_by = {
        "log": worker.log_file.read_bytes(),
        "redis": in_redis + repr(await contents(world.redis_url)).encode(),
        "probes": probes,
        "database": await _dump(world),
    }

    assert b"delivery.attempted" in held_by["log"]
    assert b"delivered" in held_by["database"]
    spellings = [text[6:], base64.urlsafe_b64encode(canary), canary.hex().encode(), text.hex().encode(), canary]
    assert [] == [(place, each) for place, found in held_by.items() for each in spellings if each in found]
    assert [] == [place for place, found in held_by.items() if repr(canary)[2:-1].encode() in found]


async def _dump(world: World) -> bytes:
    """Return every row of every table of hookseal as text, and its binary values also raw."""
    rows: list[bytes] = []
    tables = await world.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'hookseal'")
    for table in tables:
        for row in await world.pool.fetch(f'SELECT * FROM hookseal."{table["tablename"]}" AS t'):  # noqa: S608 -- the name came from the catalogue
            rows += [value if isinstance(value, bytes) else repr(value).encode() for value in row.values()]
            rows += [value.hex().encode() for value in row.values() if isinstance(value, bytes)]
    return b"\n".join(rows)


def _id(headers: dict[str, str]) -> str:
    return {name.lower(): value for name, value in headers.items()}["webhook-id"]
