"""The ten steps, over doubles."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import structlog

from hookseal.dispatcher.deliver import START_WITHIN_SECONDS, attempt, take
from hookseal.dispatcher.model import Answer, Attempt, Claim, Failure, FailureKind, Reply, State
from hookseal.dispatcher.ports import Parts, Signer
from hookseal.ground.errors import CannotSign, Defect
from hookseal.ground.pointer import Pointer
from tests.doubles.claims import CLAIM, DELIVERY, RING, target
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, Row
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport

OK = Reply(status=204, snippet="thanks")


@dataclass
class Scene:
    """A pipeline over doubles with one pending delivery."""

    answers: list[Answer] = field(default_factory=lambda: [OK])
    signers: FixedSigners = field(default_factory=lambda: FixedSigners("db:acme:n:2", "db:acme:n:1"))
    during: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = MemoryLedger(self.clock)
        self.ledger.add(CLAIM)
        self.transport = ScriptedTransport(*self.answers, during=self.during)
        self.parts = Parts(
            ledger=self.ledger,
            transport=self.transport,
            signers=self.signers,
            clock=self.clock,
            jitter=lambda: 0.5,
            allow_http=False,
            user_agent="hookseal/test",
            longest_seconds=20,
            log=structlog.get_logger(),
        )

    @property
    def row(self) -> Row:
        """Return how the delivery stands."""
        return self.ledger.rows[DELIVERY]

    async def run(self) -> None:
        """Ring once."""
        taken = await take(RING, self.parts)
        assert taken is not None
        await attempt(*taken, self.parts)


@pytest.mark.req("DEL-03", "DEL-15")
async def test_delivers() -> None:
    """A 2xx ends the delivery, with one attempt on record that names what signed it, current first."""
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
@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (Reply(status=500, snippet="oops"), "server_error", "the receiver answered 500"),
        (Reply(status=302, snippet=""), "redirect", "the receiver answered 302"),
        (Failure(kind=FailureKind.TIMEOUT, detail="no answer within 5 s"), "timeout", "no answer within 5 s"),
        (Failure(kind=FailureKind.FORBIDDEN_ADDRESS, detail="no"), "forbidden_address", "no"),
    ],
)
async def test_fails(answer: Answer, outcome: str, error: str) -> None:
    """Whatever the receiver does wrong is an outcome on record, never an exception."""
    scene = Scene(answers=[answer])
    await scene.run()

    assert (State.FAILED, error, outcome) == (scene.row.state, scene.row.error, scene.row.attempts[0].outcome)


@pytest.mark.req("DEL-03")
async def test_claims_once() -> None:
    """A ring for what is claimed, over, or of another tenant finds nothing to do."""
    scene = Scene()
    first = await take(RING, scene.parts)

    assert first is not None
    assert await take(RING, scene.parts) is None
    await attempt(*first, scene.parts)
    assert await take(RING, scene.parts) is None


@pytest.mark.req("DEL-03")
async def test_no_secret_no_request() -> None:
    """A delivery whose secret cannot be had is not sent and spends nothing: it waits, and says for what."""
    scene = Scene(signers=FixedSigners(error=CannotSign("the record was altered")))
    await scene.run()

    assert [] == scene.transport.sent
    assert [] == scene.row.attempts
    assert (State.PENDING, "secret", "the record was altered") == (
        scene.row.state,
        scene.row.waiting_for,
        scene.row.error,
    )
    assert await take(RING, scene.parts) is None, "not before its time"
    scene.clock.elapsed += 15
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-03")
async def test_never_unsigned() -> None:
    """Signers that hand out nothing are a defect; no request leaves."""
    scene = Scene(signers=FixedSigners())

    with pytest.raises(Defect):
        await scene.run()

    assert ([], State.PENDING) == (scene.transport.sent, scene.row.state)


@pytest.mark.req("DEL-03")
async def test_signers_are_closed_before_sending() -> None:
    """The block in which plaintext lives is over before the request is sent."""
    scene = Scene()
    open_while_sending: list[int] = []
    scene.transport = ScriptedTransport(OK, during=lambda: open_while_sending.append(scene.signers.open))
    scene.parts = replace(scene.parts, transport=scene.transport)
    await scene.run()

    assert [0] == open_while_sending


@pytest.mark.req("DEL-03")
async def test_disabled_endpoint_waits() -> None:
    """A disabled endpoint's delivery waits unsent."""
    scene = Scene()
    scene.ledger.target(DELIVERY, target(enabled=False))
    await scene.run()

    assert ([], "endpoint_disabled", State.PENDING) == (
        scene.transport.sent,
        scene.row.waiting_for,
        scene.row.state,
    )


@pytest.mark.req("DEL-03")
async def test_gone_endpoint_cancels() -> None:
    """Without its endpoint a delivery is cancelled."""
    scene = Scene()
    scene.ledger.target(DELIVERY, None)
    await scene.run()

    assert (State.CANCELLED, "the endpoint is gone") == (scene.row.state, scene.row.error)


async def test_an_old_claim_is_given_back() -> None:
    """No request starts later than two seconds after its claim: the delivery is given back, due at once."""
    scene = Scene()
    taken = await take(RING, scene.parts)
    assert taken is not None
    scene.clock.elapsed += START_WITHIN_SECONDS + 0.001
    await attempt(*taken, scene.parts)

    assert ([], [], State.PENDING) == (scene.transport.sent, scene.row.attempts, scene.row.state)
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-03", "DEL-15")
async def test_cut_off_in_mid_send() -> None:
    """A request that is cut off is on record as unknown, and its delivery is due again at once."""
    sending = asyncio.Event()

    async def hang() -> None:
        sending.set()
        await asyncio.Event().wait()

    scene = Scene(during=hang)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(sending.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, "unknown") == (scene.row.state, scene.row.attempts[0].outcome)
    assert await take(RING, scene.parts) is not None


async def test_a_lost_lease_writes_nothing() -> None:
    """A worker whose lease moved on while it sent writes neither attempt nor state, and says so."""
    scene = Scene()

    def lose() -> None:
        scene.row.lease = "another"

    scene.transport = ScriptedTransport(OK, during=lose)
    scene.parts = replace(scene.parts, transport=scene.transport)
    with structlog.testing.capture_logs() as logs:
        await scene.run()

    assert (State.SENDING, []) == (scene.row.state, scene.row.attempts)
    assert [False] == [line["recorded"] for line in logs if line["event"] == "delivery.attempted"]


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.req("OPS-03", part="correlation-id")
async def test_one_wide_event() -> None:
    """An attempt is told once, with everything, but for the path of the url, which may hold a token."""
    scene = Scene()
    with structlog.testing.capture_logs() as logs:
        await scene.run()

    assert [
        {
            "event": "delivery.attempted",
            "log_level": "info",
            "tenant_id": "acme",
            "delivery_id": DELIVERY,
            "endpoint_id": RING.endpoint_id,
            "event_id": "evt_1",
            "event_type": "invoice.paid",
            "correlation_id": "corr-1",
            "attempt": 1,
            "state": "delivered",
            "outcome": "delivered",
            "status": 204,
            "duration_ms": 0,
            "signed_by": ["db:acme:n:2", "db:acme:n:1"],
            "host": "receiver.example",
            "bytes": len(CLAIM.body),
            "detail": None,
            "recorded": True,
        }
    ] == logs


@pytest.mark.req("DEL-03")
async def test_cut_off_while_the_secret_is_fetched() -> None:
    """A delivery that is cut off before its request exists is given back, due at once, without an attempt."""
    fetching = asyncio.Event()

    class HangingSigners:
        @asynccontextmanager
        async def signers(self, _pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
            fetching.set()
            await asyncio.Event().wait()
            yield ()

    scene = Scene()
    scene.parts = replace(scene.parts, signers=HangingSigners())
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(fetching.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, []) == (scene.row.state, scene.row.attempts)
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-03", "DEL-15")
async def test_cut_off_while_recording() -> None:
    """A worker that is stopped while it writes an outcome finishes writing it first."""
    writing, go_on = asyncio.Event(), asyncio.Event()

    class SlowLedger(MemoryLedger):
        async def record(self, claim: Claim, attempt: Attempt, state: State, error: str | None) -> bool:
            writing.set()
            await go_on.wait()
            return await super().record(claim, attempt, state, error)

    scene = Scene()
    scene.ledger = SlowLedger(scene.clock)
    scene.ledger.add(CLAIM)
    scene.parts = replace(scene.parts, ledger=scene.ledger)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(writing.wait(), 5)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.DELIVERED, 1) == (scene.row.state, len(scene.row.attempts))
