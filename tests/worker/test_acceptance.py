"""A whole worker process, from an event in PostgreSQL to a request at a receiver."""

import asyncio
import fcntl
import json
import os
import resource
import signal
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import structlog
from aiohttp import ClientSession, web
from arq import create_pool
from arq.connections import RedisSettings
from standardwebhooks import Webhook

from hookseal.client import Event, Publisher
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import OPERATOR_TENANT, TenantId
from hookseal.operations.replay import send_example
from hookseal.operations.secret import clear_caches
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.queue.rings import DEFAULT_QUEUE, bell_key
from hookseal.queue.serializer import job_serializer
from hookseal.receiver import verify
from hookseal.worker import run
from hookseal.worker.metrics.definitions import LOOPS
from tests import forked
from tests.cli.command import hookseal
from tests.queue.contents import contents
from tests.schema.later import IN_USE, make_later
from tests.worker.environment import environment, settings
from tests.worker.fleet import Worker, fleet
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, held, status

NEVER_SWEEPS = {"HOOKSEAL_SWEEP_SECONDS": "300"}
# Each case: the statement that alters something by hand, and the statement that restores it.


@pytest.mark.req("OPS-03", part="logs")
async def test_a_worker_goes_on_if_nobody_reads_its_log(world: World, receiver: Receiver) -> None:
    """With a pipe of 4 KB that nobody reads, it delivers, answers its probes, and drains; its lines come later."""
    await world.endpoint(f"{receiver.base_url}/hook")
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4_096)
    settings = environment(world.database_url, world.redis_url)
    process = await forked.start("worker", env=os.environ | settings, stdout=PIPE, stderr=write)
    os.close(write)
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        for _ in range(40):
            await world.publish()
        await receiver.wait_for(40)

        async def is_ready() -> bool:
            async with ClientSession() as client, client.get(f"{ready['health_url']}/readyz") as answer:
                return answer.status == 200

        await eventually(is_ready)
        process.send_signal(signal.SIGTERM)
        with os.fdopen(read) as log:
            events = [json.loads(line)["event"] for line in await asyncio.to_thread(log.readlines)]
        assert 0 == await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (40, "worker.stopped") == (events.count("delivery.attempted"), events[-1])


@pytest.mark.req("DEL-18")
async def test_an_example_is_delivered_by_a_worker(world: World, receiver: Receiver) -> None:
    """It is signed, sent and recorded as every other delivery."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    sent = await world.installation.act(send_example, TenantId("acme"), added.pointer.endpoint_id, "a.b", '{"n": 1}')
    async with world.worker():
        got = await receiver.wait_for(1)
        await world.state(sent.deliveries[0], "delivered")

    Webhook(added.secret.reveal().decode()).verify(got.body, got.headers)
    assert sent.event_id == got.headers["x-hookseal-event-id"]
    assert b'{"type":"a.b"' == got.body[:13]


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
        [line] = await eventually(lambda: worker.logged("delivery.attempted"))

    Webhook(added.secret.reveal().decode()).verify(got.body, got.headers)
    assert b'"data":{"n": 1}}' in got.body
    headers = got.headers
    assert (ring.delivery_id, "corr-1", "1", "application/json") == tuple(
        headers[name] for name in ("webhook-id", "x-correlation-id", "x-hookseal-attempt", "content-type")
    )
    assert row["event_id"] == headers["x-hookseal-event-id"]
    [kept] = await world.installation.attempts(ring)
    worker_id = worker.worker_id
    assert (1, 204, "delivered", [added.pointer.secret_ref], worker_id) == tuple(
        kept[name] for name in ("number", "status", "outcome", "signed_by", "worker")
    )
    assert int(headers["webhook-timestamp"]) == int(kept["started_at"].timestamp())
    assert (1, None, None) == (row["attempts"], row["last_error"], row["lease_token"])
    assert {
        "event": "delivery.attempted",
        "level": "info",
        "at": line["at"],
        "tenant_id": "acme",
        "endpoint_id": ring.endpoint_id,
        "delivery_id": ring.delivery_id,
        "event_id": row["event_id"],
        "correlation_id": "corr-1",
        "attempt": 1,
        "status": 204,
        "duration_ms": kept["duration_ms"],
    } == line
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
        await world.delivered(*rings)

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
    """A failure of the receiver is recorded as its outcome and tried again later; a redirect is not followed.

    The line of the log names the worker.
    """
    cases = {
        "/500": ("server_error", 500, "the receiver answered 500", status(500)),
        "/302": ("redirect", 302, "the receiver answered 302", status(302, Location=f"{receiver.base_url}/there")),
        "/hang": ("timeout", None, "no answer within 0.3 s", _hang),
    }
    for path, (_, _, _, answer) in cases.items():
        receiver.answers[path] = answer
        await world.endpoint(receiver.base_url + path, timeout_ms=300 if path == "/hang" else 10_000)
    rings = await world.publish()
    async with world.worker() as worker:
        for ring in rings:
            await world.tried(ring)
        lines = await eventually(lambda: (found := worker.logged("delivery.attempted"))[len(rings) - 1 :] and found)

    outcomes = {outcome for outcome, *_ in cases.values()}
    assert {(outcome, worker.worker_id) for outcome in outcomes} == {
        (line["outcome"], line["worker_id"]) for line in lines
    }
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


@pytest.mark.req("DUR-05")
async def test_sigterm_finishes_what_is_in_flight(world: World, receiver: Receiver) -> None:
    """After SIGTERM a worker finishes and records what is in flight, claims nothing more, and exits with 0."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=15_000)
    async with world.worker() as worker:
        [in_flight] = await world.publish()
        await receiver.wait_for(1)
        worker.send(signal.SIGTERM)
        await worker.answers("/readyz", 503)
        [later] = await world.publish()
        answer.set()
        assert 0 == await worker.ended()
        stopped = worker.logged("worker.stopped")

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
        await worker.stop()

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
        first.send(signal.SIGTERM)
        answer.set()
        assert 0 == await first.ended()
    assert 0 == await world.pool.fetchval(count, "sending")
    assert 0 < await world.pool.fetchval(count, "pending")
    held_back = [key for key in await contents(world.redis_url) if key.startswith(b"arq:in-progress:")]
    assert [] == held_back
    async with world.worker():
        await eventually_equals(events, lambda: world.pool.fetchval(count, "delivered"))

    assert events == len(receiver.received) == len({request.headers["webhook-id"] for request in receiver.received})


# The background loops of whole workers: leadership, rings of the outbox, and figures.


HOLDER = "SELECT holder FROM hookseal.control WHERE name = 'outbox' AND until > now()"


async def leader(world: World, among: list[Worker]) -> Worker:
    workers = {worker.worker_id: worker for worker in among}

    async def look() -> Worker | None:
        return workers.get(await world.pool.fetchval(HOLDER))

    return await eventually(look)


async def live(world: World) -> set[str]:
    """Return the ids of the workers that have a row in the table of workers."""
    return {row["id"] for row in await world.pool.fetch("SELECT id FROM hookseal.workers")}


async def publish_unrung(world: World) -> None:
    await world.pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")


@pytest.mark.req("DEL-01")
async def test_a_killed_leader_is_replaced(world: World, receiver: Receiver) -> None:
    """When the leader is killed, another worker leads after the lease has expired, and rings unrung deliveries."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker(**NEVER_SWEEPS)) for _ in range(2)]
        first = await leader(world, workers)
        workers.remove(first)
        await first.kill()
        await world.pool.execute("UPDATE hookseal.control SET until = now() WHERE name = 'outbox'")  # it has expired
        await leader(world, workers)
        await publish_unrung(world)
        await receiver.wait_for(1)
        assert first.worker_id in await live(world)


async def test_a_stopped_leader_is_replaced_at_once(world: World, receiver: Receiver) -> None:
    """A worker that is stopped gives up the lead and deletes its row; another leads before the lease expires."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker(**NEVER_SWEEPS)) for _ in range(2)]
        first = await leader(world, workers)
        workers.remove(first)
        assert {each.worker_id for each in (first, *workers)} == await live(world)
        lease_ends = await world.pool.fetchval("SELECT until FROM hookseal.control WHERE name = 'outbox'")
        await first.stop()
        second = await leader(world, workers)
        assert await world.pool.fetchval("SELECT now() < $1", lease_ends), "the lease expired before another worker led"
        assert {second.worker_id} == await live(world)
        await publish_unrung(world)
        await receiver.wait_for(1)
    assert set() == await live(world)
    assert await world.pool.fetchval(HOLDER) is None


@pytest.mark.req("DEL-06")
async def test_a_due_retry_needs_no_sweep(world: World, receiver: Receiver) -> None:
    """The outbox rings a failed delivery again when its back-off has ended."""
    receiver.answers["/hook"] = status(500)
    await world.endpoint(f"{receiver.base_url}/hook")
    await world.pool.execute("UPDATE hookseal.endpoints SET retry_schedule = '{1}'")
    async with world.worker(**NEVER_SWEEPS):
        [ring] = await world.publish()
        await world.tried(ring)
        del receiver.answers["/hook"]
        row = await world.state(ring, "delivered")

    assert 2 == row["attempts"]


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize(("listen", "notifies"), [("true", True), ("false", False)])
async def test_notifications_are_requested_only_if_set(
    listen: str, notifies: bool, world: World, receiver: Receiver
) -> None:
    """With HOOKSEAL_LISTEN a worker asks for notifications, without it does not; events are delivered in both cases."""
    await world.endpoint(f"{receiver.base_url}/hook")
    until = "SELECT until IS NOT NULL FROM hookseal.control WHERE name = 'notify'"
    async with world.worker(HOOKSEAL_LISTEN=listen, **NEVER_SWEEPS) as worker:
        await leader(world, [worker])
        if notifies:
            await eventually(lambda: world.pool.fetchval(until))
        await publish_unrung(world)
        await receiver.wait_for(1)
        assert notifies == await world.pool.fetchval(until)


@pytest.mark.req("OPS-02", part="scraped")
async def test_the_figures_count_each_event(world: World, receiver: Receiver) -> None:
    """One delivery, one failure, one 410 and one held: the figures say exactly that; only those of tenants name one."""
    receiver.answers |= {"/500": status(500), "/410": status(410)}
    for path in ("/hook", "/500", "/410"):
        await world.endpoint(receiver.base_url + path)
    await world.pool.execute("UPDATE hookseal.endpoints SET retry_schedule = '{3600}'")  # there is no fourth attempt
    altered = await world.endpoint(f"{receiver.base_url}/altered")
    await world.pool.execute(
        "UPDATE hookseal.endpoints SET generation = generation + 1 WHERE id = $1::text::uuid",
        altered.pointer.endpoint_id,
    )
    async with world.worker() as worker:
        rings = await world.publish()
        waits = next(ring for ring in rings if ring.endpoint_id == altered.pointer.endpoint_id)
        await world.state(waits, "pending", waiting_for="secret")
        await receiver.wait_for(3)
        key_id = await world.pool.fetchval("SELECT key_id FROM hookseal.secret_keys")
        expected = _counted(key_id)
        found = dict[tuple[str, str | None], float]()

        async def look() -> dict[tuple[str, str | None], float | None]:
            nonlocal found
            found = await worker.figures()
            return {key: found.get(key) for key in expected}

        await eventually_equals(expected, look)

    assert 0 <= found["hookseal_loop_lag_seconds", None] < 10
    labels = {label for name, label in found if label is not None and not name.startswith("hookseal_tenant_")}
    assert [] == [each for each in labels for ring in rings if each in {ring.tenant_id, ring.endpoint_id}]


def _counted(key_id: str) -> dict[tuple[str, str | None], float]:
    """Return the figures of a worker that has counted those events, while the leader has measured what is left."""
    return {
        ("hookseal_waiting", "secret"): 1.0,
        ("hookseal_attempts_total", "delivered"): 1.0,
        ("hookseal_attempts_total", "server_error"): 1.0,
        ("hookseal_attempts_total", "gone"): 1.0,
        ("hookseal_attempts_total", "timeout"): 0.0,
        ("hookseal_attempt_duration_seconds_count", None): 3.0,
        ("hookseal_time_to_first_attempt_seconds_count", "no"): 3.0,
        ("hookseal_time_to_first_attempt_seconds_count", "yes"): 0.0,
        ("hookseal_held_total", "secret"): 1.0,
        ("hookseal_endpoints_disabled_total", None): 1.0,
        ("hookseal_dead_letters_total", None): 0.0,
        ("hookseal_leases_lost_total", None): 0.0,
        ("hookseal_claims_failed_total", None): 0.0,
        ("hookseal_in_flight", None): 0.0,
        ("hookseal_secret_cache_misses_total", None): 3.0,
        ("hookseal_secret_cache_entries", None): 3.0,
        ("hookseal_ready", "postgresql"): 1.0,
        ("hookseal_ready", "redis"): 1.0,
        ("hookseal_ready", "schema"): 1.0,
        ("hookseal_ready", "secrets"): 1.0,
        **{("hookseal_ready", f"loop_{name}"): 1.0 for name in LOOPS},
        ("hookseal_master_key_records", f"{key_id} active"): 6.0,
        ("hookseal_plaintext_rows", None): 0.0,
        ("hookseal_workers_live", None): 1.0,
        ("hookseal_due", None): 0.0,
    }


# An operator gets a verified webhook about a delivery that has spent all its attempts.


@pytest.mark.req("DEL-08", part="operator-events")
async def test_an_operator_gets_a_webhook_about_a_dead_letter(world: World, receiver: Receiver) -> None:
    """The worker records the dead letter, and delivers the event about it like any other."""
    new = NewEndpoint(
        tenant_id=OPERATOR_TENANT,
        url=f"{receiver.base_url}/operator",
        event_types=("message.*",),
        settings={"timeout_ms": 10_000},
    )
    own = await world.installation.add(new)
    await world.endpoint(f"{receiver.base_url}/broken")
    await world.pool.execute(
        "UPDATE hookseal.endpoints SET retry_schedule = NULL, max_attempts = 1 WHERE tenant_id = 'acme'"
    )
    receiver.answers["/broken"] = status(500)
    async with world.worker():
        [ring] = await world.publish()
        await receiver.wait_for(2)

    [got] = [each for each in receiver.received if each.path == "/operator"]
    verify(got.body, got.headers, [own.secret.reveal().decode()], now=SystemClock().now())
    event = json.loads(got.body)
    assert "message.attempt.exhausted" == event["type"]
    assert ("acme", ring.delivery_id) == (event["data"]["tenant_id"], event["data"]["delivery_id"])


# The provider `dev` in a worker: it warns that it loses secrets, stores nothing, and is refused in production.


DEV = {"SECRETS_PROVIDER": "dev", "SECRETS_MASTER_KEY": ""}


@pytest.mark.req("SEC-19")
async def test_dev_warns_and_stores_nothing(pool: Pool, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A worker with `dev` is ready, warns at the start, and stores no key and no secret in the database."""
    async with fleet(environment(database_url, redis_url, **DEV), tmp_path) as workers:
        worker = await workers.start()
        await worker.answers("/readyz", 200)

    [warned] = worker.logged("secrets.in_memory")
    assert "warning" == warned["level"]
    assert "every secret is lost when this process ends" in warned["reason"]
    assert 0 == await pool.fetchval(
        "SELECT (SELECT count(*) FROM hookseal.secret_records) + (SELECT count(*) FROM hookseal.secret_keys)"
    )


@pytest.mark.req("SEC-19")
async def test_dev_does_not_start_in_production(database_url: str, redis_url: str) -> None:
    """In production the provider `dev` is refused (78), with the reason and the provider to use."""
    settings = environment(database_url, redis_url, **DEV, HOOKSEAL_ENV="production", HOOKSEAL_ALLOW_HTTP="")
    ended = await hookseal("worker", **settings)

    assert (78, "") == (ended.code, ended.out)
    assert "SECRETS_PROVIDER may not be dev in production, where it would lose every secret at a restart: use db" in (
        ended.err
    )


# `db upgrade` to a later revision while producers publish and a worker delivers: nothing is refused or lost.


AROUND: Final = 40  # events of each producer before and after the upgrade
DELIVERED: Final = "SELECT DISTINCT delivery_id::text AS id FROM hookseal.attempts WHERE outcome = 'delivered'"


class Load:
    """Publishes without a pause until the upgrade is over, and a fixed number of events more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.published: list[str] = []
        self.has_begun, self.upgrade_is_over = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Publish, as one of several producers. Raises what publishing raises."""
        made, left = 0, AROUND
        while left:
            [ring] = await self._world.publish()
            self.published.append(ring.delivery_id)
            made += 1
            if made == AROUND:
                self.has_begun.set()
            left -= self.upgrade_is_over.is_set()


@pytest.mark.req("OPS-09", part="under-load")
async def test_an_upgrade_under_load_loses_no_delivery(
    world: World, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an upgrade producers wait for a moment and are not refused, and every event is delivered."""
    await world.endpoint(f"{receiver.base_url}/hook")
    load = Load(world)

    async def all_delivered() -> bool:
        return {row["id"] for row in await world.pool.fetch(DELIVERED)} == set(load.published)

    async with world.worker() as worker:
        producers = asyncio.gather(load.run(), load.run())
        await load.has_begun.wait()
        later = make_later(tmp_path, monkeypatch, *IN_USE)
        assert revision.EXPECTED == later == await upgrade(world.database_url)
        load.upgrade_is_over.set()
        await producers
        await eventually(all_delivered)
        await worker.answers("/readyz", 200)

    assert later == await revision.current(world.pool)
    assert len(load.published) == await world.pool.fetchval("SELECT count(*) FROM hookseal.events WHERE size > 0")


# A worker with few file descriptors, and receivers that keep more connections open: no budget is spent.


DELIVERIES = 15
AT_ONCE = 10


def few_files(worker: Worker) -> None:
    """Limit the worker to its open descriptors and ten more, doubled for the reserve."""
    most = max(int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir())
    soft = 2 * (most + 1 + AT_ONCE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, soft))


@pytest.mark.req("DEL-06")
async def test_a_delivery_waits_for_a_descriptor_unspent(world: World, receiver: Receiver) -> None:
    """A delivery without a free descriptor waits for one, unspent, and probes are answered meanwhile."""
    answer_now = asyncio.Event()
    receiver.answers["/held"] = held(answer_now)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=20_000)
    async with world.worker() as worker:
        few_files(worker)
        rings = [(await world.publish(rung=False))[0] for _ in range(DELIVERIES)]

        async def lacks() -> bool:
            return (await worker.figures())["hookseal_exhausted_total", None] > 0

        await eventually(lacks, within=30)
        assert 200 == (await worker.get("/livez"))[0]
        await worker.answers("/readyz", 200)
        assert AT_ONCE >= len(receiver.received) > 0
        answer_now.set()

        async def all_delivered() -> bool:
            return not await world.pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state <> 'delivered'")

        await eventually(all_delivered, within=45)

    spent = [(await world.installation.delivery(ring))["attempts"] for ring in rings]
    assert [1] * DELIVERIES == spent
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.attempts WHERE outcome <> 'delivered'")
    rests = [line["rests_seconds"] for line in worker.log if line["event"] == "worker.exhausted"]
    assert 0.5 == rests[0]
    assert len(rests) < DELIVERIES


@pytest.mark.parametrize(("limit", "warned"), [(755, True), (756, False)])
def test_a_low_descriptor_limit_is_logged(limit: int, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start a descriptor limit below the need of HOOKSEAL_CONCURRENCY is logged, with what to change."""
    monkeypatch.setattr(run, "raise_descriptor_limit", lambda: limit)
    with structlog.testing.capture_logs() as logs:
        run._raise_limit(settings("postgresql://h/d", "redis://h"), structlog.get_logger())

    logged = [(line["event"], line["limit"], line["needed"]) for line in logs]
    assert [("worker.few_descriptors", 755, 756)] * warned == logged
    assert all("raise the hard limit" in line["reason"] for line in logs)


# Names stop resolving while no connection is kept: deliveries fail as `dns`, breakers open, and nothing is lost.


EVENTS = 40
HELD = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'breaker'"
FAILED = "SELECT outcome, count(*) FROM hookseal.attempts WHERE outcome <> 'delivered' GROUP BY outcome"
LEFT = "SELECT count(*) FROM hookseal.deliveries WHERE state <> 'delivered'"


@pytest.mark.req("DUR-04")
async def test_an_outage_of_the_name_servers_loses_nothing(world: World, receiver: Receiver, tmp_path: Path) -> None:
    """It costs an endpoint a few attempts, then its breaker opens; `cache-clear` sends all at once afterwards."""
    (outage := tmp_path / "outage").touch()
    await world.endpoint(f"{receiver.base_url.replace('127.0.0.1', 'localhost')}/hook")
    async with world.worker(module="tests.worker.nameless_worker", NAMELESS=str(outage)):
        for _ in range(EVENTS):
            await world.publish()
        await eventually(lambda: world.pool.fetchval(HELD))
        [failures] = await world.pool.fetch(FAILED)
        assert [] == receiver.received
        outage.unlink()

        async def all_arrived() -> bool:
            await world.installation.act(clear_caches)
            return not await world.pool.fetchval(LEFT)

        await eventually(all_arrived, within=60)

    assert "dns" == failures["outcome"]
    assert 10 <= failures["count"] < EVENTS
    assert EVENTS == len(receiver.received)
