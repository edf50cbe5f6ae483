"""Workers while master keys change: a frozen worker, a purged cache, and a record under an unregistered key."""

import json
import os
import signal

import pytest

from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Purpose, SecretContext, SecretRef
from tests.worker.key_life import (
    OLD,
    another,
    command,
    fleet,
    id_of,
    key,
    name_of,
    promote,
    retire,
    rewrap,
    stage,
    staged,
)
from tests.worker.test_rotation import verifies
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World

SECRET_LOOKS_SECONDS = 30.0  # a held endpoint gets a probe about every 15 s
_AGED = "UPDATE hookseal.workers SET beaten_at = now() - interval '31 seconds' WHERE id = $1"
_MISSES, _HITS = "hookseal_secret_cache_misses_total", "hookseal_secret_cache_hits_total"


async def rotated(world: World, added: AddedEndpoint, new: str) -> str:
    """Rotate under the new key, revoking the previous secret, and return the secret."""
    of = ("--tenant", added.pointer.tenant_id, "--endpoint", added.pointer.endpoint_id)
    result = await command(world, "endpoint", "rotate", *of, "--overlap", "0", "--print-secret", keys=staged(new))
    return str(result["secret"])


@pytest.mark.timeout(300)
@pytest.mark.req("SEC-05", part="under-traffic")
async def test_a_frozen_worker_holds_what_it_cannot_open(world: World, receiver: Receiver) -> None:
    """A worker frozen during a promotion signs what it can open, and holds the rest for a worker with the new key."""
    moved = await world.endpoint(f"{receiver.base_url}/moved")
    kept = await world.endpoint(f"{receiver.base_url}/kept", tenant="bmce")
    new = another()
    await stage(world, new)
    async with fleet(world) as workers:
        frozen = await workers.start("frozen")
        await asked(world, frozen)  # so its cache has the older version of this endpoint
        os.kill(frozen.pid, signal.SIGSTOP)
        await world.pool.execute(_AGED, name_of(frozen))  # as if its heartbeat had become too old
        await promote(world, new)
        secret = await rotated(world, moved, new)
        os.kill(frozen.pid, signal.SIGCONT)

        [held], [sent] = await world.publish(), await world.publish("bmce")
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert f"master key {id_of(new)} is not among the keys of this process" in waiting["last_error"]
        await world.state(sent, "delivered")
        assert (503, "unavailable") == _startup(await frozen.get("/startupz"))
        assert [] == await world.installation.attempts(held)
        await workers.stop("frozen")

        await workers.start("able", **staged(new))
        await receiver.wait_for(3, within=SECRET_LOOKS_SECONDS)
        assert 1 == (await world.state(held, "delivered"))["attempts"]
    secrets = {"/moved": secret, "/kept": kept.secret.reveal().decode()}
    assert [("/kept", True), ("/moved", True)] == [
        (got.path, verifies(secrets[got.path], got)) for got in receiver.received[1:]
    ]


def _startup(answer: tuple[int, dict[str, object]]) -> tuple[int, object]:
    code, body = answer
    checks = body["checks"]
    assert isinstance(checks, dict)
    return code, checks["keys"]


@pytest.mark.req("SEC-06", part="purge")
async def test_retiring_a_key_empties_the_caches(world: World, receiver: Receiver) -> None:
    """Promotion and re-wrap leave the caches unchanged, because no version changes; a retirement empties each cache."""
    await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        assert [(0, 1), (1, 1)] == [await asked(world, worker), await asked(world, worker)]
        await promote(world, new)
        await rewrap(world, new)
        assert (2, 1) == await asked(world, worker)
        await retire(world, new)
        assert [(2, 2), (3, 2)] == [await asked(world, worker), await asked(world, worker)]


@pytest.mark.req("SEC-06", part="purge")
@pytest.mark.req("SEC-22", part="under-traffic")
async def test_compromise_empties_the_caches(world: World, receiver: Receiver) -> None:
    """The drill empties the caches: in the overlap the exposed version is read again, like the new one."""
    await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        assert (0, 1) == await asked(world, worker)
        await promote(world, new)
        await command(world, "key", "compromise", id_of(OLD), "--overlap", "3600", keys=staged(new))
        assert [(0, 3), (2, 3)] == [await asked(world, worker), await asked(world, worker)]


async def asked(world: World, worker: Worker) -> tuple[float, float]:
    """Deliver once, and return the total numbers of cache hits and misses."""
    [ring] = await world.publish()
    await world.state(ring, "delivered")
    found = await worker.figures()
    return found[_HITS, None], found[_MISSES, None]


@pytest.mark.req("SEC-04", part="keyring")
async def test_a_record_under_an_unregistered_key_waits(world: World, receiver: Receiver) -> None:
    """Only the endpoint of a record under an unregistered key waits; status and figures report the record."""
    added = await world.endpoint(f"{receiver.base_url}/quarantined")
    await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    foreign, ref = key(another()), SecretRef.parse(added.pointer.secret_ref or "")
    context = SecretContext.of(ref, Purpose.WEBHOOK_SIGNING)
    await world.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = $2 WHERE tenant_id = 'acme' AND name = $1",
        *(ref.name, seal(KeyRing(foreign), added.secret, context)),
    )
    async with world.worker() as worker:
        [held], [sent] = await world.publish(), await world.publish("bmce")
        waiting = await world.state(held, "pending", waiting_for="secret")
        await world.state(sent, "delivered")

        async def measured() -> bool:
            found = await worker.figures()
            return (
                1 == found.get(("hookseal_master_key_records", "unregistered unregistered"))
                and 1 == found["hookseal_waiting", "secret"]
            )

        await eventually(measured)
        items = (await command(world, "key", "status"))["items"]
    assert f"master key {foreign.key_id} is not among the keys of this process" in waiting["last_error"]
    assert (0, ["/other"]) == (waiting["attempts"], [got.path for got in receiver.received])
    assert [(id_of(OLD), "active", 3), (foreign.key_id, "unregistered", 1)] == [
        (item["key_id"], item["state"], item["records"]) for item in items
    ]


@pytest.mark.req("SEC-05", part="audited")
async def test_each_batch_of_a_re_wrap_is_audited(world: World, receiver: Receiver) -> None:
    """Each batch of a re-wrap is one audit row of the installation, none of a tenant, and the records stay usable."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    await promote(world, new)
    await rewrap(world, new)
    async with world.worker(**staged(new)):
        [ring] = await world.publish()
        await world.state(ring, "delivered")
    assert verifies(added.secret.reveal().decode(), receiver.received[0])
    rows = await world.pool.fetch(
        "SELECT tenant_id, action, after FROM hookseal.audit_log WHERE action LIKE 'key.%' ORDER BY sequence"
    )
    assert {"_system"} == {row["tenant_id"] for row in rows}
    assert ["key.staged", "key.promoted", "key.rewrapped", "key.drained"] == [row["action"] for row in rows]
    details = json.loads(rows[2]["after"])
    assert (id_of(new), 3) == (details["to"], details["records"])
    assert ["endpoint.added"] == [
        row["action"]
        for row in await world.pool.fetch(
            "SELECT action FROM hookseal.audit_log WHERE tenant_id = $1", TenantId("acme")
        )
    ]
