"""Every operation that changes something tells the audit log, and every action of the log is some operation's."""

import importlib
import inspect
import os
import pkgutil
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

import hookseal.operations
from hookseal.audit.entry import Action
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Attempt, Outcome, Reply, State, Verdict
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.wire import Scheme
from hookseal.operations import (
    caches,
    canary,
    compromise,
    denials,
    endpoint_import,
    endpoint_ping,
    endpoint_state,
    endpoint_update,
    endpoints,
    findings,
    integrity,
    keys,
    migration,
    producers,
    purge,
    replay,
    restore,
    reveal,
    rewrap,
    rotation,
    scheduled,
)
from hookseal.operations.denials import Denied
from hookseal.operations.findings import Finding
from hookseal.operations.operator import Operator
from hookseal.secrets import schedule
from hookseal.secrets.boot import unlock
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.migration import Held, every
from hookseal.secrets.ref import Provider
from hookseal.secrets.rewrap import BEGINNING
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.clock import FakeClock
from tests.doubles.logins import login
from tests.doubles.stored import Installation, keyring
from tests.doubles.transport import ScriptedTransport
from tests.secrets.registered import register
from tests.secrets.samples import master_key

ACME = TenantId("acme")
NEW = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
ONLY_READ = {
    *("require_drainable", "completed", "bound", "purgeable", "foretell", "records_of", "misnamed", "require_usable"),
    "moved",
}
MADE_OF_OTHERS = {"retire_run_out", "accept_endpoint", "drill"}
PARTS = {"kept"}  # of an update, which tells
FIRST, SECOND, THIRD = keyring().sealing, master_key("second"), master_key("third")
RING = KeyRing(FIRST, (SECOND,))
DUE = """
UPDATE hookseal.endpoints SET rotate_every_days = 1, secret_updated_at = now() - interval '30 d' WHERE url LIKE '%hook'
"""
OLDER = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
VALUES ('acme', gen_random_uuid(), 'https://receiver.example/older', '{*}', 'older')
"""
RETIRED = "UPDATE hookseal.secret_records SET changed_at = now() - interval '99 d' WHERE state = 'retired'"
Step = tuple[Action, Callable[..., Awaitable[object]], Callable[[Operator], Awaitable[object]]]


def operations() -> set[str]:
    """Return the names of all that an operator may do, as the code of the room has them."""
    names = [module.name for module in pkgutil.iter_modules(hookseal.operations.__path__)]
    modules = [importlib.import_module(f"hookseal.operations.{name}") for name in names]
    return {
        f"{function.__module__}.{name}"
        for module in modules
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and name not in ONLY_READ | MADE_OF_OTHERS | PARTS
    }


def steps(endpoint: EndpointId, delivery: DeliveryId, role: str) -> list[Step]:
    """Return one call of each operation on an installation that has that endpoint, delivery and role, in order."""
    wanted = Wanted(
        tenant_id=ACME,
        endpoint_id=endpoint,
        overlap_seconds=60,
        secret=generate_signing_secret(),
        rotation_id="r1",
    )
    other = NewEndpoint(tenant_id=ACME, url="https://receiver.example/other", event_types=("*",))
    add, update, delete = endpoints.add_endpoint, endpoint_update.update_endpoint, endpoints.delete_endpoint
    enable, disable = endpoint_state.enable_endpoint, endpoint_state.disable_endpoint
    back, end, again = rotation.roll_back, rotation.end_overlap, replay.replay_delivery
    found = Finding(tenant_id=ACME, endpoint_id=endpoint, generation=1, reason="it is old", restore_epoch=1)
    now = FakeClock().now()
    denied = Denied(
        tenant_id=ACME,
        worker="w1",
        since=now,
        until=now,
        counts={"secret_denied": 3},
        endpoints=(),
        endpoints_are_all=True,
    )
    drain = 25
    return [
        (Action.ENDPOINT_ADDED, add, lambda by: added(by, other)),
        (Action.DELIVERY_REPLAYED, again, lambda by: again(by, delivery, new_id=False)),
        (
            Action.ENDPOINT_UPDATED,
            update,
            lambda by: update(by, ACME, endpoint, {"name": "billing"}, own_drain_seconds=drain),
        ),
        (Action.ENDPOINT_DISABLED, disable, lambda by: disable(by, ACME, endpoint, reason="it moves")),
        (Action.ENDPOINT_ENABLED, enable, lambda by: enable(by, ACME, endpoint, own_drain_seconds=drain)),
        (Action.SECRET_ROTATED, rotation.rotate, lambda by: rotation.rotate(by, wanted)),
        (Action.SECRET_REVEALED, rotation.rotate, lambda by: rotation.rotate(by, wanted)),
        (Action.SECRET_ROLLED_BACK, back, lambda by: back(by, tenant=ACME, endpoint_id=endpoint, overlap_seconds=60)),
        (Action.SECRET_OVERLAP_ENDED, end, lambda by: end(by, tenant=ACME, endpoint_id=endpoint)),
        (Action.ENDPOINT_PROBED, canary.probe, lambda by: probed(by, endpoint)),
        (Action.ENDPOINT_TESTED, endpoint_ping.ping, lambda by: pinged(by, endpoint)),
        (Action.SECRET_REVEALED, reveal.reveal, lambda by: reveal.reveal(by, ACME, endpoint)),
        (Action.SECRET_ROTATION_ANNOUNCED, scheduled.take_turn, lambda by: due(by, endpoint)),
        (Action.SECRET_DESTROYED, purge.purge_batch, purged),
        (Action.SECRET_DENIED, denials.tell_denied, lambda by: denials.tell_denied(by, denied, again=False)),
        (Action.ROLLBACK_FOUND, findings.tell_put_back, lambda by: findings.tell_put_back(by, found)),
        (Action.RESTORE_ACCEPTED, restore.accept_restore, lambda by: restore.accept_restore(by, ())),
        (
            Action.INTEGRITY_ROTATED,
            integrity.rotate_integrity_key,
            lambda by: integrity.rotate_integrity_key(by, os.urandom),
        ),
        (Action.PRODUCER_GRANTED, producers.grant, lambda by: producers.grant(by, role, ACME)),
        (Action.PRODUCER_REVOKED, producers.revoke, lambda by: producers.revoke(by, role, ACME)),
        (Action.CACHE_CLEARED, caches.clear_caches, caches.clear_caches),
        (Action.KEY_STAGED, keys.stage_key, lambda by: keys.stage_key(by, THIRD)),
        (Action.KEY_PROMOTED, keys.promote_key, lambda by: keys.promote_key(by, SECOND.key_id)),
        (
            Action.KEY_REWRAPPED,
            rewrap.rewrap_batch,
            lambda by: rewrap.rewrap_batch(by, FIRST.key_id, BEGINNING, wait=True),
        ),
        (Action.KEY_DRAINED, rewrap.finish_rewrap, lambda by: rewrap.finish_rewrap(by, FIRST.key_id)),
        (Action.KEY_COMPROMISED, compromise.mark_compromised, lambda by: compromise.mark_compromised(by, FIRST.key_id)),
        (Action.KEY_RETIRED, keys.retire_key, lambda by: keys.retire_key(by, THIRD.key_id)),
        (Action.KEY_DESTROYED, keys.destroy_key, lambda by: keys.destroy_key(by, THIRD.key_id)),
        (Action.ENDPOINT_ADDED, endpoint_import.import_endpoint, imported),
        (Action.SECRET_MIGRATED, migration.migrate_endpoint, migrated),
        (Action.PLAINTEXT_EMPTIED, migration.empty_batch, emptied),
        (
            Action.PLAINTEXT_FORBIDDEN,
            migration.forbid_plaintext,
            lambda by: migration.forbid_plaintext(by, emptied=1),
        ),
        (Action.ENDPOINT_DELETED, delete, lambda by: delete(by, ACME, endpoint)),
    ]


async def added(operator: Operator, endpoint: NewEndpoint) -> endpoints.AddedEndpoint:
    """Add an endpoint with a fresh secret."""
    return await endpoints.add_endpoint(operator, endpoint, None, own_drain_seconds=25)


async def imported(operator: Operator) -> object:
    """Import an endpoint of an older system."""
    endpoint = NewEndpoint(
        tenant_id=ACME, url="https://receiver.example/imported", event_types=("*",), scheme=Scheme.X_WEBHOOK
    )
    secret = SecretMaterial(b"short")
    return await endpoint_import.import_endpoint(operator, endpoint, secret, own_drain_seconds=25)


async def migrated(operator: Operator) -> object:
    """Migrate an endpoint of an older system."""
    return await migration.migrate_endpoint(operator, await older(operator))


async def emptied(operator: Operator) -> object:
    """Empty the column of that endpoint."""
    return await migration.empty_batch(operator, [await older(operator)])


async def older(operator: Operator) -> Held:
    """Return the endpoint of an older system."""
    [held] = [each async for each in every(operator.connection)]
    return held


async def probed(operator: Operator, endpoint: EndpointId) -> object:
    """Ask a receiver that takes everything."""
    taken = Reply(status=204, snippet="")
    transport = ScriptedTransport(taken, taken)
    sending = canary.Sending(transport=transport, clock=FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await canary.probe(operator, sending, tenant=ACME, endpoint_id=endpoint)


async def pinged(operator: Operator, endpoint: EndpointId) -> object:
    """Test an endpoint that takes everything."""
    transport = ScriptedTransport(Reply(status=204, snippet=""))
    how = endpoint_ping.Observation(transport=transport, clock=FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await endpoint_ping.ping(operator, how, tenant=ACME, endpoint_id=endpoint)


async def due(operator: Operator, endpoint: EndpointId) -> object:
    """Take the turn of an endpoint whose secret is older than it may be."""
    await operator.connection.execute(DUE)
    turn = await schedule.of_endpoint(operator.connection, ACME, endpoint)
    assert turn is not None
    return await scheduled.take_turn(operator, turn, overlap_seconds=86_400)


async def purged(operator: Operator) -> object:
    """Destroy the one version that was retired, long ago."""
    await operator.connection.execute(RETIRED)
    return await purge.purge_batch(operator, ACME, days=90)


async def actions(pool: "asyncpg.Pool[asyncpg.Record]") -> list[str]:
    """Return every action on record, oldest first, each by the operator of these tests."""
    rows = await pool.fetch("SELECT action, actor FROM hookseal.audit_log ORDER BY at, tenant_id, sequence")
    assert {"ada@desk"} == {row["actor"].partition("/")[2] for row in rows}
    return [row["action"] for row in rows]


async def dead(installation: Installation) -> DeliveryId:
    """Return a delivery that became a dead letter."""
    [ring] = await installation.deliveries()
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    claim = await ledger.claim(ring)
    assert claim is not None
    failed = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
    assert await ledger.record(claim, failed, Verdict(state=State.DEAD_LETTER), "server_error")
    return ring.delivery_id


@pytest.mark.req("OPS-10")
async def test_each_is_told_once(pool: "asyncpg.Pool[asyncpg.Record]", database_url: str) -> None:
    """Whatever an operator may do writes one row with its action and who did it; no action is left that none writes."""
    async with pool.acquire() as connection, login(pool, database_url) as (role, _):
        await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        done: list[tuple[str, Callable[..., Awaitable[object]]]] = [(Action.KEY_INITIALISED, keys.begin)]
        assert [name for name, _ in done] == await actions(pool)
        await register(pool, SECOND, "staged")
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, RING))
        operator = installation.operator(connection)
        first = await added(operator, NEW)
        delivery = await dead(installation)
        await pool.execute(OLDER)
        told = await actions(pool)
        for action, function, call in steps(first.pointer.endpoint_id, delivery, role):
            await call(operator)
            told.append(action)
            done.append((action, function))
            assert told == await actions(pool)

    assert {action for action, _ in done} == set(Action)
    assert {f"{function.__module__}.{function.__name__}" for _, function in done} == operations()
