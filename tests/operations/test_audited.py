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
from hookseal.operations import (
    caches,
    canary,
    endpoint_state,
    endpoint_update,
    endpoints,
    findings,
    integrity,
    keys,
    producers,
    purge,
    replay,
    restore,
    reveal,
    rotation,
    scheduled,
)
from hookseal.operations.findings import Finding
from hookseal.operations.operator import Operator
from hookseal.secrets import schedule
from hookseal.secrets.boot import unlock
from hookseal.secrets.ref import Provider
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.clock import FakeClock
from tests.doubles.logins import login
from tests.doubles.stored import Installation, keyring
from tests.doubles.transport import ScriptedTransport

ACME = TenantId("acme")
NEW = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
ONLY_READ = {"require_drainable", "completed", "bound", "purgeable"}
MADE_OF_OTHERS = {"retire_run_out", "accept_endpoint"}
DUE = """
UPDATE hookseal.endpoints SET rotate_every_days = 1, secret_updated_at = now() - interval '30 d' WHERE url LIKE '%hook'
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
        and name not in ONLY_READ | MADE_OF_OTHERS
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
        (Action.SECRET_REVEALED, reveal.reveal, lambda by: reveal.reveal(by, ACME, endpoint)),
        (Action.SECRET_ROTATION_ANNOUNCED, scheduled.take_turn, lambda by: due(by, endpoint)),
        (Action.SECRET_DESTROYED, purge.purge_batch, purged),
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
        (Action.ENDPOINT_DELETED, delete, lambda by: delete(by, ACME, endpoint)),
    ]


async def added(operator: Operator, endpoint: NewEndpoint) -> endpoints.AddedEndpoint:
    """Add an endpoint with a fresh secret."""
    return await endpoints.add_endpoint(operator, endpoint, None, own_drain_seconds=25)


async def probed(operator: Operator, endpoint: EndpointId) -> object:
    """Ask a receiver that takes everything."""
    taken = Reply(status=204, snippet="")
    transport = ScriptedTransport(taken, taken)
    sending = canary.Sending(transport=transport, clock=FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await canary.probe(operator, sending, tenant=ACME, endpoint_id=endpoint)


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
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, keyring()))
        operator = installation.operator(connection)
        first = await added(operator, NEW)
        delivery = await dead(installation)
        told = await actions(pool)
        for action, function, call in steps(first.pointer.endpoint_id, delivery, role):
            await call(operator)
            told.append(action)
            done.append((action, function))
            assert told == await actions(pool)

    assert {action for action, _ in done} == set(Action)
    assert {f"{function.__module__}.{function.__name__}" for _, function in done} == operations()
