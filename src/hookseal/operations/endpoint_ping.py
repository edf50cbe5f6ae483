"""Tests an endpoint: one signed ping, sent as a delivery would be, with all that is to be seen on its way; audited."""

from dataclasses import dataclass, replace
from typing import Final

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoints
from hookseal.dispatcher.canary import START_WITHIN_SECONDS, Ping, compose_ping
from hookseal.dispatcher.model import Answer, NotBegun, Outcome, Request, Retries, Target
from hookseal.dispatcher.observation import Observed, Observing
from hookseal.dispatcher.outcome import classify
from hookseal.dispatcher.ports import Signer, dialled_with
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme, signed_content, x_webhook_content
from hookseal.operations.operator import Operator
from hookseal.secrets import evidence, pointer

_ONCE: Final = Retries(attempts_allowed=1, backoff_base_seconds=1, backoff_cap_seconds=1, schedule=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How a ping reaches its receiver, and who tells of the way."""

    transport: Observing
    clock: Clock
    allow_http: bool
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBytes:
    """Which bytes one secret signed, and how; the signature itself stands in the headers of its scheme."""

    secret_ref: str
    scheme: Scheme
    algorithm: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """The ping as it was sent, what was signed, the way it took, and what became of it.

    `outcome` is None if it could not begin in time.
    """

    pointer: Pointer
    enabled: bool
    request: Request
    own_headers: tuple[str, ...]
    signed: tuple[SignedBytes, ...]
    way: Observed
    answer: Answer
    outcome: Outcome | None
    seconds: float


async def ping(operator: Operator, how: Observation, *, tenant: TenantId, endpoint_id: EndpointId) -> Tested:
    """Send one ping, which every secret that is due has signed; it is audited by the time it is told of.

    A disabled endpoint is tested, too. Nothing is locked meanwhile. Raises `NotFound`, `Refused` if nothing may be sent
    to what its row says, `CannotSign`, which is `SecretTampered` for a row that was altered or put back, and
    `Unavailable`.
    """
    asked_at = how.clock.monotonic()
    read, enabled = await _read(operator, tenant, endpoint_id)
    found, service = read.target.pointer, operator.unlocked.service
    async with service.signers(found) as signers:
        request = compose_ping(
            read,
            signers,
            allow_http=how.allow_http,
            user_agent=how.user_agent,
            start_by=asked_at + START_WITHIN_SECONDS,
        )
        signed = tuple(_signed(signer, found, read.id, request.body) for signer in signers)
    async with service.headers(found) as values, service.tls(found) as tls:
        own = replace(request, sealed_headers=values, tls=dialled_with(tls))
        began = how.clock.monotonic()
        answer, way = await how.transport.observed(own)
        names = tuple(sorted(values))
    tested = Tested(
        pointer=found,
        enabled=enabled,
        request=request,
        own_headers=names,
        signed=signed,
        way=way,
        answer=answer,
        outcome=None if isinstance(answer, NotBegun) else classify(answer),
        seconds=how.clock.monotonic() - began,
    )
    await _told(operator, tested)
    return tested


async def _read(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> tuple[Ping, bool]:
    """Return the ping, as if the endpoint were enabled, and whether it is."""
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        ping_id = await evidence.new_id(connection)
    target = Target(pointer=found, enabled=True, timeout_ms=decided.timeout_ms, retries=_ONCE)
    return Ping(id=ping_id, at=found.read_at, target=target), decided.enabled


def _signed(signer: Signer, found: Pointer, ping_id: str, body: bytes) -> SignedBytes:
    timestamp = int(found.read_at.timestamp())
    is_standard = signer.scheme is Scheme.STANDARD
    algorithm = found.algorithm if signer.ref == found.secret_ref else found.previous_algorithm
    return SignedBytes(
        secret_ref=signer.ref,
        scheme=signer.scheme,
        algorithm=algorithm or "",
        content=signed_content(ping_id, timestamp, body) if is_standard else x_webhook_content(timestamp, body),
    )


async def _told(operator: Operator, tested: Tested) -> None:
    """Tell it; raise `NotFound` for an endpoint that was deleted meanwhile, of which nothing is told any more."""
    found = tested.pointer
    async with operator.changing() as connection:
        await pointer.locked(connection, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
        await operator.tell(
            Change(
                tenant_id=found.tenant_id,
                action=Action.ENDPOINT_TESTED,
                subject=f"endpoint:{found.endpoint_id}",
                after={
                    "signed_by": [each.secret_ref for each in tested.signed],
                    "outcome": None if tested.outcome is None else tested.outcome.value,
                    "status": getattr(tested.answer, "status", None),
                },
            )
        )
