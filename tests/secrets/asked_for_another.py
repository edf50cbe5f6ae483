"""Every function that reads or writes rows of a tenant, asked by one tenant for an endpoint that may be another's.

Each case is given the scene, the tenant that asks, and the endpoint that it asks for; it runs in a transaction that
is taken back. Where a function takes a pointer or a ref, it gets one that joins the tenant to what is the endpoint's.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.model import Reply
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import (
    canary,
    denials,
    endpoint_import,
    endpoint_ping,
    endpoint_state,
    endpoint_update,
    endpoints,
    findings,
    migration,
    producers,
    purge,
    restore,
    reveal,
)
from hookseal.operations import endpoint_tls as tls_moves
from hookseal.operations import rotation as rotations
from hookseal.operations import scheduled as turns
from hookseal.operations.operator import Operator
from hookseal.schema.database import Connection
from hookseal.secrets import (
    endpoint_headers,
    endpoint_tls,
    evidence,
    inventory,
    pointer,
    put_back,
    retention,
    rotation,
    schedule,
    versions,
)
from hookseal.secrets import migration as plaintexts
from hookseal.secrets.evidence import Evidence
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.migration import Held
from hookseal.secrets.put_back import PutBack, PutBackKind
from hookseal.secrets.ref import Provider, SecretRef, endpoint_headers_name, endpoint_secret_name, endpoint_tls_name
from hookseal.secrets.retention import Past, RunOut
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.schedule import Scheduled
from hookseal.secrets.signer import generate_signing_secret
from hookseal.secrets.store import SecretStore
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.doubles.transport import ScriptedTransport

AT = datetime(2026, 1, 2, tzinfo=UTC)
PLAINTEXT = SecretMaterial(b"plaintext of an older system")
HEADERS = {"x-own": SecretMaterial(b"value")}
TLS_CHANGE = endpoint_tls.TlsChange(without_client=True)
TLS = identity(Authority().client(), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks for what, on which connection. `pointer` is the endpoint's, with the tenant that asks as its owner.

    `url` is the endpoint's too, and `role` publishes for acme.
    """

    operator: Operator
    tenant: TenantId
    endpoint: EndpointId
    pointer: Pointer
    url: str
    role: str

    @property
    def connection(self) -> Connection:
        """The connection, in a transaction."""
        return self.operator.connection

    @property
    def store(self) -> SecretStore:
        """The store on that connection."""
        return self.operator.unlocked.store_on(self.connection)

    @property
    def signing(self) -> SecretRef:
        """The version of the signing secret that was the first, if the tenant had it."""
        return self._ref(endpoint_secret_name(self.endpoint))

    @property
    def headers(self) -> SecretRef:
        """The same of its header values."""
        return self._ref(endpoint_headers_name(self.endpoint))

    @property
    def tls(self) -> SecretRef:
        """The same of its TLS identity."""
        return self._ref(endpoint_tls_name(self.endpoint))

    @property
    def wanted(self) -> Wanted:
        """A rotation of its secret."""
        return Wanted(
            tenant_id=self.tenant,
            endpoint_id=self.endpoint,
            overlap_seconds=60,
            secret=generate_signing_secret(),
            rotation_id="r-2",
            force=True,
        )

    @property
    def scheduled(self) -> Scheduled:
        """A rotation by schedule that is long due."""
        return Scheduled(
            tenant_id=self.tenant,
            endpoint_id=self.endpoint,
            rotate_every_days=1,
            updated_at=AT,
            overlap_ends_at=None,
            announced_at=None,
            read_at=AT + timedelta(days=9),
        )

    @property
    def sending(self) -> canary.Sending:
        """How a canary reaches a receiver that has switched."""
        answers = (Reply(status=204, snippet=""), Reply(status=400, snippet=""))
        return canary.Sending(
            transport=ScriptedTransport(*answers), clock=FakeClock(), allow_http=True, user_agent="hookseal/test"
        )

    @property
    def observing(self) -> endpoint_ping.Observation:
        """How a ping reaches a receiver that takes it."""
        how = self.sending
        return endpoint_ping.Observation(
            transport=ScriptedTransport(Reply(status=204, snippet="")),
            clock=how.clock,
            allow_http=True,
            user_agent=how.user_agent,
        )

    def _ref(self, name: str) -> SecretRef:
        return SecretRef(provider=Provider.DB, tenant=self.tenant, name=name, version=1)


def proven(tenant: TenantId, endpoint: EndpointId, *, generation: int) -> Evidence:
    """Return what a canary proved of the endpoint."""
    return Evidence(
        id=DeliveryId(f"01890a5d-ac96-774b-bcce-b302099a800{generation}"),
        tenant_id=tenant,
        endpoint_id=endpoint,
        generation=generation,
        secret_ref="db:acme:x:1",
        verdict="switched",
        status=204,
        control_status=400,
        detail=None,
        sent_at=AT,
    )


Case = Callable[[Asked], Awaitable[Any]]


async def _put_back(asked: Asked) -> list[Any]:
    return [found async for found in put_back.found(asked.connection, asked.tenant)]


async def _altered(asked: Asked) -> list[Any]:
    integrity = asked.operator.unlocked.integrity
    return [found async for found in put_back.altered(asked.connection, integrity, asked.tenant)]


async def _every(asked: Asked) -> list[Any]:
    return [found async for found in pointer.every(asked.connection, asked.tenant)]


def _lost(asked: Asked) -> PutBack:
    return PutBack(
        tenant_id=asked.tenant,
        endpoint_id=asked.endpoint,
        kind=PutBackKind.LOST,
        generation=None,
        audited_generation=1,
    )


async def _completed(asked: Asked) -> None:
    await rotations.completed(
        asked.operator,
        tenant=asked.tenant,
        endpoint_id=asked.endpoint,
        generation=1,
        clock=FakeClock(),
        tell=lambda _left: None,
    )


def _held(asked: Asked) -> Held:
    return Held(asked.tenant, asked.endpoint)


def _older(asked: Asked) -> Pointer:
    """Return the pointer as an older system would have left it."""
    none: dict[str, Any] = dict.fromkeys(
        (
            "secret_ref",
            "previous_secret_ref",
            "previous_secret_expires_at",
            "headers_ref",
            "tls_ref",
            "mac",
            "audited_generation",
        )
    )
    return replace(asked.pointer, generation=0, **none)


def _change(asked: Asked) -> Change:
    subject = f"endpoint:{asked.endpoint}"
    return Change(tenant_id=asked.tenant, action=Action.SECRET_ROTATED, subject=subject, after={"generation": 99})


def _new(asked: Asked) -> NewEndpoint:
    return NewEndpoint(tenant_id=asked.tenant, url=asked.url, event_types=("*",))


def _finding(asked: Asked) -> findings.Finding:
    return findings.Finding(
        tenant_id=asked.tenant, endpoint_id=asked.endpoint, generation=1, reason="x", restore_epoch=1
    )


def _denied(asked: Asked) -> denials.Denied:
    return denials.Denied(
        tenant_id=asked.tenant,
        worker="w1",
        since=AT,
        until=AT,
        counts={"secret_denied": 1},
        endpoints=(asked.endpoint,),
        endpoints_are_all=True,
    )


def _doomed(asked: Asked) -> list[Past]:
    return [Past(ref=ref, key_id="0" * 16, retired_at=AT) for ref in (asked.signing, asked.headers, asked.tls)]


def _first(asked: Asked) -> pointer.First:
    return pointer.First(
        ref=asked.signing, scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC, headers=asked.headers, tls=asked.tls
    )


CASES: dict[str, Case] = {
    "secrets.endpoint_headers.keep": lambda a: endpoint_headers.keep(
        a.connection, a.store, tenant=a.tenant, endpoint_id=a.endpoint, headers=HEADERS
    ),
    "secrets.endpoint_headers.opened": lambda a: endpoint_headers.opened(a.store, a.pointer),
    "secrets.endpoint_headers.retire": lambda a: endpoint_headers.retire(
        a.connection, a.store, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "secrets.endpoint_tls.keep": lambda a: endpoint_tls.keep(
        a.connection, a.store, tenant=a.tenant, endpoint_id=a.endpoint, identity=TLS
    ),
    "secrets.endpoint_tls.opened": lambda a: endpoint_tls.opened(a.store, a.pointer),
    "secrets.endpoint_tls.retire": lambda a: endpoint_tls.retire(
        a.connection, a.store, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.endpoint_tls.moved": lambda a: tls_moves.moved(a.operator, a.pointer, TLS_CHANGE),
    "operations.endpoint_tls.kept": lambda a: tls_moves.kept(
        a.operator, a.pointer, tls_moves.TlsMove(before=TLS, after=TLS)
    ),
    "secrets.evidence.keep": lambda a: evidence.keep(a.connection, proven(a.tenant, a.endpoint, generation=1)),
    "secrets.evidence.last": lambda a: evidence.last(a.connection, a.tenant, a.endpoint, 2),
    "secrets.inventory.of_endpoint": lambda a: inventory.of_endpoint(a.connection, a.tenant, a.endpoint),
    "secrets.inventory.require_known": lambda a: inventory.require_known(a.connection, a.signing),
    "secrets.pointer.locked": lambda a: pointer.locked(a.connection, tenant=a.tenant, endpoint_id=a.endpoint),
    "secrets.pointer.first": lambda a: pointer.first(
        a.connection, a.operator.unlocked.integrity, tenant=a.tenant, endpoint_id=a.endpoint, to=_first(a)
    ),
    "secrets.pointer.moved": lambda a: pointer.moved(
        a.connection, a.operator.unlocked.integrity, a.pointer, lead="current"
    ),
    "secrets.put_back.accept": lambda a: put_back.accept(a.connection, a.operator.unlocked.integrity, a.pointer),
    "secrets.put_back.found": _put_back,
    "secrets.put_back.altered": _altered,
    "secrets.put_back.is_lost": lambda a: put_back.is_lost(a.connection, _lost(a)),
    "secrets.put_back.is_deleted": lambda a: put_back.is_deleted(a.connection, _lost(a)),
    "secrets.put_back.destroy_again": lambda a: put_back.destroy_again(a.connection, _lost(a)),
    "secrets.put_back.gone": lambda a: put_back.gone(a.connection, a.tenant, a.endpoint),
    "secrets.pointer.every": _every,
    "operations.restore.accept_endpoint": lambda a: restore.accept_endpoint(a.operator, a.tenant, a.endpoint),
    "secrets.retention.find": lambda a: retention.find(a.connection, a.tenant, days=0),
    "secrets.retention.destroy": lambda a: retention.destroy(a.connection, a.tenant, _doomed(a)),
    "secrets.rotation.rotate": lambda a: rotation.rotate(
        a.connection, a.store, a.operator.unlocked.integrity, a.wanted
    ),
    "secrets.rotation.roll_back": lambda a: rotation.roll_back(
        a.connection, a.store, a.operator.unlocked.integrity, a.pointer, overlap_seconds=60
    ),
    "secrets.rotation.end_overlap": lambda a: rotation.end_overlap(
        a.connection, a.operator.unlocked.integrity, a.pointer
    ),
    "secrets.rotation.standing": lambda a: rotation.standing(a.connection, a.tenant, a.endpoint, limit=9),
    "secrets.schedule.of_endpoint": lambda a: schedule.of_endpoint(a.connection, a.tenant, a.endpoint),
    "secrets.versions.arrange": lambda a: versions.arrange(a.connection, active=a.signing, previous=None),
    "secrets.versions.retire": lambda a: versions.retire(a.connection, a.signing),
    "secrets.migration.locked": lambda a: plaintexts.locked(a.connection, _held(a)),
    "secrets.migration.sealed": lambda a: plaintexts.sealed(
        a.connection, a.store, a.operator.unlocked.integrity, found=_older(a), secret=PLAINTEXT
    ),
    "secrets.migration.require_unsealed": lambda a: plaintexts.require_unsealed(a.store, a.pointer),
    "secrets.migration.require_same": lambda a: plaintexts.require_same(
        a.store, a.operator.unlocked.integrity, a.pointer, PLAINTEXT
    ),
    "secrets.migration.empty": lambda a: plaintexts.empty(a.connection, [_held(a)]),
    "operations.migration.migrate_endpoint": lambda a: migration.migrate_endpoint(a.operator, _held(a)),
    "operations.migration.foretell": lambda a: migration.foretell(a.operator, _held(a)),
    "operations.migration.empty_batch": lambda a: migration.empty_batch(a.operator, [_held(a)]),
    "operations.endpoint_import.import_endpoint": lambda a: endpoint_import.import_endpoint(
        a.operator, _new(a), generate_signing_secret(), own_drain_seconds=25
    ),
    "operations.canary.probe": lambda a: canary.probe(a.operator, a.sending, tenant=a.tenant, endpoint_id=a.endpoint),
    "operations.endpoint_ping.ping": lambda a: endpoint_ping.ping(
        a.operator, a.observing, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.endpoint_state.enable_endpoint": lambda a: endpoint_state.enable_endpoint(
        a.operator, a.tenant, a.endpoint, own_drain_seconds=25
    ),
    "operations.endpoint_state.disable_endpoint": lambda a: endpoint_state.disable_endpoint(
        a.operator, a.tenant, a.endpoint, reason="x"
    ),
    "operations.endpoint_update.update_endpoint": lambda a: endpoint_update.update_endpoint(
        a.operator,
        a.tenant,
        a.endpoint,
        {
            "lead": "current",
            "headers": endpoint_headers.HeaderChange(given=HEADERS, replaces_all=True),
            "tls": TLS_CHANGE,
        },
        own_drain_seconds=25,
    ),
    "operations.endpoints.add_endpoint": lambda a: endpoints.add_endpoint(
        a.operator, _new(a), None, own_drain_seconds=25
    ),
    "operations.endpoints.delete_endpoint": lambda a: endpoints.delete_endpoint(a.operator, a.tenant, a.endpoint),
    "operations.denials.tell_denied": lambda a: denials.tell_denied(a.operator, _denied(a), again=True),
    "operations.findings.tell_put_back": lambda a: findings.tell_put_back(a.operator, _finding(a)),
    "operations.operator.Operator.tell": lambda a: a.operator.tell(_change(a)),
    "operations.producers.grant": lambda a: producers.grant(a.operator, a.role, a.tenant),
    "operations.producers.revoke": lambda a: producers.revoke(a.operator, a.role, a.tenant),
    "operations.purge.purge_batch": lambda a: purge.purge_batch(a.operator, a.tenant, days=0),
    "operations.purge.purgeable": lambda a: purge.purgeable(a.operator, a.tenant, days=0),
    "operations.reveal.reveal": lambda a: reveal.reveal(a.operator, a.tenant, a.endpoint),
    "operations.rotation.completed": _completed,
    "operations.rotation.rotate": lambda a: rotations.rotate(a.operator, a.wanted),
    "operations.rotation.roll_back": lambda a: rotations.roll_back(
        a.operator, tenant=a.tenant, endpoint_id=a.endpoint, overlap_seconds=60
    ),
    "operations.rotation.end_overlap": lambda a: rotations.end_overlap(
        a.operator, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.scheduled.retire_run_out": lambda a: turns.retire_run_out(
        a.operator, RunOut(tenant_id=a.tenant, endpoint_id=a.endpoint)
    ),
    "operations.scheduled.take_turn": lambda a: turns.take_turn(a.operator, a.scheduled, overlap_seconds=86_400),
}
