"""A whole worker and deliveries that wait, for an endpoint or a secret: nothing is lost, no other is delayed."""

import asyncio
import hashlib
import hmac
import os

import pytest
from standardwebhooks import Webhook

from hookseal.audit import log
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.operations.endpoint.endpoints import disable_endpoint, enable_endpoint
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.operations.migrate_secrets import migrate_endpoint
from hookseal.operations.secret import clear_caches
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.cli.command import Ended, hookseal
from tests.doubles.legacy import SECRET, legacy
from tests.doubles.logbook import audited
from tests.doubles.receivers import answers, listening
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.queue.contents import contents
from tests.worker.environment import environment
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, status

ACME = TenantId("acme")
_FLIP = "UPDATE hookseal.endpoints SET generation = generation + $2 WHERE id = $1::text::uuid"
_WAITING = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = $1"


async def enable(world: World, endpoint: EndpointId) -> int:
    """Enable the endpoint, and return the number of released deliveries."""
    return (await world.installation.act(enable_endpoint, ACME, endpoint, own_drain_seconds=25)).woken


async def waiting(world: World, number: int, waiting_for: str) -> None:
    """Return when that many deliveries wait for that reason."""
    await eventually_equals(number, lambda: world.pool.fetchval(_WAITING, waiting_for))


@pytest.mark.req("DEL-22")
async def test_a_disabled_endpoints_events_arrive_after_enable(world: World, receiver: Receiver) -> None:
    """Events for a disabled endpoint wait, neither rung nor sent, and are delivered after `enable`, like later ones."""
    endpoint = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    await world.installation.act(disable_endpoint, ACME, endpoint, reason="moves")
    async with world.worker() as worker:
        rings = [(await world.publish(rung=number % 2 == 0))[0] for number in range(4)]

        await waiting(world, 4, "endpoint_disabled")
        assert [] == receiver.received
        assert 4 == await enable(world, endpoint)
        await world.delivered(*rings, *await world.publish())
        figures = await worker.figures()
        assert [] == [key for key, value in figures.items() if key[0] == "hookseal_rings_dropped_total" and value]
    assert 5 == len(receiver.received)


@pytest.mark.req("DEL-22")
@pytest.mark.req("DEL-05", part="each-delivery")
async def test_events_after_a_410_arrive_after_enable(world: World, receiver: Receiver) -> None:
    """A 410 fails its own delivery and disables the endpoint; the others wait, and arrive after `enable`."""
    receiver.answers["/hook"] = status(410)
    endpoint = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    async with world.worker():
        [gone] = await world.publish()
        await world.state(gone, "failed")
        later = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "endpoint_disabled")
        del receiver.answers["/hook"]
        assert 3 == await enable(world, endpoint)
        await world.delivered(*later)
    assert 4 == len(receiver.received)


@pytest.mark.req("SEC-07")
async def test_a_refused_secret_delays_no_other_tenant(world: World, receiver: Receiver) -> None:
    """While a secret is refused its deliveries wait and another tenant's arrive; `cache-clear` releases them."""
    altered = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    await world.pool.execute(_FLIP, altered, 1)
    async with world.worker() as worker:
        first = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "secret")
        later = [(await world.publish(rung=False))[0] for _ in range(20)]
        await world.deliver("globex")
        # No worker saw what was published after the endpoint was held.
        assert 1.0 <= (await worker.figures())["hookseal_held_total", "secret"] <= 3.0
        await waiting(world, 23, "secret")
        await world.pool.execute(_FLIP, altered, -1)
        assert 23 == (await world.installation.act(clear_caches)).woken
        await world.delivered(*first, *later)
    assert 24 == len(receiver.received)


# Refused secrets under a whole worker: its deliveries wait, others continue, and its drain writes the counts.


_ALTERED = "UPDATE hookseal.endpoints SET url = url || '?to=another' WHERE id = $1::text::uuid"


async def more_refused(world: World, worker: Worker, before: float) -> float:
    """Make the probe due now, and return the number of refusals when it has grown."""
    await world.probe_held()

    async def look() -> float | None:
        refused = (await worker.figures())["hookseal_secret_failures_total", "definitive"]
        return refused if refused > before else None

    return await eventually(look)


@pytest.mark.req("SEC-14", part="counted")
async def test_a_drain_writes_what_was_counted(world: World, receiver: Receiver) -> None:
    """The refusals are one audit row, written by the drain; the audit log is intact, and others are delivered."""
    altered = await world.endpoint(f"{receiver.base_url}/altered")
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    await world.pool.execute(_ALTERED, altered.pointer.endpoint_id)
    async with world.worker() as worker:
        waiting = [(await world.publish())[0] for _ in range(3)]
        [sent] = await world.publish("globex")
        for delivery in waiting:
            await world.state(delivery, "pending", waiting_for="secret")
        await world.state(sent, "delivered")
        refused = 0.0
        while refused < 3:  # the endpoint is held as a whole: each further refusal comes from a probe
            refused = await more_refused(world, worker, refused)
        await worker.stop()
        worker_id = worker.worker_id

    denials = [row for row in await audited(world.pool) if row["action"] == "secret.denied"]
    assert [(f"worker/{worker_id}", "tenant:acme", {"secret_tampered"})] == [
        (row["who"], row["subject"], row["after"]["denied"].keys()) for row in denials
    ]
    assert refused <= denials[0]["after"]["denied"]["secret_tampered"]
    assert [altered.pointer.endpoint_id] == denials[0]["after"]["endpoints"]
    assert ["endpoint.added"] == [row["action"] for row in await audited(world.pool, "globex")]
    settings = environment(world.database_url, world.redis_url, SECRETS_MASTER_KEY=MASTER_KEY_TEXT)
    assert 0 == (await hookseal("audit", "verify", **settings)).code


@pytest.mark.req("SEC-19")
async def test_dev_audits_nothing(pool: Pool, world: World) -> None:
    """With the keys of `dev` no audit row is written, because nobody could verify it later."""
    await pool.execute("DELETE FROM hookseal.secret_keys; DELETE FROM hookseal.secret_records")
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', hookseal.uuid7(), 'https://receiver.example/', '{*}', 'of an older system')"
    )
    async with world.worker(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY="") as worker:
        [held] = await world.publish()
        await world.state(held, "pending", waiting_for="secret")

        async def refused() -> bool:
            return 1.0 == (await worker.figures())["hookseal_secret_failures_total", "definitive"]

        await eventually(refused)
        await worker.stop()

    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.audit_log")


# The own headers of an endpoint, which a worker sends unchanged at every attempt and shows nowhere else.


CANARY = "canary-4f1d"
OWN = {"authorization": f"Bearer {CANARY}".encode(), "x-inside": f'{CANARY} \t "~!'.encode()}
TELLS_A_VALUE = (
    "SELECT count(*)::int FROM (SELECT to_jsonb(a)::text AS row FROM hookseal.attempts AS a"
    " UNION ALL SELECT to_jsonb(d)::text FROM hookseal.deliveries AS d"
    " UNION ALL SELECT to_jsonb(e)::text FROM hookseal.endpoints AS e"
    " UNION ALL SELECT to_jsonb(l)::text FROM hookseal.audit_log AS l) AS stored WHERE row LIKE '%canary%'"
)


def endpoint(url: str) -> NewEndpoint:
    """Return an endpoint that subscribes to everything and has short retries."""
    return NewEndpoint(
        tenant_id=ACME, url=url, event_types=("*",), settings={"timeout_ms": 10_000, "retry_schedule": (1, 1)}
    )


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_every_attempt_carries_the_headers(world: World) -> None:
    """Every attempt carries each value once, unchanged, and verifies; no log and no table contains a value."""
    replies = iter([b"500 no", b"500 no", b"204 yes"])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % next(replies))(reader, writer)

    async with listening(script) as listener:
        added = await world.installation.add(endpoint(listener.url), headers=OWN)
        [ring] = await world.publish()
        async with world.worker() as worker:
            await world.state(ring, "delivered")
            in_redis = await contents(world.redis_url)

    assert 3 == len(listener.requests) == len(await world.installation.attempts(ring))
    for number, raw in enumerate(listener.requests, start=1):
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")[1:]
        assert [1] * len(OWN) == [lines.count(name.encode() + b": " + value) for name, value in OWN.items()]
        headers = dict(line.decode().split(": ", 1) for line in lines)
        assert (len(lines), str(number)) == (len(headers), headers["x-hookseal-attempt"])
        Webhook(added.secret.reveal().decode()).verify(body, headers)
    assert CANARY not in f"{worker.log_file.read_text(encoding='utf-8')} {in_redis}"
    assert 0 == await world.pool.fetchval(TELLS_A_VALUE)


# Rotation of the integrity key under running workers, which learn the new version and verify with older ones.


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_workers_learn_a_new_version(world: World, receiver: Receiver) -> None:
    """A worker that started before the rotation delivers for rows under the old and under the new version."""
    before = await world.endpoint(f"{receiver.base_url}/before")
    moved = await world.endpoint(f"{receiver.base_url}/moved", tenant="bmce")
    async with world.worker() as worker:
        await world.deliver()
        async with world.pool.acquire() as connection:
            operator = world.installation.operator(connection)
            made = await rotate_integrity_key(operator, os.urandom)
            await rotation.rotate_secret(
                operator,
                RotationRequest(
                    tenant_id=moved.pointer.tenant_id,
                    endpoint_id=moved.pointer.endpoint_id,
                    overlap_seconds=60,
                    secret=generate_signing_secret(),
                ),
            )
            assert ["1", "2"] == [
                await connection.fetchval("SELECT mac_key_id FROM hookseal.endpoints WHERE tenant_id = $1", tenant)
                for tenant in ("acme", "bmce")
            ]
        after = await world.endpoint(f"{receiver.base_url}/after", tenant="cmce")
        for tenant in ("acme", "bmce", "cmce"):
            await world.deliver(tenant)
        assert [] == worker.logged("delivery.waiting")

    assert ("2", ("1",)) == (made.key_id, made.older)
    assert ["/before", "/before", "/moved", "/after"] == [got.path for got in receiver.received]
    assert ["1", "2"] == [before.pointer.mac_key_id, after.pointer.mac_key_id]
    assert [None] * 4 == [each.broken for each in await log.verify(world.pool, world.installation.unlocked.integrity)]


# Plaintext secrets of an older system and a whole worker: production requires their migration first.


PRODUCTION = {"HOOKSEAL_ENV": "production", "HOOKSEAL_ALLOW_HTTP": ""}


async def started(world: World, **changes: str) -> Ended:
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
        await worker.answers("/readyz", 200)


@pytest.mark.req("SEC-13")
async def test_outside_production_it_is_logged(world: World) -> None:
    """Outside of production a worker starts, and its log says how many rows wait and which command to run."""
    await legacy(world.pool)
    async with world.worker(HOOKSEAL_ENV="test") as worker:
        [line] = worker.logged("secrets.unmigrated")

    assert ("warning", 1) == (line["level"], line["endpoints"])
    assert "hookseal migrate-secrets" in line["reason"]


@pytest.mark.req("SEC-13")
@pytest.mark.req("SEC-12")
async def test_a_later_plaintext_row_waits(world: World, receiver: Receiver) -> None:
    """Only the endpoint of a plaintext row waits, unspent; the worker stays ready, and sends after the migration."""
    await world.endpoint(f"{receiver.base_url}/ours")
    async with world.worker() as worker:
        held = await legacy(world.pool, url=f"{receiver.base_url}/theirs")
        rings = {ring.endpoint_id: ring for ring in await world.publish()}
        assert "/ours" == (await receiver.wait_for(1)).path
        theirs = rings.pop(held.endpoint_id)
        await world.delivered(*rings.values())
        waiting = await world.state(theirs, "pending", waiting_for="secret")
        assert (0, 0) == (waiting["attempts"], waiting["budget_spent"])
        await worker.answers("/readyz", 200)

        await world.installation.act(migrate_endpoint, held)
        got = await receiver.wait_for(2)
        await world.state(theirs, "delivered")
    headers = got.headers
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
        await worker.answers("/startupz", 200)
    async with world.worker():
        await world.deliver()
    of = ("--tenant", "acme", "--endpoint", held.endpoint_id, "--json")
    assert 0 == (await hookseal("endpoint", "rotate", *of, "--no-wait", **settings)).code
    assert not (await hookseal("endpoint", "show", *of, **settings)).json["has_plaintext"]
