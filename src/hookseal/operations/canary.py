"""Asks a receiver whether it has switched to the endpoint's current secret, and writes down what it proved."""

from dataclasses import dataclass, replace
from typing import Final

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoints
from hookseal.dispatcher.canary import START_WITHIN_SECONDS, Ping, compose_ping, judge, needs_control
from hookseal.dispatcher.model import Answer, Request, Retries, Target
from hookseal.dispatcher.ports import Transport, dialled_with
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.operator import Operator
from hookseal.secrets import evidence, pointer
from hookseal.secrets.evidence import Evidence
from hookseal.secrets.overlap import require_generation
from hookseal.secrets.signer import Signer, generate_signing_secret

_NOBODY: Final = "nobody"  # the ref of a secret that is not stored
_ONCE: Final = Retries(attempts_allowed=1, backoff_base_seconds=1, backoff_cap_seconds=1, schedule=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How a canary reaches its receiver: as a delivery would."""

    transport: Transport
    clock: Clock
    allow_http: bool
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A ping by what the endpoint's row says, and the monotonic time just before that was read."""

    ping: Ping
    asked_at: float

    @property
    def pointer(self) -> Pointer:
        return self.ping.target.pointer


async def probe(
    operator: Operator,
    sending: Sending,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    expect_generation: int | None = None,
) -> Evidence:
    """Send the canary, then the control if it is needed; return what they prove, which is on record then, and audited.

    Nothing is locked meanwhile: whoever moves the pointer waits for nobody, and gets us a `Conflict`. Each request
    has a reading of its own, and begins within two seconds of it or not at all. Raises `NotFound`, `Conflict` at
    another generation than expected, `Refused` if the endpoint is disabled or its row unusable, `CannotSign`, which
    is `SecretTampered` for a row that was altered or put back, and `Unavailable`.
    """
    first = await _read(operator, sending, tenant=tenant, endpoint_id=endpoint_id, generation=expect_generation)
    canary = await _sent(operator, sending, first, by_nobody=False)
    control = None
    if needs_control(canary):
        second = await _read(
            operator, sending, tenant=tenant, endpoint_id=endpoint_id, generation=first.pointer.generation
        )
        control = await _sent(operator, sending, second, by_nobody=True)
    judged = judge(canary, control)
    found = Evidence(
        id=first.ping.id,
        tenant_id=tenant,
        endpoint_id=endpoint_id,
        generation=first.pointer.generation,
        secret_ref=first.pointer.secret_ref or "",  # one that signed
        verdict=judged.verdict.value,
        status=judged.status,
        control_status=judged.control_status,
        detail=judged.detail,
        sent_at=first.ping.at,
    )
    await _keep(operator, found)
    return found


async def _keep(operator: Operator, found: Evidence) -> None:
    """Put it on record, and tell it; raise `NotFound` for an endpoint that was deleted meanwhile."""
    async with operator.changing() as connection:
        # Nothing is told of an endpoint behind its deletion: that must stay the last word of the log about it.
        await pointer.locked(connection, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
        await evidence.keep(connection, found)
        await operator.tell(_change(found))


def _change(found: Evidence) -> Change:
    return Change(
        tenant_id=found.tenant_id,
        action=Action.ENDPOINT_PROBED,
        subject=f"endpoint:{found.endpoint_id}",
        after={
            "canary_id": found.id,
            "signed_by": found.secret_ref,
            "verdict": found.verdict,
            "status": found.status,
            "control_status": found.control_status,
        },
    )


async def _read(
    operator: Operator, sending: Sending, *, tenant: TenantId, endpoint_id: EndpointId, generation: int | None
) -> _Reading:
    asked_at = sending.clock.monotonic()
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        ping_id = await evidence.new_id(connection)
    require_generation(found, generation)
    target = Target(pointer=found, enabled=decided.enabled, timeout_ms=decided.timeout_ms, retries=_ONCE)
    return _Reading(ping=Ping(id=ping_id, at=found.read_at, target=target), asked_at=asked_at)


async def _sent(operator: Operator, sending: Sending, reading: _Reading, *, by_nobody: bool) -> Answer:
    """Return the answer to the reading's ping. The row is trusted for the control as well: its url is dialled."""
    request = await _signed(operator, sending, reading, by_nobody=by_nobody)
    service = operator.unlocked.service
    async with service.headers(reading.pointer) as values, service.tls(reading.pointer) as tls:
        return await sending.transport.send(replace(request, sealed_headers=values, tls=dialled_with(tls)))


async def _signed(operator: Operator, sending: Sending, reading: _Reading, *, by_nobody: bool) -> Request:
    async with operator.unlocked.service.signers(reading.pointer) as signers:
        return compose_ping(
            reading.ping,
            (_nobody(reading.pointer) if by_nobody else signers[0],),
            allow_http=sending.allow_http,
            user_agent=sending.user_agent,
            start_by=reading.asked_at + START_WITHIN_SECONDS,
        )


def _nobody(found: Pointer) -> Signer:
    """Return what signs as the current secret does, with one that is random and kept nowhere."""
    algorithm = Algorithm(found.algorithm)
    return Signer(_NOBODY, generate_signing_secret(algorithm), Scheme(found.scheme), algorithm)
