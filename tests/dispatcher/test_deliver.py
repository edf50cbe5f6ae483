"""The ten steps, over doubles."""

from datetime import timedelta

import pytest
import structlog

from hookseal.dispatcher.core.deliver import by_endpoint, give_back
from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, Pace, Reply, State
from hookseal.errors import CannotSign, Defect
from hookseal.ground.ids import EndpointId
from tests.dispatcher.scene import GONE, OK, Scene, attempt, take
from tests.doubles.claims import CLAIM, DELIVERY, RETRIES, RING, TARGET, overlapping, target
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport

OTHER = EndpointId("01900000-0000-7000-8000-0000000000ee")


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
    """A failed delivery is due after its back-off, or after `Retry-After` if that is longer, and no sooner."""
    scene = Scene(answers=[answer])
    scene.row.budget_spent = spent
    await scene.run()

    scene.clock.elapsed += seconds - 0.001
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.002
    again = await take(RING, scene.parts)
    assert again is not None
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
    """A date in `Retry-After` is compared with the clock of the ledger: that of the worker may be hours off."""
    asked = Reply(status=503, snippet="", retry_after=("Fri, 02 Jan 2026 03:19:05 GMT",))
    scene = Scene(answers=[asked], during=lambda: setattr(scene.clock, "elapsed", 100.0))  # the duration of the request
    taken = await take(RING, scene.parts)
    assert taken is not None
    await attempt(*taken, replace(scene.parts, clock=Stepped(scene.clock, hours)))

    scene.clock.elapsed += 799.999
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.002
    assert await take(RING, scene.parts) is not None


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


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
async def test_an_overlap_of_two_schemes_sends_both() -> None:
    """While an endpoint changes its scheme, one request has both signatures, and the attempt names both secrets."""
    scene = Scene()
    scene.ledger.target(DELIVERY, overlapping("standard", "x-webhook"))
    await scene.run()

    [sent] = scene.transport.sent
    assert sent.headers["webhook-signature"].startswith("v1,db:acme:n:2/")
    assert sent.headers["x-webhook-signature"].startswith("sha256=db:acme:n:1/")
    assert ("db:acme:n:2", "db:acme:n:1") == scene.row.attempts[0].signed_by


@pytest.mark.req("DEL-03")
async def test_a_claimed_delivery_is_not_claimed_again() -> None:
    """A ring for a delivery that is claimed or finished claims nothing."""
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
    claimed = await take(RING, scene.parts)
    assert claimed is not None
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
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-03")
async def test_without_signers_nothing_is_sent() -> None:
    """An empty set of signers is a defect: no request is sent, no attempt is spent, and the delivery is due later."""
    scene = Scene(signers=FixedSigners())

    with pytest.raises(Defect):
        await scene.run()

    assert ([], [], State.PENDING, None) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.row.waiting_for,
    )
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 20
    assert await take(RING, scene.parts) is not None


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
async def test_a_disabled_endpoints_delivery_waits() -> None:
    """A delivery for a disabled endpoint is not sent, and waits."""
    scene = Scene()
    scene.ledger.target(DELIVERY, target(enabled=False))
    await scene.run()

    assert ([], "endpoint_disabled", State.PENDING) == (
        scene.transport.sent,
        scene.row.waiting_for,
        scene.row.state,
    )


@pytest.mark.req("DEL-03")
async def test_a_missing_endpoint_cancels_the_delivery() -> None:
    """A delivery whose endpoint is missing is cancelled."""
    scene = Scene()
    scene.ledger.target(DELIVERY, None)
    await scene.run()

    assert (State.CANCELLED, "the endpoint is gone") == (scene.row.state, scene.row.error)
