"""Every operation that changes something is audited, and every action of the log belongs to an operation."""

import importlib
import inspect
import os
import pkgutil
from collections.abc import Awaitable, Callable

import pytest

import hookseal.operations
from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Attempt, Outcome, Reply, State, Verdict
from hookseal.dispatcher.core.replay_job import Selection
from hookseal.dispatcher.store import replays
from hookseal.dispatcher.store.endpoint_health import Failing
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.tenants import NewTenant
from hookseal.dispatcher.store.tokens import NewPortal, NewToken, Scope
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.wire import Scheme
from hookseal.operations import (
    deliveries,
    event_types,
    import_endpoints,
    migrate_secrets,
    move_secrets,
    producers,
    replay,
    restore,
    tenants,
    tokens,
)
from hookseal.operations import secret as secret_operations
from hookseal.operations.audit_reports import Denied, Stale, audit_denied, audit_stale
from hookseal.operations.endpoint import endpoints, probe, rotation
from hookseal.operations.endpoint import rotation as endpoint_schedule
from hookseal.operations.endpoint import update as endpoint_update
from hookseal.operations.key import keys
from hookseal.operations.operator import Operator
from hookseal.operations.sending import Sending
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.key.rewrap import BEGINNING
from hookseal.secrets.migrate_secrets import PlaintextEndpoint, iterate
from tests import rows
from tests.doubles.clock import FakeClock
from tests.doubles.logins import login
from tests.doubles.providers import google_outside
from tests.doubles.stored import Installation, keyring
from tests.doubles.transport import ScriptedTransport
from tests.secrets.samples import master_key, register

ACME = TenantId("acme")
PAID = CataloguedType(name="invoice.paid", description="", schemas=None, deprecated=False, archived=False)
TOKEN = NewToken(name="t", tenant_id=ACME, scopes=(Scope.READ,), expires_at=None, digest=bytes(32))
PORTAL = NewPortal(
    tenant_id=ACME,
    scopes=(Scope.READ,),
    seconds=60,
    not_after=None,
    user=None,
    session_id=None,
    refresh_url=None,
    digest=b"p" * 32,
    code_digest=b"c" * 32,
)
NEW = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
# The rows of single tokens that an operation writes before its own: of a code, and of each portal token that ends.
BEFORE = {
    Action.PORTAL_OPENED: (Action.PORTAL_CODE_SPENT,),
    Action.PORTALS_EXPIRED: (Action.TOKEN_REVOKED, Action.TOKEN_REVOKED),
}
ONLY_READ = {
    *(
        "require_drainable",
        "wait_until_complete",
        "limit_transaction",
        "purgeable",
        "preview",
        "records_of",
        "altered",
        "require_usable",
        "page",
        "unwrapped",
        "require_movable",
        "rotation_state",
        "versions",
        "public_keys",
        "remove_leftovers",  # only what was audited when it was destroyed, or never was in use
    )
}
COMPOSED = {
    *("retire_ended_overlap", "accept_endpoint", "drill", "enable_and_replay", "end_if_switched", "set_enabled"),
    *("side_by_side", "import_rows", "migrate_all", "move_all"),
    *(
        "audit_ends",
        "publish_key",
    ),  # steps of audited operations: the end of a token, and a version of the integrity key
}
FIRST, SECOND, THIRD = keyring().sealing, master_key("second"), master_key("third")
RING = KeyRing(FIRST, (SECOND,))
DUE = """
UPDATE hookseal.endpoints SET rotate_every_days = 1, secret_updated_at = now() - interval '30 d' WHERE url LIKE '%hook'
"""
OLDER = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
VALUES ('acme', gen_random_uuid(), 'https://receiver.example/older', '{*}', 'older')
"""
FAILING = """
UPDATE hookseal.endpoints SET first_failure_at = now() - interval '6 d', last_failure_at = now()
WHERE id = $1::text::uuid
"""
HELD = """
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for) VALUES ('acme', $1::text::uuid, 'breaker')
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET waiting_for = 'breaker', released_at = NULL
"""
RETIRED = "UPDATE hookseal.secret_records SET changed_at = now() - interval '99 d' WHERE state = 'retired'"
Step = tuple[Action, Callable[..., Awaitable[object]], Callable[[Operator], Awaitable[object]]]


def operations() -> set[str]:
    """Return the names of all operations of an operator, as found in the source."""
    found = pkgutil.walk_packages(hookseal.operations.__path__, "hookseal.operations.")
    modules = [importlib.import_module(module.name) for module in found]
    return {
        f"{function.__module__}.{name}"
        for module in modules
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__ and not name.startswith("_") and name not in ONLY_READ | COMPOSED
    }


def steps(endpoint: EndpointId, delivery: DeliveryId, role: str) -> list[Step]:
    """Return one call of each operation, in order, on an installation with that endpoint, delivery and role."""
    request = RotationRequest(
        tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=60, secret=generate_signing_secret(), rotation_id="r1"
    )
    other = NewEndpoint(tenant_id=ACME, url="https://receiver.example/other", event_types=("*",))
    add, update, delete = endpoints.add_endpoint, endpoint_update.update_endpoint, endpoints.delete_endpoint
    enable, disable = endpoints.enable_endpoint, endpoints.disable_endpoint
    back, end, again = rotation.roll_back, rotation.end_overlap, replay.replay_delivery
    found = Stale(tenant_id=ACME, endpoint_id=endpoint, generation=1, reason="it is old", restore_epoch=1)
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
        (Action.EXAMPLE_SENT, replay.send_example, lambda by: replay.send_example(by, ACME, endpoint, "a.b", "1")),
        (Action.DELIVERY_REPLAYED, replay.resend_delivery, lambda by: resent(by, endpoint, delivery)),
        (Action.ENDPOINT_RETRIED, replay.retry, lambda by: retried(by, endpoint, delivery)),
        (Action.DELIVERY_SKIPPED, replay.skip_delivery, lambda by: skipped(by, delivery)),
        (Action.REPLAY_STARTED, replay.start_replay, started_job),
        (Action.REPLAY_ENDED, replay.take_step, stepped),
        (Action.REPLAY_STARTED, replay.start_replay, started_job),
        (Action.REPLAY_CANCELLED, replay.cancel_replay, cancelled),
        (Action.PAYLOAD_READ, deliveries.read_payload, payload_read),
        (Action.PAYLOAD_READ, deliveries.read_payloads, payloads_read),
        (
            Action.ENDPOINT_UPDATED,
            update,
            lambda by: update(by, ACME, endpoint, {"name": "billing"}, own_drain_seconds=drain),
        ),
        (Action.ENDPOINT_DISABLED, disable, lambda by: disable(by, ACME, endpoint, reason="it moves")),
        (Action.ENDPOINT_ENABLED, enable, lambda by: enable(by, ACME, endpoint, own_drain_seconds=drain)),
        (Action.ENDPOINT_PROBE_REQUESTED, enable, lambda by: probe_requested(by, endpoint)),
        (Action.ENDPOINT_DISABLED, endpoints.disable_failing_endpoint, lambda by: failed_for_days(by, endpoint)),
        (Action.ENDPOINT_ENABLED, enable, lambda by: enable(by, ACME, endpoint, own_drain_seconds=drain)),
        (
            Action.ENDPOINT_DISABLED,
            endpoints.audit_gone,
            lambda by: endpoints.audit_gone(by, ACME, endpoint, "the receiver answered 410"),
        ),
        (Action.SECRET_ROTATED, rotation.rotate_secret, lambda by: rotation.rotate_secret(by, request)),
        (Action.SECRET_REVEALED, rotation.rotate_secret, lambda by: rotation.rotate_secret(by, request)),
        (Action.SECRET_ROLLED_BACK, back, lambda by: back(by, tenant=ACME, endpoint_id=endpoint, overlap_seconds=60)),
        (Action.SECRET_OVERLAP_ENDED, end, lambda by: end(by, tenant=ACME, endpoint_id=endpoint)),
        (Action.ENDPOINT_PROBED, probe.ask_whether_switched, lambda by: probed(by, endpoint)),
        (Action.ENDPOINT_TESTED, probe.send_ping, lambda by: pinged(by, endpoint)),
        (Action.SECRET_REVEALED, secret_operations.reveal, lambda by: secret_operations.reveal(by, ACME, endpoint)),
        (Action.SECRET_ROTATION_ANNOUNCED, endpoint_schedule.take_turn, lambda by: due(by, endpoint)),
        (Action.SECRET_DESTROYED, secret_operations.purge_batch, purged),
        (Action.SECRET_DENIED, audit_denied, lambda by: audit_denied(by, denied, again=False)),
        (Action.STALE_FOUND, audit_stale, lambda by: audit_stale(by, found)),
        (Action.RESTORE_ACCEPTED, restore.accept_restore, lambda by: restore.accept_restore(by, ())),
        (Action.INTEGRITY_ROTATED, keys.rotate_integrity_key, lambda by: keys.rotate_integrity_key(by, os.urandom)),
        (Action.PRODUCER_GRANTED, producers.grant, lambda by: producers.grant(by, role, ACME)),
        (Action.PRODUCER_REVOKED, producers.revoke, lambda by: producers.revoke(by, role, ACME)),
        (Action.EVENT_TYPE_ADDED, event_types.add_event_type, lambda by: event_types.add_event_type(by, PAID)),
        (
            Action.EVENT_TYPE_UPDATED,
            event_types.update_event_type,
            lambda by: event_types.update_event_type(by, PAID.name, {"archived": True}),
        ),
        (Action.TENANT_ADDED, tenants.add_tenant, tenant_added),
        (Action.TENANT_UPDATED, tenants.update_tenant, lambda by: tenants.update_tenant(by, ACME, {"name": "Acme"})),
        (Action.TOKEN_ADDED, tokens.add_token, lambda by: tokens.add_token(by, TOKEN)),
        (Action.TOKEN_REVOKED, tokens.revoke_token, lambda by: tokens.revoke_token(by, TOKEN.name)),
        (Action.PORTAL_ADDED, tokens.add_portal, lambda by: tokens.add_portal(by, PORTAL)),
        (
            Action.PORTAL_OPENED,
            tokens.exchange_code,
            lambda by: tokens.exchange_code(by, code=PORTAL.code_digest, token=b"s" * 32),
        ),
        (
            Action.PORTALS_EXPIRED,
            tokens.expire_portals,
            lambda by: tokens.expire_portals(by, ACME, seconds=0, session_ids=()),
        ),
        (Action.CACHE_CLEARED, secret_operations.clear_caches, secret_operations.clear_caches),
        (Action.KEY_STAGED, keys.stage_key, lambda by: keys.stage_key(by, THIRD)),
        (Action.KEY_PROMOTED, keys.promote_key, lambda by: keys.promote_key(by, SECOND.key_id)),
        (
            Action.KEY_REWRAPPED,
            keys.rewrap_batch,
            lambda by: keys.rewrap_batch(by, FIRST.key_id, BEGINNING, wait=True),
        ),
        (Action.KEY_DRAINED, keys.finish_rewrap, lambda by: keys.finish_rewrap(by, FIRST.key_id)),
        (Action.KEY_COMPROMISED, keys.mark_compromised, lambda by: keys.mark_compromised(by, FIRST.key_id)),
        (Action.KEY_RETIRED, keys.retire_key, lambda by: keys.retire_key(by, THIRD.key_id)),
        (Action.KEY_DESTROYED, keys.destroy_key, lambda by: keys.destroy_key(by, THIRD.key_id)),
        (Action.ENDPOINT_ADDED, import_endpoints.import_endpoint, imported),
        (Action.SECRET_MIGRATED, migrate_secrets.migrate_endpoint, migrated),
        (Action.PLAINTEXT_EMPTIED, migrate_secrets.empty_batch, emptied),
        (
            Action.PLAINTEXT_FORBIDDEN,
            migrate_secrets.forbid_plaintext,
            lambda by: migrate_secrets.forbid_plaintext(by, emptied=1),
        ),
        (
            Action.SECRET_MOVED,
            move_secrets.move_endpoint,
            lambda by: move_secrets.move_endpoint(by, ACME, endpoint, Provider.GCP),
        ),
        (Action.SECRET_MOVED, move_secrets.move_own, lambda by: move_secrets.move_own(by, Provider.GCP)),
        (Action.ENDPOINT_DELETED, delete, lambda by: delete(by, ACME, endpoint)),
        (Action.TENANT_DELETED, tenants.delete_tenant, tenant_deleted),
    ]


async def added(operator: Operator, endpoint: NewEndpoint) -> endpoints.AddedEndpoint:
    """Add an endpoint with a new secret."""
    return await endpoints.add_endpoint(operator, endpoint, None, own_drain_seconds=25)


async def imported(operator: Operator) -> object:
    """Import an endpoint of an older system."""
    endpoint = NewEndpoint(
        tenant_id=ACME, url="https://receiver.example/imported", event_types=("*",), scheme=Scheme.X_WEBHOOK
    )
    secret = SecretMaterial(b"short")
    return await import_endpoints.import_endpoint(operator, endpoint, secret, own_drain_seconds=25)


async def migrated(operator: Operator) -> object:
    """Migrate an endpoint of an older system."""
    return await migrate_secrets.migrate_endpoint(operator, await older(operator))


async def emptied(operator: Operator) -> object:
    """Empty the column of that endpoint."""
    return await migrate_secrets.empty_batch(operator, [await older(operator)])


async def older(operator: Operator) -> PlaintextEndpoint:
    """Return the endpoint of an older system."""
    [held] = [each async for each in iterate(operator.connection)]
    return held


async def failed_for_days(operator: Operator, endpoint: EndpointId) -> object:
    """Disable an endpoint that has only failed for six days."""
    async with operator.changing() as connection:  # if there is no audit row, the endpoint is not failing either
        await connection.execute(FAILING, endpoint)
        failing = Failing(tenant_id=ACME, endpoint_id=endpoint, first_failure_at=FakeClock().now())
        return await endpoints.disable_failing_endpoint(operator, failing, after_seconds=432_000)


async def probe_requested(operator: Operator, endpoint: EndpointId) -> object:
    """Enable an endpoint that is enabled and held."""
    async with operator.changing() as connection:  # if there is no audit row, the endpoint is not held either
        await connection.execute(HELD, endpoint)
        return await endpoints.enable_endpoint(operator, ACME, endpoint, own_drain_seconds=25)


async def probed(operator: Operator, endpoint: EndpointId) -> object:
    """Probe a receiver that accepts everything."""
    taken = Reply(status=204, snippet="")
    transport = ScriptedTransport(taken, taken)
    sending = Sending(transport=transport, clock=FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await probe.ask_whether_switched(operator, sending, tenant=ACME, endpoint_id=endpoint)


async def pinged(operator: Operator, endpoint: EndpointId) -> object:
    """Test an endpoint whose receiver accepts everything."""
    transport = ScriptedTransport(Reply(status=204, snippet=""))
    how = Sending(transport=transport, clock=FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await probe.send_ping(operator, how, tenant=ACME, endpoint_id=endpoint)


async def started_job(operator: Operator) -> object:
    """Start a replay job for what was replayed before."""
    async with operator.connection.transaction():  # so that a job that is refused leaves the delivery unchanged
        await operator.connection.execute(
            "UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL"
        )
        return await replay.start_replay(operator, Selection(tenant_id=ACME))


async def tenant_added(operator: Operator) -> object:
    """Add the tenant, as if it were not known from an endpoint."""
    async with operator.connection.transaction():  # the same
        await operator.connection.execute("DELETE FROM hookseal.tenants")
        return await tenants.add_tenant(operator, NewTenant(tenant_id=ACME, uid=None, name=None, metadata={}))


async def tenant_deleted(operator: Operator) -> object:
    """Delete the tenant, as if it had no endpoint, whose deletion has a row of its own."""
    async with operator.connection.transaction():  # the same
        await operator.connection.execute("DELETE FROM hookseal.endpoints")
        return await tenants.delete_tenant(operator, ACME)


async def skipped(operator: Operator, delivery: DeliveryId) -> object:
    """Skip the delivery as if it stopped an ordered endpoint."""
    async with operator.connection.transaction():  # the same
        await operator.connection.execute(
            "UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL;"
            "UPDATE hookseal.deliveries SET position = 1"
        )
        return await replay.skip_delivery(operator, delivery)


async def stepped(operator: Operator) -> object:
    """Take the only step of that job."""
    async with operator.connection.transaction():  # the same
        await operator.connection.execute("UPDATE hookseal.replays SET paid_until = now() - interval '1 s'")
        [job] = await replays.running(operator.connection, at_most=2)
        return await replay.take_step(operator, job)


async def cancelled(operator: Operator) -> object:
    [job] = await replays.running(operator.connection, at_most=2)
    return await replay.cancel_replay(operator, job.replay_id)


async def payload_read(operator: Operator) -> object:
    event = await operator.connection.fetchval("SELECT min(id) FROM hookseal.events")
    return await deliveries.read_payload(operator, ACME, event)


async def payloads_read(operator: Operator) -> object:
    event = await operator.connection.fetchval("SELECT min(id) FROM hookseal.events")
    return await deliveries.read_payloads(operator, ACME, [event], most_bytes=1)


async def resent(operator: Operator, endpoint: EndpointId, delivery: DeliveryId) -> object:
    """Resend the event of a delivery whose next attempt is due in an hour."""
    async with operator.changing() as connection:
        await rows.change(connection, "deliveries", delivery, next_attempt_at=rows.ahead(hours=1))
        event = await connection.fetchval(
            "SELECT event_id FROM hookseal.deliveries WHERE id = $1::text::uuid", delivery
        )
        return await replay.resend_delivery(operator, ACME, event, endpoint)


async def retried(operator: Operator, endpoint: EndpointId, delivery: DeliveryId) -> object:
    """Retry an endpoint with a delivery whose next attempt is due in an hour."""
    async with operator.changing() as connection:
        await rows.change(connection, "deliveries", delivery, next_attempt_at=rows.ahead(hours=1))
        return await replay.retry(operator, ACME, endpoint)


async def due(operator: Operator, endpoint: EndpointId) -> object:
    """Do the scheduled rotation of an endpoint that is overdue."""
    await operator.connection.execute(DUE)
    turn = await schedule.of_endpoint(operator.connection, ACME, endpoint)
    assert turn is not None
    return await endpoint_schedule.take_turn(operator, turn, overlap_seconds=86_400)


async def purged(operator: Operator) -> object:
    """Destroy the only version, which was retired long ago."""
    await operator.connection.execute(RETIRED)
    return await secret_operations.purge_batch(operator, ACME, days=90)


async def actions(pool: Pool) -> list[str]:
    """Return every audited action, oldest first; the actor must be the operator of these tests."""
    rows = await pool.fetch("SELECT action, actor FROM hookseal.audit_log ORDER BY at, tenant_id, sequence")
    assert {"ada@desk"} == {row["actor"].partition("/")[2] for row in rows}
    return [row["action"] for row in rows]


async def dead(installation: Installation) -> DeliveryId:
    [ring] = await installation.deliveries()
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    claim = await ledger.claim(ring)
    assert claim is not None
    failed = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
    assert await ledger.record(claim, failed, Verdict(state=State.DEAD_LETTER), "server_error")
    return ring.delivery_id


@pytest.mark.req("OPS-10")
async def test_every_operation_is_audited_once(pool: Pool, database_url: str) -> None:
    async with (
        pool.acquire() as connection,
        login(pool, database_url) as (role, _),
        google_outside(pool) as (_, outside),
    ):
        await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        done: list[tuple[str, Callable[..., Awaitable[object]]]] = [(Action.KEY_INITIALISED, keys.begin)]
        assert [name for name, _ in done] == await actions(pool)
        await register(pool, SECOND, "staged")
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, RING, outside=outside))
        operator = installation.operator(connection)
        first = await added(operator, NEW)
        delivery = await dead(installation)
        await pool.execute(OLDER)
        expected = await actions(pool)
        for action, function, call in steps(first.pointer.endpoint_id, delivery, role):
            await call(operator)
            of_it = (*BEFORE.get(action, ()), action)
            expected += of_it
            done += [(each, function) for each in of_it]
            assert expected == await actions(pool)

    assert {action for action, _ in done} == set(Action)
    assert {f"{function.__module__}.{function.__name__}" for _, function in done} == operations()
