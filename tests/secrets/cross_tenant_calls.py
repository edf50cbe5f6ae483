"""A call of every function that reads or writes rows of a tenant, made by one tenant for an endpoint of another one.

Each case gets the scene, the calling tenant and the endpoint; it runs in a transaction that is rolled back.
A pointer or ref that a function takes combines the calling tenant with the parts of the endpoint.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Reply
from hookseal.dispatcher.core.replay_job import Selection
from hookseal.dispatcher.store.endpoint_health import Failing
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.replays import RunningJob
from hookseal.dispatcher.store.tenants import NewTenant
from hookseal.dispatcher.store.tokens import NewPortal, NewToken, Scope
from hookseal.ground.ids import DeliveryId, EndpointId, ReplayId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import (
    audit_reports,
    import_endpoints,
    migrate_secrets,
    move_secrets,
    producers,
    replay,
    restore,
    secret,
    tenants,
    tokens,
)
from hookseal.operations.endpoint import endpoints, probe, reports, update
from hookseal.operations.endpoint import rotation as rotations
from hookseal.operations.endpoint import rotation as turns
from hookseal.operations.import_endpoints import CheckedRow, OlderEndpoint
from hookseal.operations.operator import Operator
from hookseal.operations.sending import Sending
from hookseal.postgres.pool import Connection
from hookseal.secrets import migrate_secrets as plaintexts
from hookseal.secrets import move
from hookseal.secrets import restore as stale_rows
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import (
    Provider,
    Purpose,
    SecretRef,
    endpoint_headers_name,
    endpoint_secret_name,
    endpoint_tls_name,
)
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint import canary_results, pointer, rotation, schedule
from hookseal.secrets.endpoint.canary_results import Evidence
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.endpoint.schedule import Scheduled
from hookseal.secrets.extras import stored
from hookseal.secrets.extras.tls_identity import TlsChange
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from hookseal.secrets.restore import StaleEndpoint, StaleKind
from hookseal.secrets.store import external, records, retention, version_report
from hookseal.secrets.store.port import SecretStore
from hookseal.secrets.store.records import Records
from hookseal.secrets.store.retention import EndedOverlap, ExpiredVersion
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.transport import ScriptedTransport

AT = datetime(2026, 1, 2, tzinfo=UTC)
PLAINTEXT = SecretMaterial(b"plaintext of an older system")
HEADERS = {"x-own": SecretMaterial(b"value")}
TLS_CHANGE = TlsChange(without_client=True)
TLS = identity(Authority().client(), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The calling tenant, the endpoint and the connection. `pointer` is the endpoint's, owned by the calling tenant.

    `url` is the endpoint's, too, and `role` publishes for acme.
    """

    operator: Operator
    tenant: TenantId
    endpoint: EndpointId
    pointer: Pointer
    url: str
    role: str

    @property
    def connection(self) -> Connection:
        return self.operator.connection

    @property
    def store(self) -> SecretStore:
        return self.operator.unlocked.store_on(self.connection)

    @property
    def signing(self) -> SecretRef:
        """The first version of the endpoint's signing secret, as if it belonged to the calling tenant."""
        return self._ref(endpoint_secret_name(self.endpoint))

    @property
    def headers(self) -> SecretRef:
        return self._ref(endpoint_headers_name(self.endpoint))

    @property
    def tls(self) -> SecretRef:
        return self._ref(endpoint_tls_name(self.endpoint))

    @property
    def wanted(self) -> RotationRequest:
        """A request to rotate its secret."""
        return RotationRequest(
            tenant_id=self.tenant,
            endpoint_id=self.endpoint,
            overlap_seconds=60,
            secret=generate_signing_secret(),
            rotation_id="r-2",
            force=True,
        )

    @property
    def scheduled(self) -> Scheduled:
        """A scheduled rotation that is long due."""
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
    def sending(self) -> Sending:
        """A transport to a receiver that has switched, as a canary sees it."""
        answers = (Reply(status=204, snippet=""), Reply(status=400, snippet=""))
        return Sending(
            transport=ScriptedTransport(*answers), clock=FakeClock(), allow_http=True, user_agent="hookseal/test"
        )

    @property
    def observing(self) -> Sending:
        """A transport to a receiver that accepts a ping."""
        how = self.sending
        return Sending(
            transport=ScriptedTransport(Reply(status=204, snippet="")),
            clock=how.clock,
            allow_http=True,
            user_agent=how.user_agent,
        )

    def _ref(self, name: str) -> SecretRef:
        return SecretRef(provider=Provider.DB, tenant=self.tenant, name=name, version=1)


def proven(tenant: TenantId, endpoint: EndpointId, *, generation: int) -> Evidence:
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
    return [found async for found in stale_rows.find_stale(asked.connection, asked.tenant)]


async def _altered(asked: Asked) -> list[Any]:
    integrity = asked.operator.unlocked.integrity
    return [found async for found in stale_rows.find_altered(asked.connection, integrity, asked.tenant)]


async def _contradicting(asked: Asked) -> list[Any]:
    integrity = asked.operator.unlocked.integrity
    return [found async for found in stale_rows.find_all(asked.connection, integrity, asked.tenant)]


async def _every(asked: Asked) -> list[Any]:
    return [found async for found in pointer.iterate(asked.connection, asked.tenant)]


def _lost(asked: Asked) -> StaleEndpoint:
    return StaleEndpoint(
        tenant_id=asked.tenant, endpoint_id=asked.endpoint, kind=StaleKind.LOST, generation=None, audited_generation=1
    )


async def _completed(asked: Asked) -> None:
    await rotations.wait_until_complete(
        asked.operator.connection,
        tenant=asked.tenant,
        endpoint_id=asked.endpoint,
        generation=1,
        clock=FakeClock(),
        report=lambda _left: None,
    )


def _held(asked: Asked) -> PlaintextEndpoint:
    return PlaintextEndpoint(asked.tenant, asked.endpoint)


def _older(asked: Asked) -> Pointer:
    """Return the pointer as an older system wrote it."""
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


def _new(asked: Asked) -> NewEndpoint:
    return NewEndpoint(tenant_id=asked.tenant, url=asked.url, event_types=("*",))


def _token(asked: Asked) -> NewToken:
    return NewToken(name="t", tenant_id=asked.tenant, scopes=(Scope.READ,), expires_at=None, digest=bytes(32))


def _portal(asked: Asked) -> NewPortal:
    return NewPortal(
        tenant_id=asked.tenant,
        scopes=(Scope.READ,),
        seconds=60,
        not_after=None,
        user=None,
        session_id=None,
        refresh_url=None,
        digest=b"p" * 32,
        code_digest=b"c" * 32,
    )


def _named(asked: Asked) -> NewTenant:
    return NewTenant(tenant_id=asked.tenant, uid=None, name=None, metadata={})


def _finding(asked: Asked) -> audit_reports.Stale:
    return audit_reports.Stale(
        tenant_id=asked.tenant, endpoint_id=asked.endpoint, generation=1, reason="x", restore_epoch=1
    )


def _denied(asked: Asked) -> audit_reports.Denied:
    return audit_reports.Denied(
        tenant_id=asked.tenant,
        worker="w1",
        since=AT,
        until=AT,
        counts={"secret_denied": 1},
        endpoints=(asked.endpoint,),
        endpoints_are_all=True,
    )


def _doomed(asked: Asked) -> list[ExpiredVersion]:
    return [
        ExpiredVersion(ref=ref, key_id="0" * 16, retired_at=AT) for ref in (asked.signing, asked.headers, asked.tls)
    ]


def _first(asked: Asked) -> pointer.InitialSecrets:
    return pointer.InitialSecrets(
        ref=asked.signing, scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC, headers=asked.headers, tls=asked.tls
    )


async def _keep_extras(asked: Asked) -> list[Any]:
    keep = partial(stored.keep, asked.connection, asked.store, tenant=asked.tenant, endpoint_id=asked.endpoint)
    return [await keep(stored.HEADERS, HEADERS), await keep(stored.TLS, TLS)]


async def _opened_extras(asked: Asked) -> list[Any]:
    return [await stored.opened(asked.store, extra, asked.pointer) for extra in stored.ALL]


async def _retire_extras(asked: Asked) -> None:
    for extra in stored.ALL:
        await stored.retire(asked.connection, asked.store, extra, tenant=asked.tenant, endpoint_id=asked.endpoint)


async def _move(a: Asked) -> object:
    stores = a.operator.unlocked.stores
    assert stores is not None
    return await move.move_endpoint(
        a.connection, stores.joined_to(a.connection), a.operator.unlocked.integrity, a.pointer
    )


async def _import_rows(a: Asked) -> object:
    wanted = OlderEndpoint(endpoint=_new(a), secret=generate_signing_secret(), enabled=True)
    rows = [CheckedRow(line=2, wanted=wanted)]  # one, so that the connections may be the same
    tally = await import_endpoints.import_rows(
        a.operator,
        lambda: nullcontext(a.connection),
        rows,
        own_drain_seconds=25,
        is_dry=False,
        report=lambda _line: None,
    )
    return tally.counts, tally.failed


CASES: dict[str, Case] = {
    "operations.move_secrets.move_endpoint": lambda a: move_secrets.move_endpoint(
        a.operator, a.tenant, a.endpoint, Provider.DB
    ),
    "secrets.move.move_endpoint": _move,
    "secrets.store.records.Records.row": lambda a: Records(a.connection).row(a.signing),
    "secrets.store.records.versions": lambda a: records.versions(a.connection, a.tenant, a.signing.name),
    "secrets.store.records.lock": lambda a: records.lock(
        a.connection, a.tenant, a.signing.name, Purpose.WEBHOOK_SIGNING
    ),
    "secrets.store.records.next_version": lambda a: records.next_version(a.connection, a.tenant, a.signing.name),
    "secrets.store.records.step_back": lambda a: records.step_back(a.connection, a.tenant, a.signing.name),
    "secrets.store.external.take_number": lambda a: external.take_number(a.connection, a.signing, at_least=1),
    "secrets.store.external.begin": lambda a: external.begin(a.connection, a.signing, b"share"),
    "secrets.store.external.burn": lambda a: external.burn(a.connection, a.signing),
    "secrets.store.external.settle": lambda a: external.settle(a.connection, a.signing),
    "secrets.store.external.add_left": lambda a: external.add_left(
        a.connection, replace(a.signing, provider=Provider.AWS)
    ),
    "secrets.store.external.add_destroyed": lambda a: external.add_destroyed(
        a.connection, a.tenant, [(a.signing.name, 1)]
    ),
    "secrets.extras.stored.keep": _keep_extras,
    "secrets.extras.stored.opened": _opened_extras,
    "secrets.extras.stored.retire": _retire_extras,
    "secrets.endpoint.canary_results.keep": lambda a: canary_results.keep(
        a.connection, proven(a.tenant, a.endpoint, generation=1)
    ),
    "secrets.endpoint.canary_results.last": lambda a: canary_results.last(a.connection, a.tenant, a.endpoint, 2),
    "secrets.store.version_report.of_endpoint": lambda a: version_report.of_endpoint(
        a.connection, a.tenant, a.endpoint
    ),
    "secrets.store.version_report.require_known": lambda a: version_report.require_known(a.connection, a.signing),
    "secrets.endpoint.pointer.lock": lambda a: pointer.lock(a.connection, tenant=a.tenant, endpoint_id=a.endpoint),
    "secrets.endpoint.pointer.set_initial": lambda a: pointer.set_initial(
        a.connection, a.operator.unlocked.integrity, tenant=a.tenant, endpoint_id=a.endpoint, to=_first(a)
    ),
    "secrets.endpoint.pointer.move": lambda a: pointer.move(
        a.connection, a.operator.unlocked.integrity, a.pointer, lead="current"
    ),
    "secrets.restore.accept": lambda a: stale_rows.accept(a.connection, a.operator.unlocked.integrity, a.pointer),
    "secrets.restore.find_stale": _put_back,
    "secrets.restore.find_altered": _altered,
    "secrets.restore.find_all": _contradicting,
    "secrets.restore.is_lost": lambda a: stale_rows.is_lost(a.connection, _lost(a)),
    "secrets.restore.is_deleted": lambda a: stale_rows.is_deleted(a.connection, _lost(a)),
    "secrets.restore.destroy_again": lambda a: stale_rows.destroy_again(a.connection, _lost(a)),
    "secrets.restore.lock_records": lambda a: stale_rows.lock_records(a.connection, _lost(a)),
    "secrets.restore.missing_material": lambda a: stale_rows.missing_material(a.connection, a.tenant, a.endpoint),
    "secrets.endpoint.pointer.iterate": _every,
    "operations.restore.accept_endpoint": lambda a: restore.accept_endpoint(a.operator, a.tenant, a.endpoint),
    "secrets.store.retention.lock_expired": lambda a: retention.lock_expired(a.connection, a.tenant, days=0),
    "secrets.store.retention.destroy": lambda a: retention.destroy(a.connection, a.tenant, _doomed(a)),
    "secrets.endpoint.rotation.rotate_pointer": lambda a: rotation.rotate_pointer(
        a.connection, a.store, a.operator.unlocked.integrity, a.wanted
    ),
    "secrets.endpoint.rotation.roll_back": lambda a: rotation.roll_back(
        a.connection, a.store, a.operator.unlocked.integrity, a.pointer, overlap_seconds=60
    ),
    "secrets.endpoint.rotation.end_overlap": lambda a: rotation.end_overlap(
        a.connection, a.operator.unlocked.integrity, a.pointer
    ),
    "secrets.endpoint.rotation.status": lambda a: rotation.status(a.connection, a.tenant, a.endpoint, limit=9),
    "secrets.endpoint.schedule.of_endpoint": lambda a: schedule.of_endpoint(a.connection, a.tenant, a.endpoint),
    "secrets.store.records.arrange": lambda a: records.arrange(a.connection, active=a.signing, previous=None),
    "secrets.store.records.retire": lambda a: records.retire(a.connection, a.signing),
    "secrets.migrate_secrets.lock": lambda a: plaintexts.lock(a.connection, _held(a)),
    "secrets.migrate_secrets.seal_plaintext": lambda a: plaintexts.seal_plaintext(
        a.connection, a.store, a.operator.unlocked.integrity, found=_older(a), secret=PLAINTEXT
    ),
    "secrets.migrate_secrets.require_unsealed": lambda a: plaintexts.require_unsealed(a.store, a.pointer),
    "secrets.migrate_secrets.require_same": lambda a: plaintexts.require_same(
        a.store, a.operator.unlocked.integrity, a.pointer, PLAINTEXT
    ),
    "secrets.migrate_secrets.empty": lambda a: plaintexts.empty(a.connection, [_held(a)]),
    "operations.migrate_secrets.migrate_endpoint": lambda a: migrate_secrets.migrate_endpoint(a.operator, _held(a)),
    "operations.migrate_secrets.preview": lambda a: migrate_secrets.preview(a.operator, _held(a)),
    "operations.migrate_secrets.empty_batch": lambda a: migrate_secrets.empty_batch(a.operator, [_held(a)]),
    "operations.import_endpoints.import_endpoint": lambda a: import_endpoints.import_endpoint(
        a.operator, _new(a), generate_signing_secret(), own_drain_seconds=25
    ),
    "operations.import_endpoints.import_rows": _import_rows,
    "operations.endpoint.probe.ask_whether_switched": lambda a: probe.ask_whether_switched(
        a.operator, a.sending, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.endpoint.probe.end_if_switched": lambda a: probe.end_if_switched(
        a.operator, proven(a.tenant, a.endpoint, generation=a.pointer.generation)
    ),
    "operations.endpoint.probe.send_ping": lambda a: probe.send_ping(
        a.operator, a.observing, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.replay.send_example": lambda a: replay.send_example(a.operator, a.tenant, a.endpoint, "a.b", "1"),
    "operations.replay.start_replay": lambda a: replay.start_replay(
        a.operator, Selection(tenant_id=a.tenant, endpoint_id=a.endpoint)
    ),
    "operations.replay.retry": lambda a: replay.retry(a.operator, a.tenant, a.endpoint),
    "operations.replay.take_step": lambda a: replay.take_step(a.operator, RunningJob(a.tenant, ReplayId(a.endpoint))),
    "operations.replay.enable_and_replay": lambda a: replay.enable_and_replay(
        a.operator, a.tenant, a.endpoint, Selection(tenant_id=a.tenant, endpoint_id=a.endpoint), own_drain_seconds=25
    ),
    "operations.endpoint.endpoints.enable_endpoint": lambda a: endpoints.enable_endpoint(
        a.operator, a.tenant, a.endpoint, own_drain_seconds=25
    ),
    "operations.endpoint.endpoints.set_enabled": lambda a: endpoints.set_enabled(
        a.operator, a.tenant, a.endpoint, disabled_reason="x", own_drain_seconds=25
    ),
    "operations.endpoint.endpoints.disable_endpoint": lambda a: endpoints.disable_endpoint(
        a.operator, a.tenant, a.endpoint, reason="x"
    ),
    "operations.endpoint.endpoints.disable_failing_endpoint": lambda a: endpoints.disable_failing_endpoint(
        a.operator, Failing(tenant_id=a.tenant, endpoint_id=a.endpoint, first_failure_at=AT), after_seconds=0
    ),
    "operations.endpoint.endpoints.audit_gone": lambda a: endpoints.audit_gone(a.operator, a.tenant, a.endpoint, "x"),
    "operations.endpoint.update.update_endpoint": lambda a: update.update_endpoint(
        a.operator,
        a.tenant,
        a.endpoint,
        {"lead": "current", "headers": HeaderChange(given=HEADERS, replaces_all=True), "tls": TLS_CHANGE},
        own_drain_seconds=25,
    ),
    "operations.endpoint.endpoints.add_endpoint": lambda a: endpoints.add_endpoint(
        a.operator, _new(a), None, own_drain_seconds=25
    ),
    "operations.endpoint.endpoints.delete_endpoint": lambda a: endpoints.delete_endpoint(
        a.operator, a.tenant, a.endpoint
    ),
    "operations.audit_reports.audit_denied": lambda a: audit_reports.audit_denied(a.operator, _denied(a), again=True),
    "operations.audit_reports.audit_stale": lambda a: audit_reports.audit_stale(a.operator, _finding(a)),
    "operations.operator.Operator.audit": lambda a: a.operator.audit(
        Action.SECRET_ROTATED, of=f"endpoint:{a.endpoint}", tenant=a.tenant, after={"generation": 99}
    ),
    "operations.producers.grant": lambda a: producers.grant(a.operator, a.role, a.tenant),
    "operations.producers.revoke": lambda a: producers.revoke(a.operator, a.role, a.tenant),
    "operations.tenants.add_tenant": lambda a: tenants.add_tenant(a.operator, _named(a)),
    "operations.tokens.add_token": lambda a: tokens.add_token(a.operator, _token(a)),
    "operations.tokens.add_portal": lambda a: tokens.add_portal(a.operator, _portal(a)),
    "operations.secret.purge_batch": lambda a: secret.purge_batch(a.operator, a.tenant, days=0),
    "operations.secret.purgeable": lambda a: secret.purgeable(a.operator, a.tenant, days=0),
    "operations.secret.reveal": lambda a: secret.reveal(a.operator, a.tenant, a.endpoint),
    "operations.endpoint.reports.public_keys": lambda a: reports.public_keys(a.operator, a.tenant, a.endpoint),
    "operations.endpoint.reports.rotation_state": lambda a: reports.rotation_state(a.connection, a.tenant, a.endpoint),
    "operations.endpoint.reports.versions": lambda a: reports.versions(a.connection, a.tenant, a.endpoint),
    "operations.endpoint.rotation.wait_until_complete": _completed,
    "operations.endpoint.rotation.rotate_secret": lambda a: rotations.rotate_secret(a.operator, a.wanted),
    "operations.endpoint.rotation.roll_back": lambda a: rotations.roll_back(
        a.operator, tenant=a.tenant, endpoint_id=a.endpoint, overlap_seconds=60
    ),
    "operations.endpoint.rotation.end_overlap": lambda a: rotations.end_overlap(
        a.operator, tenant=a.tenant, endpoint_id=a.endpoint
    ),
    "operations.endpoint.rotation.retire_ended_overlap": lambda a: turns.retire_ended_overlap(
        a.operator, EndedOverlap(tenant_id=a.tenant, endpoint_id=a.endpoint)
    ),
    "operations.endpoint.rotation.take_turn": lambda a: turns.take_turn(
        a.operator, a.scheduled, overlap_seconds=86_400
    ),
}


_OWNED = {TenantId, EndpointId, DeliveryId}
_ACTORS = {Unlocked}  # belongs to the installation and acts for any tenant


def functions_with_a_tenant(*packages: str) -> set[str]:
    """Return every public function and method of these packages that takes a tenant, or an object with one."""
    return {name for package in packages for module in _modules(package) for name in _of_module(module)}


def _modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def _of_module(module: ModuleType) -> Iterator[str]:
    home = module.__name__.removeprefix("hookseal.")
    for name, found in vars(module).items():
        if name.startswith("_") or getattr(found, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(found):
            for method, function in _methods(found):
                if _takes(function):
                    yield f"{home}.{name}.{method}"
        elif isinstance(found, FunctionType) and _takes(found):
            yield f"{home}.{name}"


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    for name, found in vars(owner).items():
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if not name.startswith("_") and isinstance(function, FunctionType):
            yield name, function


def _takes(function: Any) -> bool:
    hints = typing.get_type_hints(inspect.unwrap(function))
    return any(_holds(hint, set()) for name, hint in hints.items() if name != "return")


def _holds(hint: Any, seen: set[Any]) -> bool:
    """Return whether a value of this type belongs to a tenant, or contains one that does."""
    if hint in _OWNED:
        return True
    if hint in _ACTORS:
        return False
    is_record = isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, msgspec.Struct))
    if is_record and hint not in seen:
        seen.add(hint)
        return any(_holds(field, seen) for field in typing.get_type_hints(hint).values())
    return any(_holds(part, seen) for part in typing.get_args(hint) if not isinstance(part, str | list))
