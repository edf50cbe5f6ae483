"""Rows that become stale under a running worker are found and audited once; their deliveries wait, others continue."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Refused
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import AddedEndpoint, add_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.restore import accept_restore
from hookseal.receiver import verify
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.cli.command import hookseal
from tests.doubles.logins import login
from tests.worker.environment import environment
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

pytestmark = pytest.mark.req("SEC-24", part="stale")

_KEEP = "CREATE TABLE kept AS SELECT * FROM hookseal.{table}"
PUT_BACK = """
UPDATE hookseal.endpoints AS e
   SET secret_ref = k.secret_ref, previous_secret_ref = k.previous_secret_ref, generation = k.generation, mac = k.mac,
       previous_secret_expires_at = k.previous_secret_expires_at, previous_scheme = k.previous_scheme,
       previous_algorithm = k.previous_algorithm, mac_key_id = k.mac_key_id, url = k.url
  FROM kept AS k WHERE k.id = e.id
"""
REST_OF_THE_DATABASE = """;
ALTER TABLE hookseal.audit_log DISABLE TRIGGER USER;
DELETE FROM hookseal.audit_log AS l WHERE NOT EXISTS
    (SELECT FROM log WHERE log.tenant_id = l.tenant_id AND log.sequence = l.sequence);
UPDATE hookseal.audit_heads AS h SET sequence = k.sequence, mac = k.mac FROM heads AS k WHERE k.tenant_id = h.tenant_id;
DELETE FROM hookseal.audit_heads AS h WHERE NOT EXISTS (SELECT FROM heads AS k WHERE k.tenant_id = h.tenant_id);
DELETE FROM hookseal.secret_records WHERE version = 2 AND name LIKE 'webhook%';
UPDATE hookseal.secret_records AS s SET state = r.state FROM r WHERE r.name = s.name AND r.version = s.version;
ALTER TABLE hookseal.audit_log ENABLE TRIGGER USER
"""


async def findings(world: World, endpoint: EndpointId) -> list[dict[str, Any]]:
    rows = await world.pool.fetch(
        "SELECT after::text FROM hookseal.audit_log WHERE action = 'stale.found' AND subject = $1 ORDER BY sequence",
        f"endpoint:{endpoint}",
    )
    return [json.loads(row["after"]) for row in rows]


async def audited(world: World, worker: Worker, endpoint: EndpointId) -> dict[str, Any]:
    """Return the only finding about the endpoint, once it is audited and counted."""

    async def look() -> dict[str, Any] | None:
        counted = (await worker.figures())["hookseal_stale_rows_found_total", None]
        found = await findings(world, endpoint)
        return found[0] if found and counted else None

    found: dict[str, Any] = await eventually(look)
    assert 1 == len(await findings(world, endpoint))
    return found


def secret_of(added: AddedEndpoint | RotationResult) -> str:
    assert added.secret is not None
    return added.secret.reveal().decode()


def signed_with(got: Received, secret: str) -> None:
    """Fail unless that secret signed the request just now."""
    verify(got.body, got.headers, [secret], now=SystemClock().now())


async def test_a_stale_row_sends_nothing_until_accepted(world: World, receiver: Receiver) -> None:
    """With an older endpoint row whose secret was revoked nothing is sent until the restore is accepted."""
    added = await world.endpoint(f"{receiver.base_url}/old")
    other = await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    endpoint = added.pointer.endpoint_id
    await world.pool.execute(_KEEP.format(table="endpoints"))
    await world.rotate(added)
    await world.pool.execute(PUT_BACK)
    async with world.worker() as worker:
        [held], [also_held], [sent] = [await world.publish(tenant) for tenant in ("acme", "acme", "bmce")]
        for delivery in (held, also_held):
            waiting = await world.state(delivery, "pending", waiting_for="secret")
            assert "stale: it has generation 1, the audit log knows 2" in waiting["last_error"]
            assert 0 == waiting["attempts"]
        await world.state(sent, "delivered")
        assert 1 == (await audited(world, worker, endpoint))["found_generation"]
        assert "/other" == (await receiver.wait_for(1)).path
        signed_with(receiver.received[0], secret_of(other))

        accepted = await world.installation.act(accept_restore, ())
        assert ([endpoint], [], 2) == (
            [one.endpoint_id for one in accepted.endpoints],
            [*accepted.refused],
            accepted.woken,
        )
        await world.delivered(held, also_held)
    assert ["/other", "/old", "/old"] == [got.path for got in receiver.received]
    signed_with(receiver.received[1], secret_of(added))
    row = await world.pool.fetchrow("SELECT generation, secret_ref FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    assert (3, added.pointer.secret_ref) == tuple(row or ())


class _Silent(Operator):
    """An operator of an attacker who has a login and the master key, and leaves the audit rows out."""

    async def audit(self, *_args: Any, **_named: Any) -> None:
        """Write nothing."""


@pytest.mark.req("SEC-24", part="unaudited")
@pytest.mark.parametrize("known", [2, None], ids=["url changed", "endpoint added"])
async def test_an_unaudited_row_sends_nothing_until_accepted(
    known: int | None, world: World, receiver: Receiver, tmp_path: Path
) -> None:
    """A row that the API's login and the master key wrote without an audit row is named by each command.

    Nothing is sent for it until it is accepted; the endpoints of others continue.
    """
    added = await world.endpoint(f"{receiver.base_url}/lawful")
    await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    await world.rotate(added)
    heads = tmp_path / "heads.json"
    settings = environment(world.database_url, world.redis_url)
    async with world.worker() as worker, login(world.pool, world.database_url, "hookseal_api") as (_, url):
        of = await _attack(world, url, added if known else None, f"{receiver.base_url}/theirs")
        named = {"tenant_id": of.tenant_id, "endpoint_id": of.endpoint_id}
        [held], [sent] = [await world.publish(tenant) for tenant in (of.tenant_id, "bmce")]
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert f"it has generation {of.generation}, the audit log knows {known or 'nothing'}" in waiting["last_error"]
        assert 0 == waiting["attempts"]
        await world.state(sent, "delivered")
        assert of.generation == (await audited(world, worker, of.endpoint_id))["found_generation"]

        item = named | {"kind": "unaudited", "generation": of.generation, "audited_generation": known}
        verified = await hookseal("audit", "verify", "--json", **settings)
        assert (1, False, [item]) == (verified.code, verified.json["intact"], verified.json["unaudited"])
        assert f"UNAUDITED: endpoint {of.endpoint_id}" in (await hookseal("audit", "verify", **settings)).out
        checked = await hookseal("restore", "check", "--json", **settings)
        assert (1, [item]) == (checked.code, checked.json["items"])
        asked = ("check", "--url", worker.ready["health_url"])
        ready = await hookseal(*asked, "--json", **settings)
        assert (0, "ok", [named]) == (ready.code, ready.json["status"], ready.json["unaudited"])
        assert f"UNAUDITED: endpoint {of.endpoint_id} of {of.tenant_id}" in (await hookseal(*asked, **settings)).out
        assert 200 == (await worker.get("/readyz"))[0], "the worker serves all others"
        assert ["/other"] == [got.path for got in receiver.received]

        heads.write_text((await hookseal("audit", "heads", "--json", **settings)).out)
        only = ("--tenant", of.tenant_id, "--endpoint", of.endpoint_id)
        accepted = await hookseal("restore", "accept", "--head", str(heads), *only, "--json", **settings)
        assert (0, [item], 1) == (accepted.code, accepted.json["accepted"], accepted.json["woken"])
        await world.delivered(held)
        for command in (("audit", "verify"), ("restore", "check"), asked):
            assert 0 == (await hookseal(*command, **settings)).code, command
    assert ["/other", "/theirs"] == [got.path for got in receiver.received]


async def _attack(world: World, url: str, added: AddedEndpoint | None, address: str) -> Pointer:
    """Change the url of the endpoint, or add one, with that login and the installation's key, and no audit row."""
    connection = await asyncpg.connect(url)
    try:
        operator = _Silent(connection=connection, unlocked=world.installation.unlocked, who="eve@desk")
        if added is None:
            new = NewEndpoint(tenant_id=TenantId("evil"), url=address, event_types=("*",))
            return (await add_endpoint(operator, new, None, own_drain_seconds=25)).pointer
        of = added.pointer
        await update_endpoint(operator, of.tenant_id, of.endpoint_id, {"url": address}, own_drain_seconds=25)
        return await world.installation.pointer(of.endpoint_id)
    finally:
        await connection.close()


async def test_a_worker_detects_a_restored_database(world: World, receiver: Receiver) -> None:
    """A worker that saw the database before detects that it is stale as a whole, though it is consistent in itself."""
    added = await world.endpoint(f"{receiver.base_url}/seen")
    for table, kept in (("endpoints", "kept"), ("audit_log", "log"), ("audit_heads", "heads"), ("secret_records", "r")):
        await world.pool.execute(f"CREATE TABLE {kept} AS SELECT * FROM hookseal.{table}")  # noqa: S608 -- names of ours
    await world.rotate(added)
    async with world.worker() as worker:
        [first] = await world.publish()
        seen = await world.state(first, "delivered")
        await world.pool.execute(PUT_BACK + REST_OF_THE_DATABASE)
        await eventually(lambda: later(world, seen["finished_at"]))
        [held] = await world.publish()
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert "this process knows 2" in waiting["last_error"]
        await audited(world, worker, added.pointer.endpoint_id)

        await accept(world)
        await world.state(held, "delivered")
    signed_with(receiver.received[1], secret_of(added))


@pytest.mark.req("SEC-14", part="append")
async def test_a_shortened_log_stops_no_delivery(world: World, receiver: Receiver) -> None:
    """If the last audit row of a tenant was removed, its secrets cannot be changed, but those it knows still sign."""
    added = await world.endpoint(f"{receiver.base_url}/on")
    new = await world.rotate(added)
    of = added.pointer
    await world.installation.act(
        update_endpoint, of.tenant_id, of.endpoint_id, {"max_attempts": 3}, own_drain_seconds=25
    )
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence = 3")
    with pytest.raises(Refused, match="does not end where its head says"):
        await world.rotate(added)
    async with world.worker():
        await world.deliver()
    signed_with(receiver.received[0], secret_of(new))


async def later(world: World, moment: Any) -> bool | None:
    """Return whether claims made now are later than that moment by more than the tolerance."""
    return bool(await world.pool.fetchval("SELECT now() > $1::timestamptz + interval '2 s'", moment)) or None


@pytest.mark.parametrize(
    ("alteration", "message"),
    [
        ("SET state = 'retired'", "is retired and its endpoint has it as active"),
        ("SET state = 'previous'", "is previous and its endpoint has it as active"),
    ],
)
async def test_a_stale_record_is_not_used_until_accepted(
    alteration: str, message: str, world: World, receiver: Receiver
) -> None:
    """A record in another state than its endpoint needs is not used until the restore is accepted."""
    added = await world.endpoint(f"{receiver.base_url}/old")
    await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    await world.pool.execute(f"UPDATE hookseal.secret_records {alteration} WHERE tenant_id = 'acme'")
    async with world.worker() as worker:
        [held], [sent] = [await world.publish(tenant) for tenant in ("acme", "bmce")]
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert message in waiting["last_error"]
        await world.state(sent, "delivered")
        await audited(world, worker, added.pointer.endpoint_id)

        accepted = await world.installation.act(accept_restore, ())
        assert ["record"] == [one.kind for one in accepted.endpoints]
        await world.state(held, "delivered")


async def test_the_deliveries_of_a_removed_row_wait(world: World, receiver: Receiver) -> None:
    """Deliveries of an endpoint whose row was removed by hand wait, and are delivered when the row is back."""
    added = await world.endpoint(f"{receiver.base_url}/lost")
    await world.pool.execute(_KEEP.format(table="endpoints"))
    [held] = await world.publish(rung=False)
    await world.pool.execute("DELETE FROM hookseal.endpoints")
    async with world.worker():
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert "nobody deleted it through hookseal" in waiting["last_error"]
        columns = await world.pool.fetchval(
            "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'hookseal.endpoints'::regclass"
            " AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
        )
        await world.pool.execute(
            f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept"  # noqa: S608 -- columns of ours
        )
        await world.probe_held()
        await world.state(held, "delivered")
    signed_with(receiver.received[0], secret_of(added))


async def test_an_accepted_loss_cancels_the_deliveries(world: World) -> None:
    """When a restore without the endpoint is accepted, its deliveries are cancelled, and its deletion is audited."""
    added = await world.endpoint("http://127.0.0.1:9/lost")
    [held] = await world.publish(rung=False)
    await world.pool.execute("DELETE FROM hookseal.endpoints")
    async with world.pool.acquire() as connection:
        operator = world.installation.operator(connection)
        accepted = await accept_restore(operator, ())
        again = await accept_restore(operator, ())

    assert [("lost", None, 1)] == [(one.kind, one.generation, one.audited_generation) for one in accepted.endpoints]
    assert [] == [*again.endpoints]
    assert "cancelled" == (await world.installation.delivery(held))["state"]
    assert ["endpoint.added", "endpoint.deleted"] == [
        row["action"]
        for row in await world.pool.fetch(
            "SELECT action FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence", TenantId("acme")
        )
    ]
    assert ["retired"] == [
        row["state"]
        for row in await world.pool.fetch(
            "SELECT state FROM hookseal.secret_records WHERE name LIKE '%' || $1", added.pointer.endpoint_id
        )
    ]


# A whole database, epochs included, that is restored under a running worker, which detects it by what it saw.


_KEPT = {"endpoints": "kept", "audit_log": "log", "audit_heads": "heads", "secret_records": "r"}
_ALL_OF_IT = f"{PUT_BACK}{REST_OF_THE_DATABASE}; UPDATE hookseal.control SET epoch = 0"  # noqa: S608 -- ours


async def accept(world: World) -> None:
    await world.installation.act(accept_restore, ())


async def backed_up(world: World, receiver: Receiver) -> AddedEndpoint:
    added = await world.endpoint(f"{receiver.base_url}/seen")
    for table, kept in _KEPT.items():
        await world.pool.execute(f"CREATE TABLE {kept} AS SELECT * FROM hookseal.{table}")  # noqa: S608 -- names of ours
    return added


async def put_back(world: World, receiver: Receiver) -> None:
    """Deliver once, so that the worker has seen everything, and restore every table."""
    [first] = await world.publish()
    seen = await world.state(first, "delivered")
    await world.pool.execute(_ALL_OF_IT)
    await eventually(lambda: later(world, seen["finished_at"]))


async def test_a_database_from_before_an_accepted_restore_is_detected(world: World, receiver: Receiver) -> None:
    """A database from before an accepted restore is detected, and accepting it takes effect at once."""
    added = await backed_up(world, receiver)
    await accept(world)
    await world.rotate(added)
    async with world.worker():
        await put_back(world, receiver)
        [held] = await world.publish()
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert "before a restore that this process knows was accepted" in waiting["last_error"]
        await accept(world)
        await world.state(held, "delivered")
    signed_with(receiver.received[1], secret_of(added))


async def test_a_reused_version_number_replaces_the_cached_secret(world: World, receiver: Receiver) -> None:
    """A version made after the restore replaces the lost one of the same number that the worker has cached."""
    added = await backed_up(world, receiver)
    lost = await world.rotate(added)
    async with world.worker():
        await world.pool.execute("UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'")
        await put_back(world, receiver)
        await accept(world)
        new = await world.rotate(added)
        assert lost.secret_ref == new.secret_ref
        await world.deliver()
    signed_with(receiver.received[1], secret_of(new))
