"""Sends audited pings to a receiver: to find out whether it has switched to the current secret, or to test an endpoint.

Nothing is locked while a ping is in flight, so it does not delay a move of the pointer. The endpoint's row is read
again for each ping, and the ping begins within two seconds of that or not at all.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Answer, NotBegun, Outcome, Request, Retries, Target
from hookseal.dispatcher.core.outcome import classify
from hookseal.dispatcher.core.ports import Signer as AnySigner
from hookseal.dispatcher.core.ports import tls_identity
from hookseal.dispatcher.core.probe import START_WITHIN_SECONDS, CanaryVerdict, Ping, compose_ping, judge, needs_control
from hookseal.dispatcher.http.observation import Observed
from hookseal.dispatcher.store import endpoints
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme, signed_content, x_webhook_content
from hookseal.operations.endpoint.rotation import end_overlap
from hookseal.operations.operator import Operator
from hookseal.operations.sending import Sending
from hookseal.secrets.core.overlap import require_generation
from hookseal.secrets.core.signing import Signer, generate_signing_secret
from hookseal.secrets.core.trust import require_known
from hookseal.secrets.endpoint import canary_results, pointer
from hookseal.secrets.endpoint.canary_results import Evidence

_RANDOM: Final = "random"  # the ref of a secret that is not stored
_ONCE: Final = Retries(attempts_allowed=1, backoff_base_seconds=1, backoff_cap_seconds=1, schedule=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBytes:
    """The bytes that one secret signed, with scheme and algorithm. The signature itself is in the headers."""

    secret_ref: str
    scheme: Scheme
    algorithm: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A ping as it was sent, its signed bytes, its network path (`way`), and its answer.

    `outcome` is None if the ping could not begin in time.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A ping made from the endpoint's row, and the monotonic time just before the row was read."""

    ping: Ping
    enabled: bool
    asked_at: float

    @property
    def pointer(self) -> Pointer:
        return self.ping.target.pointer


async def ask_whether_switched(
    operator: Operator,
    sending: Sending,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    expect_generation: int | None = None,
) -> Evidence:
    """Send the canary, and the control if it is needed; store, audit and return the result.

    Raises `NotFound`, `Conflict` if the generation is not the expected one, `Refused` if the endpoint is disabled or
    its row unusable, `CannotSign` (`SecretTampered` for a row that was altered or is stale), and `Unavailable`.
    """
    first = await _read(operator, sending, tenant, endpoint_id)
    require_generation(first.pointer, expect_generation)
    canary = await _send(operator, sending, first, is_control=False)
    control = None
    if needs_control(canary):
        second = await _read(operator, sending, tenant, endpoint_id)
        require_generation(second.pointer, first.pointer.generation)
        control = await _send(operator, sending, second, is_control=True)
    judged = judge(canary, control)
    evidence = Evidence(
        id=first.ping.id,
        tenant_id=tenant,
        endpoint_id=endpoint_id,
        generation=first.pointer.generation,
        secret_ref=first.pointer.secret_ref or "",  # never empty: it has signed
        verdict=judged.verdict.value,
        status=judged.status,
        control_status=judged.control_status,
        detail=judged.detail,
        sent_at=first.ping.at,
    )
    await _keep(operator, evidence)
    return evidence


async def end_if_switched(operator: Operator, evidence: Evidence) -> bool:
    """End the overlap if the receiver has switched; return whether it was ended.

    Raises `Conflict` if the endpoint is at another generation by now, and as `end_overlap` does.
    """
    if evidence.verdict != CanaryVerdict.SWITCHED:
        return False
    await end_overlap(
        operator, tenant=evidence.tenant_id, endpoint_id=evidence.endpoint_id, expect_generation=evidence.generation
    )
    return True


async def send_ping(operator: Operator, sending: Sending, *, tenant: TenantId, endpoint_id: EndpointId) -> Tested:
    """Send and audit one ping, signed with every secret that is due; return it with its network path.

    A disabled endpoint is tested, too. Raises `NotFound`, `Refused` if its row allows no request, `CannotSign`
    (`SecretTampered` for a row that was altered or is stale), and `Unavailable`.
    """
    reading = await _read(operator, sending, tenant, endpoint_id, as_enabled=True)
    row = reading.pointer
    async with operator.unlocked.service.signers(row) as signers:
        request = _composed(sending, reading, signers)
        signed = tuple(_signed(signer, row, reading.ping.id, request.body) for signer in signers)
    async with _with_extras(operator, row, request) as whole:
        began = sending.clock.monotonic()
        answer, way = await sending.transport.observed(whole)
        names = tuple(sorted(whole.sealed_headers))
    tested = Tested(
        pointer=row,
        enabled=reading.enabled,
        request=request,
        own_headers=names,
        signed=signed,
        way=way,
        answer=answer,
        outcome=None if isinstance(answer, NotBegun) else classify(answer),
        seconds=sending.clock.monotonic() - began,
    )
    await _audit(operator, tested)
    return tested


async def _read(
    operator: Operator, sending: Sending, tenant: TenantId, endpoint_id: EndpointId, *, as_enabled: bool = False
) -> _Reading:
    asked_at = sending.clock.monotonic()
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        ping_id = await canary_results.new_id(connection)
    enabled = decided["enabled"] or as_enabled
    target = Target(pointer=row, enabled=enabled, timeout_ms=decided["timeout_ms"], retries=_ONCE)
    ping = Ping(id=ping_id, at=row.read_at, target=target)
    return _Reading(ping=ping, enabled=decided["enabled"], asked_at=asked_at)


async def _send(operator: Operator, sending: Sending, reading: _Reading, *, is_control: bool) -> Answer:
    """Return the answer to the ping. The control checks the row, too, because it connects to the row's url."""
    async with operator.unlocked.service.signers(reading.pointer) as signers:
        signer = _random_signer(reading.pointer) if is_control else signers[0]
        request = _composed(sending, reading, (signer,))
    async with _with_extras(operator, reading.pointer, request) as whole:
        return await sending.transport.send(whole)


def _composed(sending: Sending, reading: _Reading, signers: Sequence[AnySigner]) -> Request:
    return compose_ping(
        reading.ping,
        signers,
        allow_http=sending.allow_http,
        user_agent=sending.user_agent,
        start_by=reading.asked_at + START_WITHIN_SECONDS,
    )


@asynccontextmanager
async def _with_extras(operator: Operator, row: Pointer, request: Request) -> AsyncIterator[Request]:
    """Yield the request with the endpoint's own headers and TLS identity, for the block."""
    service = operator.unlocked.service
    async with service.headers(row) as values, service.tls(row) as tls:
        yield replace(request, sealed_headers=values, tls=tls_identity(tls))


def _random_signer(row: Pointer) -> Signer:
    """Return a signer with a random secret, which is not stored, and the scheme and algorithm of the current one."""
    scheme, algorithm = require_known(row.scheme, row.algorithm)
    return Signer(_RANDOM, generate_signing_secret(algorithm), scheme, algorithm)


def _signed(signer: AnySigner, row: Pointer, ping_id: str, body: bytes) -> SignedBytes:
    timestamp = int(row.read_at.timestamp())
    has_id = signer.scheme is not Scheme.X_WEBHOOK
    algorithm = row.algorithm if signer.ref == row.secret_ref else row.previous_algorithm
    return SignedBytes(
        secret_ref=signer.ref,
        scheme=signer.scheme,
        algorithm=algorithm or "",
        content=signed_content(ping_id, timestamp, body) if has_id else x_webhook_content(timestamp, body),
    )


async def _keep(operator: Operator, evidence: Evidence) -> None:
    """Store and audit the result; raise `NotFound` if the endpoint was deleted meanwhile.

    The deletion of an endpoint must stay its last entry in the audit log.
    """
    async with operator.changing() as connection:
        await pointer.lock(connection, tenant=evidence.tenant_id, endpoint_id=evidence.endpoint_id)
        await canary_results.keep(connection, evidence)
        after = {
            "canary_id": evidence.id,
            "signed_by": evidence.secret_ref,
            "verdict": evidence.verdict,
            "status": evidence.status,
            "control_status": evidence.control_status,
        }
        await operator.audit(Action.ENDPOINT_PROBED, of=evidence, after=after)


async def _audit(operator: Operator, tested: Tested) -> None:
    """Audit the test; raise `NotFound` if the endpoint was deleted meanwhile."""
    row = tested.pointer
    async with operator.changing() as connection:
        await pointer.lock(connection, tenant=row.tenant_id, endpoint_id=row.endpoint_id)
        after = {
            "signed_by": [each.secret_ref for each in tested.signed],
            "outcome": None if tested.outcome is None else tested.outcome.value,
            "status": getattr(tested.answer, "status", None),
        }
        await operator.audit(Action.ENDPOINT_TESTED, of=row, after=after)
