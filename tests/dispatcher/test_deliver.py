"""The steps of a delivery over doubles: what is sent, recorded, interrupted and reported."""

import asyncio
import copy
import json
import logging
import pickle
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import msgspec
import pytest
import structlog

from hookseal.dispatcher.core.deliver import by_endpoint, give_back, is_logged
from hookseal.dispatcher.core.model import (
    Answer,
    Attempt,
    Claim,
    Failure,
    FailureKind,
    FinishedAttempt,
    NotBegun,
    Outcome,
    Pace,
    Reply,
    Request,
    State,
    Target,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.core.ports import Signer, Transport
from hookseal.dispatcher.core.prepare import START_WITHIN_SECONDS, compose
from hookseal.errors import CannotSign, Defect, Exhausted, LocalFailure, OutcomeKept, Unavailable
from hookseal.ground import log
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId, first_uuid7
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.material import SecretMaterial
from hookseal.worker.recorder import PersistentLedger
from tests.dispatcher.scene import GONE, OK, Scene, attempt, take
from tests.doubles.claims import CLAIM, DELIVERY, RETRIES, RING, TARGET, claim, overlapping, target
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger
from tests.doubles.replaced import replace
from tests.doubles.signers import EchoSigner, FixedSigners
from tests.doubles.transport import ScriptedTransport

OTHER = EndpointId("01900000-0000-7000-8000-0000000000ee")
OWN = {"x-api-key": b"canary-4f1d"}
WITH_HEADERS = target(headers_ref="db:acme:webhook-endpoint-headers:1")
X_WEBHOOK = {
    "x-webhook-timestamp": "1767323045",
    "x-webhook-event": "invoice.paid",
    "x-webhook-delivery-id": DELIVERY,
    "x-tenant-id": "acme",
}
SIGNED_STANDARD = len(f"{DELIVERY}.1767323045.") + len(CLAIM.body)
SIGNED_X_WEBHOOK = len("1767323045.") + len(CLAIM.body)
CANARY = "canary-4f1d"
REQUEST = Request(
    tenant_id=TenantId("acme"),
    url="https://receiver.example/hook",
    headers={"webhook-id": "d1"},
    body=b"{}",
    start_by=2,
    timeout_seconds=5,
    sealed_headers={"authorization": SecretMaterial(f"Bearer {CANARY}".encode())},
)


def test_claims_are_prepared_by_endpoint() -> None:
    """The claims of one endpoint come together, in their order; its settings say whether it is ordered."""
    ordered = replace(CLAIM, ring=replace(RING, endpoint_id=OTHER), target=replace(TARGET, pace=Pace(ordered=True)))
    gone = replace(ordered, target=None)

    assert [[CLAIM, CLAIM], [ordered, gone]] == by_endpoint([CLAIM, ordered, CLAIM, gone])
    assert [False, True, False] == [each.is_ordered for each in (CLAIM, ordered, gone)]


@pytest.mark.req("DEL-03", "DEL-15")
async def test_a_2xx_ends_the_delivery() -> None:
    """A 2xx ends the delivery, with one attempt on record that names the secrets that signed it, current first."""
    scene = Scene()
    await scene.run()

    [kept] = scene.row.attempts
    assert (State.DELIVERED, None, None) == (scene.row.state, scene.row.error, scene.row.lease)
    assert ("delivered", 204, "thanks", ("db:acme:n:2", "db:acme:n:1")) == (
        kept.outcome,
        kept.status,
        kept.snippet,
        kept.signed_by,
    )


@pytest.mark.req("DEL-03", "DEL-15")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (Reply(status=500, snippet="oops"), "server_error", "the receiver answered 500"),
        (Reply(status=302, snippet=""), "redirect", "the receiver answered 302"),
        (Failure(kind=FailureKind.TIMEOUT, detail="no answer within 5 s"), "timeout", "no answer within 5 s"),
        (Failure(kind=FailureKind.FORBIDDEN_ADDRESS, detail="no"), "forbidden_address", "no"),
    ],
)
async def test_a_receivers_fault_is_an_outcome(answer: Answer, outcome: str, error: str) -> None:
    """Any fault of the receiver is an outcome on record, never an exception, and the delivery is tried again."""
    scene = Scene(answers=[answer])
    await scene.run()

    assert (State.PENDING, error, outcome) == (scene.row.state, scene.row.error, scene.row.attempts[0].outcome)


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("answer", "spent", "seconds"),
    [
        (Reply(status=500, snippet=""), 0, 30),
        (Reply(status=500, snippet=""), 2, 120),
        (Reply(status=503, snippet="", retry_after=("900",)), 0, 900),
        (Reply(status=503, snippet="", retry_after=("Fri, 02 Jan 2026 03:19:05 GMT",)), 0, 900),
        (Failure(kind=FailureKind.TIMEOUT, detail="no answer within 5 s"), 0, 30),
    ],
)
async def test_a_failed_delivery_is_due_after_its_back_off(answer: Answer, spent: int, seconds: int) -> None:
    scene = Scene(answers=[answer])
    scene.row.budget_spent = spent
    await scene.run()

    scene.clock.elapsed += seconds - 0.001
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.002
    again = await scene.take()
    assert spent + 1 == again[0].budget_spent


class Stepped(FakeClock):
    """A clock with the monotonic time of another clock and a wall time that is hours off."""

    def __init__(self, clock: FakeClock, hours: int) -> None:
        super().__init__(clock.now() + timedelta(hours=hours))
        self._clock = clock

    def monotonic(self) -> float:
        """Return the monotonic time of the other clock."""
        return self._clock.monotonic()


@pytest.mark.req("DUR-07", "DEL-06")
@pytest.mark.parametrize("hours", [-30, 30])
async def test_a_date_in_retry_after_uses_the_ledgers_clock(hours: int) -> None:
    asked = Reply(status=503, snippet="", retry_after=("Fri, 02 Jan 2026 03:19:05 GMT",))
    scene = Scene(answers=[asked], during=lambda: setattr(scene.clock, "elapsed", 100.0))  # the duration of the request
    taken = await scene.take()
    await attempt(*taken, replace(scene.parts, clock=Stepped(scene.clock, hours)))

    scene.clock.elapsed += 799.999
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.002
    await scene.take()


@pytest.mark.req("DEL-06")
async def test_the_endpoints_schedule_is_used() -> None:
    """The waits and the number of attempts come from the endpoint row that the claim read."""
    scene = Scene(answers=[Reply(status=500, snippet="")] * 2)
    scene.ledger.target(DELIVERY, target(retries=replace(RETRIES, attempts_allowed=2, schedule=(5,))))
    await scene.run()
    scene.clock.elapsed += 5
    await scene.run()

    assert (State.DEAD_LETTER, 2) == (scene.row.state, len(scene.row.attempts))


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_the_last_attempt_makes_a_dead_letter() -> None:
    """A failure that spends the last attempt of the budget makes a dead letter, which is never due again."""
    scene = Scene(answers=[Reply(status=500, snippet="")])
    scene.row.budget_spent = RETRIES.attempts_allowed - 1
    logs = await scene.run_logged()
    scene.clock.elapsed += 1e6

    assert (State.DEAD_LETTER, "the receiver answered 500") == (scene.row.state, scene.row.error)
    assert [("dead_letter", None)] == [(line["state"], line["retry_in_seconds"]) for line in logs]
    assert await take(RING, scene.parts) is None


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_410_disables_the_endpoint() -> None:
    """A 410 fails the delivery and disables its endpoint, which is logged as a warning after the attempt."""
    scene = Scene(answers=[GONE])
    logs = await scene.run_logged()

    assert (State.FAILED, "gone") == (scene.row.state, scene.row.attempts[0].outcome)
    assert scene.row.claim.target is not None
    assert not scene.row.claim.target.enabled
    assert [("delivery.attempted", "warning"), ("endpoint.disabled", "warning")] == [
        (line["event"], line["log_level"]) for line in logs
    ]
    assert ("acme", RING.endpoint_id, DELIVERY, "corr-1", "the receiver answered 410 Gone") == tuple(
        logs[1][name] for name in ("tenant_id", "endpoint_id", "delivery_id", "correlation_id", "reason")
    )


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_an_unrecorded_410_disables_nothing() -> None:
    """If the lease was lost, the endpoint stays enabled, and no log line says that it was disabled."""
    scene = Scene(answers=[GONE])
    scene.parts = replace(scene.parts, transport=ScriptedTransport(GONE, during=scene.lose_lease))
    logs = await scene.run_logged()

    assert ["delivery.attempted"] == [line["event"] for line in logs]
    assert ([], 1) == (scene.meter.verdicts, scene.meter.leases_lost)
    assert scene.row.claim.target is not None
    assert scene.row.claim.target.enabled


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_410_that_cannot_be_audited_disables_nothing() -> None:
    """If the audit log takes no row, the outcome is on record, the endpoint stays enabled, and an error says so."""
    scene = Scene(answers=[GONE])
    scene.ledger.takes_audit_rows = False
    logs = await scene.run_logged()

    assert (State.FAILED, "gone") == (scene.row.state, scene.row.attempts[0].outcome)
    assert scene.row.claim.target is not None
    assert scene.row.claim.target.enabled
    assert [("delivery.attempted", "warning"), ("endpoint.not_disabled", "error")] == [
        (line["event"], line["log_level"]) for line in logs
    ]


@pytest.mark.req("DEL-03")
async def test_a_claimed_delivery_is_not_claimed_again() -> None:
    scene = Scene()
    first = await take(RING, scene.parts)

    assert first is not None
    assert await take(RING, scene.parts) is None
    await attempt(*first, scene.parts)
    assert await take(RING, scene.parts) is None


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_claim_is_given_back_unsent(is_lost: bool) -> None:
    """A claim that is given back at once is due again, with no attempt spent, and nothing was sent.

    It is counted and logged as given back unless its lease was lost.
    """
    scene = Scene()
    claimed = await scene.take()
    if is_lost:
        await scene.ledger.release(claimed[0], None)
    with structlog.testing.capture_logs() as logs:
        await give_back(claimed[0], scene.parts)

    row = scene.ledger.rows[DELIVERY]
    line = ("delivery.given_back", "the limits of the endpoint do not allow it now")
    assert ([] if is_lost else [line]) == [(each["event"], each["reason"]) for each in logs]
    assert (not is_lost) == scene.meter.returns
    assert (State.PENDING, 0, [], []) == (row.state, row.budget_spent, row.attempts, scene.transport.sent)


@pytest.mark.req("DEL-03")
async def test_without_its_secret_a_delivery_waits() -> None:
    """A delivery without its secret is not sent and spends no attempt: it waits, and its row says for what."""
    scene = Scene(signers=FixedSigners(error=CannotSign("the record was altered")))
    await scene.run()

    assert [] == scene.transport.sent
    assert [] == scene.row.attempts
    assert (State.PENDING, "secret", "the record was altered") == (
        scene.row.state,
        scene.row.waiting_for,
        scene.row.error,
    )
    assert await take(RING, scene.parts) is None, "it was claimed before its time"
    scene.clock.elapsed += 15
    await scene.take()


@pytest.mark.req("DEL-03")
async def test_without_signers_nothing_is_sent() -> None:
    """An empty set of signers is a defect: no request is sent, no attempt is spent, and the delivery is due later."""
    scene = Scene(signers=FixedSigners())

    with pytest.raises(Defect):
        await scene.run()

    scene.require_unsent()
    assert scene.row.waiting_for is None
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 20
    await scene.take()


@pytest.mark.req("DEL-03")
async def test_signers_are_closed_before_sending() -> None:
    """The block in which secrets are in plaintext has ended before the request is sent."""
    scene = Scene()
    open_while_sending: list[int] = []
    scene.transport = ScriptedTransport(OK, during=lambda: open_while_sending.append(scene.signers.open))
    scene.parts = replace(scene.parts, transport=scene.transport)
    await scene.run()

    assert [0] == open_while_sending


@pytest.mark.req("DEL-03")
async def test_a_missing_endpoint_cancels_the_delivery() -> None:
    scene = Scene()
    scene.ledger.target(DELIVERY, None)
    await scene.run()

    assert (State.CANCELLED, "the endpoint is gone") == (scene.row.state, scene.row.error)


def with_headers(signers: FixedSigners, during: Callable[[], object] | None = None) -> Scene:
    """Return a pipeline whose endpoint has headers of its own."""
    scene = Scene(signers=signers, during=during)
    scene.ledger.target(DELIVERY, WITH_HEADERS)
    return scene


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_are_sent_beside_hookseals() -> None:
    """The request has the values, masked, and our own headers, which are the same with and without them."""
    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN))
    await scene.run()
    plain = Scene(signers=FixedSigners("db:acme:n:2"))
    await plain.run()

    assert ([OWN], State.DELIVERED) == (scene.transport.own, scene.row.state)
    assert plain.transport.sent[0].headers == scene.transport.sent[0].headers


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_signers_end_before_and_values_after_the_request() -> None:
    in_memory: list[tuple[str, int, int]] = []
    signers = FixedSigners("db:acme:n:2", headers=OWN)

    class WatchingLedger(MemoryLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            in_memory.append(("recording", signers.open, signers.headers_open))
            return await super().record(claim, attempt, verdict, error)

    scene = with_headers(signers, during=lambda: in_memory.append(("sending", signers.open, signers.headers_open)))
    scene.ledger = WatchingLedger(scene.clock)
    scene.ledger.add(replace(CLAIM, target=WITH_HEADERS))
    scene.parts = replace(scene.parts, claims=scene.ledger, ledger=scene.ledger)
    await scene.run()

    assert [("sending", 0, 1), ("recording", 0, 0)] == in_memory
    assert {} == scene.transport.sent[0].sealed_headers


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_without_header_values_a_delivery_waits() -> None:
    """If the headers are not available, the delivery waits as without a secret: unsent, unspent, and counted."""
    scene = with_headers(FixedSigners("db:acme:n:2", headers_error=CannotSign("the record was altered")))
    await scene.run()

    assert ([], []) == (scene.transport.sent, scene.row.attempts)
    assert (State.PENDING, "secret", "the record was altered") == (
        scene.row.state,
        scene.row.waiting_for,
        scene.row.error,
    )
    assert [WaitingFor.SECRET] == scene.meter.holds
    scene.clock.elapsed += 20
    await scene.take()


class SlowHeaders(FixedSigners):
    """Signers that await `wait` before they hand out the headers."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__("db:acme:n:2", headers=OWN)
        self._wait = wait

    @asynccontextmanager
    async def headers(self, pointer: Pointer) -> AsyncIterator[Mapping[str, SecretMaterial]]:
        waiting = self._wait()
        if hasattr(waiting, "__await__"):
            await waiting
        async with super().headers(pointer) as values:
            yield values


async def test_an_endpoint_without_headers_fetches_none() -> None:
    scene = Scene(signers=SlowHeaders(lambda: pytest.fail("headers were fetched")))
    await scene.run()

    assert ([{}], State.DELIVERED) == (scene.transport.own, scene.row.state)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(("seconds", "begins"), [(START_WITHIN_SECONDS - 0.5, True), (START_WITHIN_SECONDS, False)])
async def test_fetching_headers_counts_against_the_time_to_begin(seconds: float, begins: bool) -> None:
    """A request begins within two seconds of its claim, including the time for the headers; else it is given back."""
    scene = with_headers(SlowHeaders(lambda: scene.clock.sleep(seconds)))
    await scene.run()

    assert [START_WITHIN_SECONDS][: int(begins)] == [request.start_by for request in scene.transport.sent]
    assert int(begins) == len(scene.row.attempts)
    assert int(not begins) == scene.meter.returns
    assert 0 == scene.signers.headers_open


async def cancel_at(scene: Scene, reached: asyncio.Event) -> None:
    """Start one delivery, and cancel it once it has reached this point."""
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(reached.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_delivery_cancelled_before_its_headers_is_given_back() -> None:
    """A delivery that is cancelled before its headers are fetched is given back, due at once, without an attempt."""
    fetching = asyncio.Event()

    async def hang() -> None:
        fetching.set()
        await asyncio.Event().wait()

    scene = with_headers(SlowHeaders(hang))
    await cancel_at(scene, fetching)

    scene.require_unsent()
    await scene.take()


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_request_cancelled_with_headers_is_unknown() -> None:
    sending = asyncio.Event()

    async def hang() -> None:
        sending.set()
        await asyncio.Event().wait()

    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN), during=hang)
    await cancel_at(scene, sending)

    assert (State.PENDING, ["unknown"]) == (scene.row.state, [kept.outcome for kept in scene.row.attempts])
    assert 0 == scene.signers.headers_open


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    ("name", "value"),
    [("webhook-signature", b"v1,forged"), ("X-Api-Key", b"k"), ("x-api-key", b"k\r\nx-admin: 1"), ("x-api-key", b"")],
)
async def test_invalid_own_headers_are_a_defect(name: str, value: bytes) -> None:
    """Invalid own headers are a defect: nothing is sent, no attempt is spent, and the delivery is due later.

    The operator is referred to the log, without the value.
    """
    scene = with_headers(FixedSigners("db:acme:n:2", headers={name: value}))
    with pytest.raises(Defect):
        await scene.run()

    scene.require_unsent()
    assert (None, "hookseal could not send it: see the worker's log") == (scene.row.waiting_for, scene.row.error)
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 20
    await scene.take()


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_no_log_or_record_has_a_value() -> None:
    reprs: list[str] = []
    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN))
    scene.transport = ScriptedTransport(OK, during=lambda: reprs.append(repr(scene.transport.sent[0])))
    scene.parts = replace(scene.parts, transport=scene.transport)
    logs = await scene.run_logged()

    assert 1 == len(reprs)
    assert "canary" not in f"{logs} {scene.row} {reprs}"


async def test_an_old_claim_is_given_back() -> None:
    """More than two seconds after its claim, a delivery is given back unsent, due at once."""
    scene = Scene()
    taken = await scene.take()
    scene.clock.elapsed += START_WITHIN_SECONDS + 0.001
    await attempt(*taken, scene.parts)

    scene.require_unsent()
    assert 1 == scene.meter.returns
    await scene.take()


@pytest.mark.req("DUR-03")
async def test_nothing_is_sent_while_no_outcome_can_be_recorded() -> None:
    """A delivery that was claimed before is given back, due at once, and counted; only the outage is logged."""
    scene = Scene()
    scene.parts = replace(scene.parts, may_begin=lambda: False)
    logs = await scene.run_logged()

    scene.require_unsent()
    assert ([], 1) == (logs, scene.meter.returns)
    await scene.take()


@pytest.mark.req("DEL-06")
async def test_a_missing_descriptor_spends_nothing() -> None:
    """A request without a free descriptor is given back, due at once; the error is raised to the caller."""
    scene = Scene(answers=[NotBegun(missing_resource="EMFILE"), OK])
    with pytest.raises(Exhausted, match=r"none left of what a connection takes \(EMFILE\)"):
        await scene.run()

    assert ([], State.PENDING, 0) == (scene.row.attempts, scene.row.state, scene.row.budget_spent)
    assert (1, 0) == (scene.meter.lacks, scene.meter.returns)
    await scene.run()
    assert State.DELIVERED is scene.row.state


@pytest.mark.req("DUR-03")
async def test_an_outcome_that_is_kept_is_counted_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that PostgreSQL refuses, and that is kept, is an attempt with a line that names what refuses it."""
    scene = Scene()

    async def refuse(*_: object) -> None:
        raise OutcomeKept("CheckViolationError, constraint theirs")

    monkeypatch.setattr(scene.ledger, "record", refuse)
    [line] = await scene.run_logged()

    assert ("delivery.outcome_refused", "delivered") == (line["event"], line["outcome"])
    assert "CheckViolationError, constraint theirs" == line["reason"]
    assert 1 == len(scene.meter.attempts)


@pytest.mark.req("DEL-06")
async def test_missing_resources_for_tls_spend_nothing() -> None:
    """If resources for a TLS context are lacking, the delivery is given back, due at once; the error is raised."""
    scene = with_identity(Exhausted("the TLS context cannot be made (EMFILE)"))
    with pytest.raises(Exhausted, match=r"cannot be made \(EMFILE\)"):
        await scene.run()

    scene.require_unsent()
    assert (1, 0, []) == (scene.meter.lacks, scene.meter.returns, scene.meter.holds)
    await scene.take()


@pytest.mark.req("DEL-06")
async def test_a_failure_of_one_worker_is_retried_unspent() -> None:
    """After a failure of this worker alone, the delivery is given back unspent and due later; no endpoint is held."""
    scene = with_identity(LocalFailure("too many are asked for: run more workers"))
    await scene.run()

    scene.require_unsent()
    assert scene.row.waiting_for is None
    assert "hookseal could not send it: too many are asked for: run more workers" == scene.row.error
    assert (0, 1, []) == (scene.meter.lacks, scene.meter.returns, scene.meter.holds)
    scene.clock.elapsed += 14.9
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.2
    await scene.take()


def with_identity(error: Exception) -> Scene:
    """Return a pipeline whose endpoint has a TLS identity that raises this error."""
    scene = Scene(signers=FixedSigners("db:acme:n:2", headers_error=error))
    scene.ledger.target(DELIVERY, target(tls_ref="db:acme:endpoint-tls-x:1"))
    return scene


class StallingSigners(FixedSigners):
    """Signers during whose use the process stalls."""

    stall: Callable[[], None]

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        """Yield the signers, then stall before the block ends."""
        async with super().signers(pointer) as given:
            yield given
            self.stall()


@pytest.mark.req("DUR-02", "DUR-07")
async def test_a_stalled_process_sends_nothing_late() -> None:
    """If the process stalls after a request was prepared in time, the request is not sent late: it is given back."""
    signers = StallingSigners("db:acme:n:1")
    scene = Scene(signers=signers)

    def nine_seconds() -> None:
        scene.clock.elapsed += 9

    signers.stall = nine_seconds
    await scene.run()

    scene.require_unsent()
    assert 1 == scene.meter.returns


@pytest.mark.req("DEL-03", "DEL-15")
async def test_a_request_cancelled_while_sending_is_unknown() -> None:
    """A request that is cancelled is on record as unknown, and its delivery is due again after the back-off."""
    sending = asyncio.Event()

    async def hang() -> None:
        sending.set()
        await asyncio.Event().wait()

    scene = Scene(during=hang)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(sending.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, "unknown") == (scene.row.state, scene.row.attempts[0].outcome)
    assert await take(RING, scene.parts) is None
    await scene.clock.sleep(40)
    await scene.take()


async def test_a_lost_lease_writes_nothing() -> None:
    """A worker that lost its lease while it sent records neither attempt nor state, and logs this."""
    scene = Scene()
    scene.parts = replace(scene.parts, transport=ScriptedTransport(OK, during=scene.lose_lease))
    logs = await scene.run_logged()

    assert (State.SENDING, []) == (scene.row.state, scene.row.attempts)
    assert [("delivery.attempted", "warning", False)] == [
        (line["event"], line["log_level"], line["recorded"]) for line in logs
    ]
    assert (1, 1) == (scene.meter.leases_lost, len(scene.meter.attempts))


@pytest.mark.parametrize("why", ["disabled", "gone", "no secret", "no context", "too old", "no socket"])
async def test_every_lost_lease_is_counted(why: str) -> None:
    """The fence also refuses to hold, end or give back a delivery: each lost lease is counted, and nothing else."""
    scene = Scene(signers=FixedSigners("db:acme:n:1", error=CannotSign() if why == "no secret" else None))
    if why == "no context":
        scene = with_identity(LocalFailure("too many are asked for: run more workers"))
    if why in {"disabled", "gone"}:
        scene.ledger.target(DELIVERY, target(enabled=False) if why == "disabled" else None)
    taken = await scene.take()
    scene.lose_lease()
    scene.clock.elapsed += 3 if why == "too old" else 0
    if why == "no socket":
        scene.parts = replace(scene.parts, transport=ScriptedTransport(NotBegun(missing_resource="EMFILE")))
    with suppress(Exhausted), structlog.testing.capture_logs() as logs:
        await attempt(*taken, scene.parts)

    assert (State.SENDING, "another") == (scene.row.state, scene.row.lease)
    assert (1, [], []) == (scene.meter.leases_lost, scene.meter.holds, scene.meter.attempts)
    assert (0, 0, []) == (scene.meter.returns, scene.meter.lacks, logs)


class HangingSigners(FixedSigners):
    """A store that never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.fetching = asyncio.Event()

    @asynccontextmanager
    async def signers(self, _pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        self.fetching.set()
        await asyncio.Event().wait()
        yield ()


@pytest.mark.req("DEL-03")
async def test_a_delivery_cancelled_before_its_request_is_given_back() -> None:
    """A delivery that is cancelled before its request exists is given back, due at once, without an attempt."""
    signers = HangingSigners()
    scene = Scene()
    scene.parts = replace(scene.parts, signers=signers)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(signers.fetching.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, []) == (scene.row.state, scene.row.attempts)
    await scene.take()


class SlowLedger(MemoryLedger):
    """A ledger that writes only after `may_write` is set."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.writing, self.may_write = asyncio.Event(), asyncio.Event()

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        self.writing.set()
        await self.may_write.wait()
        return await super().record(claim, attempt, verdict, error)

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        self.writing.set()
        await self.may_write.wait()
        return await super().release(claim, wait)


def with_ledger(scene: Scene, ledger: MemoryLedger) -> Scene:
    """Return the pipeline with the ledger of a worker over this one."""
    scene.ledger = ledger
    ledger.add(CLAIM)
    used = PersistentLedger(ledger, clock=scene.clock)
    used.give_up_after(5)
    scene.parts = replace(scene.parts, claims=ledger, ledger=used)
    return scene


async def cancel_while_writing(scene: Scene, *, times: int = 1) -> None:
    """Cancel the delivery while its write to the ledger waits, and then let it write."""
    ledger = SlowLedger(scene.clock)
    task = asyncio.create_task(with_ledger(scene, ledger).run())
    await asyncio.wait_for(ledger.writing.wait(), 60)
    for _ in range(times):
        task.cancel()
        await asyncio.wait({task}, timeout=0.01)
    assert not task.done()
    ledger.may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.req("DEL-03", "DEL-15")
async def test_a_delivery_cancelled_while_recording_is_recorded() -> None:
    """A delivery that is cancelled while its outcome is written is recorded, counted and logged first."""
    scene = Scene()
    await cancel_while_writing(scene, times=2)

    assert (State.DELIVERED, 1, 1) == (scene.row.state, len(scene.row.attempts), len(scene.meter.attempts))


async def test_a_release_ends_before_the_cancellation() -> None:
    scene = Scene(signers=FixedSigners("db:acme:n:1", error=CannotSign()))
    await cancel_while_writing(scene)

    assert (State.PENDING, []) == (scene.row.state, scene.row.attempts)


class UnreachableLedger(MemoryLedger):
    """A ledger whose PostgreSQL is unreachable after the claim."""

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Raise `Unavailable`."""
        raise Unavailable

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Raise `Unavailable`."""
        raise Unavailable("PostgreSQL does not answer")


async def test_a_failed_record_is_raised_and_not_counted() -> None:
    """If an outcome cannot be recorded, the error is raised, and the attempt is not counted or logged as recorded."""
    scene = Scene()
    with_ledger(scene, UnreachableLedger(scene.clock))
    with pytest.raises(Unavailable):
        await scene.run()

    assert ([], State.SENDING) == (scene.meter.attempts, scene.row.state)


async def test_a_failed_release_is_raised_and_not_counted() -> None:
    """If a delivery that only this worker cannot send cannot be given back either, it is not counted as given back."""
    scene = with_identity(LocalFailure("too many are asked for: run more workers"))
    with_ledger(scene, UnreachableLedger(scene.clock))
    scene.ledger.target(DELIVERY, target(tls_ref="db:acme:endpoint-tls-x:1"))
    with pytest.raises(Unavailable):
        await scene.run()

    assert (0, State.SENDING) == (scene.meter.returns, scene.row.state)


async def test_a_lost_outcome_of_a_cancelled_delivery_is_logged() -> None:
    class FailingLedger(SlowLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            await super().record(claim, attempt, verdict, error)
            raise Unavailable("PostgreSQL does not answer")

        async def recorded(self, made: Sequence[FinishedAttempt]) -> set[str]:
            raise Unavailable("PostgreSQL does not answer")

    scene = Scene()
    ledger = FailingLedger(scene.clock)
    task = asyncio.create_task(with_ledger(scene, ledger).run())
    await asyncio.wait_for(ledger.writing.wait(), 60)
    with structlog.testing.capture_logs() as logs:
        task.cancel()
        ledger.may_write.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [("delivery.unrecorded", DELIVERY)] == [(line["event"], line["delivery_id"]) for line in logs]


async def test_a_failed_give_back_is_logged() -> None:
    """If a cancelled claim cannot be given back, its delivery id is logged, and the cancellation continues."""
    signers = HangingSigners()
    scene = Scene()
    with_ledger(scene, UnreachableLedger(scene.clock))
    scene.parts = replace(scene.parts, signers=signers)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(signers.fetching.wait(), 60)
    with structlog.testing.capture_logs() as logs:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert State.SENDING is scene.row.state
    assert [("delivery.unrecorded", DELIVERY)] == [(line["event"], line["delivery_id"]) for line in logs]


async def test_each_attempt_is_counted_with_its_duration() -> None:
    scene = Scene()

    def last() -> None:
        scene.clock.elapsed += 1.25

    scene.parts = replace(scene.parts, transport=ScriptedTransport(Reply(status=500, snippet=""), OK, during=last))
    scene.clock.elapsed += 2
    await scene.run()
    scene.clock.elapsed += 30
    await scene.run()

    assert [(Outcome.SERVER_ERROR, 1.25, 2.0), (Outcome.DELIVERED, 1.25, None)] == scene.meter.attempts
    assert [Verdict(state=State.PENDING, retry_in_seconds=30), Verdict(state=State.DELIVERED)] == scene.meter.verdicts
    assert [1250, 1250] == [row.duration_ms for row in scene.row.attempts]


async def test_a_first_attempt_is_timed_from_the_call_that_published() -> None:
    """Not from the begin of its transaction, which may be long before; from that if the id says no time."""
    scene = Scene(answers=[OK, OK, OK])
    called_at = scene.clock.now()
    ids = (first_uuid7(called_at), str(uuid.uuid4()), first_uuid7(called_at + timedelta(days=1)))
    scene.clock.elapsed += 2
    for each in ids:
        ring = replace(RING, delivery_id=DeliveryId(each))
        scene.ledger.add(claim(ring=ring, created_at=called_at - timedelta(minutes=5)))
        claimed = await take(ring, scene.parts)
        assert claimed is not None
        await attempt(*claimed, scene.parts)

    assert [2.0, 302.0, 0.0] == [round(after or 0.0, 2) for _, _, after in scene.meter.attempts]


@pytest.mark.parametrize("waiting_for", [WaitingFor.SECRET, WaitingFor.ENDPOINT_DISABLED])
async def test_a_waiting_delivery_is_counted_by_its_reason(waiting_for: WaitingFor) -> None:
    scene = Scene(signers=FixedSigners(error=CannotSign()))
    scene.ledger.target(DELIVERY, target(enabled=waiting_for is WaitingFor.SECRET))
    await scene.run()

    assert ([waiting_for], [], 0) == (scene.meter.holds, scene.meter.attempts, scene.meter.leases_lost)


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.req("OPS-03", part="correlation-id")
async def test_an_attempt_is_logged_once() -> None:
    """An attempt is logged once, with all its facts except the path of the URL, which may contain a token."""
    logs = await Scene(answers=[Reply(status=500, snippet="")]).run_logged()

    assert [
        {
            "event": "delivery.attempted",
            "log_level": "warning",
            "tenant_id": "acme",
            "delivery_id": DELIVERY,
            "endpoint_id": RING.endpoint_id,
            "event_id": "evt.1:a",
            "event_type": "invoice.paid",
            "correlation_id": "corr-1",
            "attempt": 1,
            "state": "pending",
            "retry_in_seconds": 30.0,
            "outcome": "server_error",
            "status": 500,
            "duration_ms": 0,
            "signed_by": ["db:acme:n:2", "db:acme:n:1"],
            "host": "receiver.example",
            "bytes": len(CLAIM.body),
            "detail": "the receiver answered 500",
            "recorded": True,
        }
    ] == logs


@pytest.mark.req("OPS-03", part="logs")
async def test_a_success_is_logged_in_300_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """With ids that publish made, and a correlation id only if there is one."""
    scene = Scene(during=lambda: setattr(scene.clock, "elapsed", 0.125))
    scene.ledger.rows[DELIVERY].claim = claim(event_id=DELIVERY, correlation_id=None)
    log.configure(level="info", style="json")
    log.logger()
    try:
        await scene.run()
        await asyncio.sleep(0)  # lines are written at the end of a turn
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()

    text = capsys.readouterr().err
    line = json.loads(text)
    assert line.pop("at")
    assert {
        "event": "delivery.attempted",
        "level": "info",
        "tenant_id": "acme",
        "endpoint_id": RING.endpoint_id,
        "delivery_id": DELIVERY,
        "event_id": DELIVERY,
        "attempt": 1,
        "status": 204,
        "duration_ms": 125,
    } == line
    assert 296 == len(text)


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.parametrize(("status", "lines"), [(204, 0), (500, 1)])
async def test_a_failure_is_logged_where_successes_are_not(status: int, lines: int) -> None:
    scene = Scene(answers=[Reply(status=status, snippet="")])
    scene.parts = replace(scene.parts, successes_per_line=0)
    assert lines == len(await scene.run_logged())


@pytest.mark.req("OPS-03", part="logs")
def test_about_one_success_in_so_many_is_logged() -> None:
    numbers = random.Random(7)
    ids = [str(uuid.UUID(int=numbers.getrandbits(128))) for _ in range(10_000)]
    assert [10_000, 0] == [sum(is_logged(each, per_line) for each in ids) for per_line in (1, 0)]
    assert 60 < sum(is_logged(each, 100) for each in ids) < 140


@pytest.mark.req("OPS-03", part="logs")
async def test_a_late_410_is_logged_as_a_due_delivery() -> None:
    """A 410 of an endpoint that was changed meanwhile is logged as a due delivery, and nothing as disabled."""
    scene = Scene(answers=[GONE])

    def move() -> None:
        scene.ledger.target(DELIVERY, target(generation=2))

    scene.parts = replace(scene.parts, transport=ScriptedTransport(GONE, during=move))
    [line] = await scene.run_logged()

    assert ("delivery.attempted", "gone", "pending", 0.0, True) == tuple(
        line[name] for name in ("event", "outcome", "state", "retry_in_seconds", "recorded")
    )
    assert [Verdict(state=State.PENDING)] == scene.meter.verdicts


@pytest.mark.req("OPS-03", part="logs")
async def test_a_success_is_logged_with_its_correlation_id() -> None:
    [line] = await Scene().run_logged()
    assert ("info", "corr-1") == (line["log_level"], line["correlation_id"])


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.parametrize("status", [200, 500])
async def test_an_attempt_is_logged_with_the_trace_of_its_event(status: int) -> None:
    """The line has the trace id of the producer, and none if the producer gave no traceparent."""
    scene = Scene(answers=[Reply(status=status, snippet="")])
    scene.ledger.rows[DELIVERY].claim = claim(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    [line] = await scene.run_logged()

    assert "a" * 32 == line["trace_id"]
    assert "trace_id" not in (await Scene(answers=[Reply(status=status, snippet="")]).run_logged())[0]


def signature_headers(found: Target, *signers: EchoSigner) -> dict[str, str]:
    """Return the headers of a request that differ between schemes."""
    request = compose(CLAIM, found, signers, user_agent="u", start_by=1, longest_seconds=20)
    assert CLAIM.body is request.body, "the sent body is not the signed body"
    of_a_scheme = ("webhook-", "svix-", "x-webhook-", "x-tenant-id")
    return {name: value for name, value in request.headers.items() if name.startswith(of_a_scheme)}


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_the_request_has_body_id_time_and_signatures() -> None:
    """The frozen bytes are sent unchanged, with the id, the time of the claim and every signature, in order."""
    request = compose(
        CLAIM, TARGET, [EchoSigner("new"), EchoSigner("old")], user_agent="hookseal/1", start_by=1.5, longest_seconds=20
    )

    assert CLAIM.body is request.body
    assert {
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,new/{SIGNED_STANDARD} v1,old/{SIGNED_STANDARD}",
        "content-type": "application/json",
        "user-agent": "hookseal/1",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-hookseal-event-id": "evt.1:a",
        "x-correlation-id": "corr-1",
    } == request.headers
    assert (TARGET.pointer.url, 1.5, 5.0, "acme") == (
        request.url,
        request.start_by,
        request.timeout_seconds,
        request.tenant_id,
    )


@pytest.mark.req("OPS-03", part="correlation-id")
def test_tracing_headers_are_sent_only_if_given() -> None:
    """Correlation id and traceparent are sent if the producer gave them, and are never invented."""
    traced = compose(
        claim(correlation_id=None, traceparent="00-a-b-01"), TARGET, [], user_agent="u", start_by=1, longest_seconds=20
    ).headers

    assert ("00-a-b-01", None) == (traced["traceparent"], traced.get("tracestate"))
    assert "x-correlation-id" not in traced
    assert "traceparent" not in compose(CLAIM, TARGET, [], user_agent="u", start_by=1, longest_seconds=20).headers


@pytest.mark.req("OPS-03", part="trace-context")
def test_a_tracestate_is_sent_beside_its_traceparent() -> None:
    given = claim(traceparent="00-a-b-00", tracestate="a=1,b=2")
    headers = compose(given, TARGET, [], user_agent="u", start_by=1, longest_seconds=20).headers

    assert ("00-a-b-00", "a=1,b=2") == (headers["traceparent"], headers["tracestate"])


def test_no_request_outlasts_the_lease() -> None:
    """A time-out in the row that is longer than the installation allows is reduced to what it allows."""
    request = compose(CLAIM, TARGET, [], user_agent="u", start_by=1, longest_seconds=3.5)

    assert 3.5 == request.timeout_seconds


@pytest.mark.req("DEL-04", part="x-webhook")
def test_x_webhook_has_its_own_headers() -> None:
    """An `x-webhook` endpoint gets the headers of that scheme and the common ones, and none of `standard`."""
    signer = EchoSigner("only", Scheme.X_WEBHOOK)
    request = compose(CLAIM, target(scheme="x-webhook"), [signer], user_agent="u", start_by=1, longest_seconds=20)

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256=only/{SIGNED_X_WEBHOOK}",
        "content-type": "application/json",
        "user-agent": "u",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-hookseal-event-id": "evt.1:a",
        "x-correlation-id": "corr-1",
    } == request.headers


@pytest.mark.req("DEL-21", part="svix")
def test_svix_signs_as_standard_under_its_own_names() -> None:
    """It has none of the headers of `standard`; while an endpoint changes from one to the other it has both."""
    signed = f"v1,new/{SIGNED_STANDARD}"
    svix = {"svix-id": DELIVERY, "svix-timestamp": "1767323045", "svix-signature": signed}
    request = compose(
        CLAIM, target(scheme="svix"), [EchoSigner("new", Scheme.SVIX)], user_agent="u", start_by=1, longest_seconds=20
    )
    assert svix == {name: value for name, value in request.headers.items() if "svix" in name or "webhook" in name}
    assert svix | {
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,old/{SIGNED_STANDARD}",
    } == signature_headers(
        overlapping("svix", "standard", lead="previous"), EchoSigner("new", Scheme.SVIX), EchoSigner("old")
    )


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(("lead", "plain"), [("previous", "old"), ("current", "new")])
def test_an_x_webhook_overlap_names_both_signatures(lead: str, plain: str) -> None:
    found = overlapping("x-webhook", "x-webhook", lead=lead)

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256={plain}/{SIGNED_X_WEBHOOK}",
        "x-webhook-signature-current": f"sha256=new/{SIGNED_X_WEBHOOK}",
        "x-webhook-signature-previous": f"sha256=old/{SIGNED_X_WEBHOOK}",
    } == signature_headers(found, EchoSigner("new", Scheme.X_WEBHOOK), EchoSigner("old", Scheme.X_WEBHOOK))


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("lead", ["previous", "current"])
@pytest.mark.parametrize(
    ("current", "previous"), [(Scheme.STANDARD, Scheme.X_WEBHOOK), (Scheme.X_WEBHOOK, Scheme.STANDARD)]
)
def test_a_request_of_two_schemes_has_both(current: Scheme, previous: Scheme, lead: str) -> None:
    """Both sets of headers are sent, each signed once, with the secret of its scheme, whatever `lead` is."""
    refs = {current: "new", previous: "old"}

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256={refs[Scheme.X_WEBHOOK]}/{SIGNED_X_WEBHOOK}",
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,{refs[Scheme.STANDARD]}/{SIGNED_STANDARD}",
    } == signature_headers(
        overlapping(current, previous, lead=lead), EchoSigner("new", current), EchoSigner("old", previous)
    )


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    "shown",
    [
        *(repr, str, "{}".format, "{0!r}".format, lambda it: repr(it.sealed_headers)),
        lambda it: msgspec.json.encode(it, enc_hook=str).decode(),
    ],
)
def test_no_text_form_shows_a_value(shown: Callable[[Request], str]) -> None:
    """No text form of a request contains a value of the endpoint's own headers."""
    text = shown(REQUEST)

    assert CANARY not in text
    assert CANARY.encode().hex() not in text


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_request_is_not_pickled_or_copied(copied: Callable[[Request], object]) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copied(REQUEST)


def test_the_default_is_no_own_headers() -> None:
    one, other = (
        Request(tenant_id=TenantId("acme"), url="u", headers={}, body=b"", start_by=2, timeout_seconds=5)
        for _ in range(2)
    )

    assert {} == one.sealed_headers
    assert one.sealed_headers is not other.sealed_headers


class Tracing:
    """Sends each request with the traceparent of a span of its own."""

    async def send(self, transport: Transport, claim: Claim, request: Request) -> Answer:
        headers = {**request.headers, "traceparent": f"span-{claim.number}"}
        return await transport.send(msgspec.structs.replace(request, headers=headers))


@pytest.mark.req("OPS-03", part="spans")
async def test_with_tracing_each_attempt_sends_a_span_of_its_own() -> None:
    """And what is not begun for another reason asks for none."""
    scene = Scene()
    scene.parts = replace(scene.parts, tracing=Tracing())
    await scene.run()
    unrecordable = Scene()
    unrecordable.parts = replace(unrecordable.parts, tracing=Tracing(), may_begin=lambda: False)
    await unrecordable.run()

    assert ["span-1"] == [each.headers["traceparent"] for each in scene.transport.sent]
    unrecordable.require_unsent()
