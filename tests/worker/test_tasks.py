"""What a ring starts, over doubles."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
import structlog

from hookseal.dispatcher.model import Attempt, Claim, NotBegun, Reply, Ring, State, Verdict
from hookseal.dispatcher.ports import Parts
from hookseal.ground.errors import Busy, Unavailable
from hookseal.queue.taking import RingAgain
from hookseal.worker.inflight import InFlight
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.movement import Movement
from hookseal.worker.tasks import CLAIMS_AT_ONCE, Answering
from tests.doubles.claims import CLAIM, DELIVERY, ENDPOINT
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, Row
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport
from tests.worker.figures import figures

VALID = ("acme", ENDPOINT, DELIVERY)
ANOTHER_ID = "01900000-0000-7000-8000-0000000000ff"


class FailingLedger(MemoryLedger):
    """Raises what it was given when it is asked to claim, or to record."""

    on_claim: Exception | None = None
    on_record: Exception | None = None

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        """Fail, or claim."""
        if self.on_claim is not None:
            raise self.on_claim
        return await super().claim(ring, token)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Fail, or record."""
        if self.on_record is not None:
            raise self.on_record
        return await super().record(claim, attempt, verdict, error)


@dataclass
class Scene:
    """A worker with one slot and one pending delivery, whose receiver answers once `reply` is set."""

    reply: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        clock = self.clock = FakeClock()
        self.ledger = FailingLedger(clock)
        self.ledger.add(CLAIM)
        self.transport = ScriptedTransport(Reply(status=204, snippet=""), during=self.reply.wait)
        self.in_flight = InFlight(1)
        self.meter = WorkerMeter()
        parts = Parts(
            ledger=self.ledger,
            transport=self.transport,
            signers=FixedSigners("db:acme:n:1"),
            clock=clock,
            jitter=lambda: 0.5,
            allow_http=False,
            longest_seconds=20,
            user_agent="hookseal/test",
            meter=self.meter,
            log=structlog.get_logger(),
        )
        self.movement = Movement(clock, sweep_seconds=15)
        self.answering = Answering(parts, self.in_flight, self.meter, self.movement, slot_seconds=0.01)

    @property
    def row(self) -> Row:
        """Return how the delivery stands."""
        return self.ledger.rows[DELIVERY]

    async def ring(self, *arguments: object) -> None:
        """Ring as arq does."""
        await self.answering.deliver({}, *(arguments or VALID))

    def counted(self, name: str, label: str | None = None) -> float:
        """Return a figure."""
        return figures(self.meter)[name, label]

    async def end(self) -> None:
        """Let the receiver answer, and wait until nothing is in flight."""
        self.reply.set()
        assert 0 == await self.in_flight.drain(5)


@pytest.mark.req("DEL-03")
async def test_the_job_ends_with_the_claim() -> None:
    """The job of arq is over once the delivery is claimed; the request goes on in a slot, which it gives back."""
    scene = Scene()
    await scene.ring()

    assert (State.SENDING, 1, True) == (scene.row.state, len(scene.in_flight), scene.in_flight.is_full)
    await scene.end()
    assert (State.DELIVERED, 0, False) == (scene.row.state, len(scene.in_flight), scene.in_flight.is_full)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(("acme", ENDPOINT), id="too-few"),
        pytest.param((*VALID, "x"), id="too-many"),
        pytest.param(("acme", ENDPOINT, 7), id="not-text"),
        pytest.param(("acme", ENDPOINT, None), id="none"),
        pytest.param((["acme"], ENDPOINT, DELIVERY), id="list"),
        pytest.param(("_system", ENDPOINT, DELIVERY), id="reserved-tenant"),
        pytest.param(("Acme' OR 1=1", ENDPOINT, DELIVERY), id="not-a-tenant"),
        pytest.param(("acme", ENDPOINT, DELIVERY.upper()), id="another-spelling"),
        pytest.param(("acme", "../1", DELIVERY), id="not-an-endpoint"),
    ],
)
@pytest.mark.req("DEL-02")
async def test_a_malformed_ring_is_dropped(arguments: tuple[object, ...]) -> None:
    """A ring that is not three ids is dropped, told, and asks PostgreSQL nothing."""
    scene = Scene()
    scene.ledger.on_claim = AssertionError("asked")
    with structlog.testing.capture_logs() as logs:
        await scene.answering.deliver({}, *arguments)

    assert ["ring.dropped"] == [line["event"] for line in logs]
    assert 1.0 == scene.counted("hookseal_rings_dropped_total", "unreadable")
    assert (State.PENDING, False) == (scene.row.state, scene.in_flight.is_full)


@pytest.mark.req("SEC-08", "DEL-02")
@pytest.mark.parametrize(
    "forged",
    [("globex", ENDPOINT, DELIVERY), ("acme", ANOTHER_ID, DELIVERY), ("acme", ENDPOINT, ANOTHER_ID)],
)
async def test_a_forged_ring_claims_nothing(forged: tuple[str, str, str]) -> None:
    """A ring with another tenant or endpoint than the delivery's claims nothing, keeps no slot, and is counted."""
    scene = Scene()
    with structlog.testing.capture_logs() as logs:
        await scene.ring(*forged)

    assert ([], State.PENDING, False) == (logs, scene.row.state, scene.in_flight.is_full)
    assert 1.0 == scene.counted("hookseal_rings_dropped_total", "not_due")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("error", [None, Busy(), Unavailable("PostgreSQL does not answer"), KeyError("a column")])
async def test_a_delivery_that_came_through_the_queue(error: Exception | None) -> None:
    """Whatever becomes of its claim, a delivery came through the queue; a forged ring shows nothing of the kind."""
    scene = Scene()
    scene.clock.elapsed += scene.movement.still_seconds
    await scene.ring("globex", ENDPOINT, DELIVERY)
    before = scene.movement.is_still
    scene.ledger.on_claim = error
    with suppress(RingAgain):
        await scene.ring()

    assert (True, False) == (before, scene.movement.is_still)
    await scene.end()


async def test_a_full_worker_claims_nothing() -> None:
    """Without a free slot the ring is put off for a second, and the delivery is left to others."""
    scene = Scene()
    await scene.in_flight.slot()
    with pytest.raises(RingAgain) as put_off:
        await scene.ring()

    assert (1, State.PENDING) == (put_off.value.seconds, scene.row.state)


@pytest.mark.req("DUR-05")
async def test_a_worker_on_its_way_out_claims_nothing() -> None:
    """Once nothing is started any more, a ring is put back at once, though a slot is free, which stays free."""
    scene = Scene()
    scene.in_flight.close()
    with pytest.raises(RingAgain) as put_off:
        await scene.ring()

    assert (0, State.PENDING) == (put_off.value.seconds, scene.row.state)
    assert (0, False) == (len(scene.in_flight), scene.in_flight.is_full)


async def test_an_outage_at_the_claim() -> None:
    """While PostgreSQL does not answer the ring is put off for a second, told, and its slot is free."""
    scene = Scene()
    scene.ledger.on_claim = Unavailable("PostgreSQL does not answer (TimeoutError)")
    with structlog.testing.capture_logs() as logs, pytest.raises(RingAgain) as put_off:
        await scene.ring()

    assert (1, False) == (put_off.value.seconds, scene.in_flight.is_full)
    assert ["claim.failed"] == [line["event"] for line in logs]
    assert (1.0, 0.0) == (
        scene.counted("hookseal_claims_failed_total"),
        scene.counted("hookseal_rings_dropped_total", "not_due"),
    )
    scene.ledger.on_claim = None
    await scene.ring()
    await scene.end()
    assert State.DELIVERED is scene.row.state


async def test_a_defect_at_the_claim() -> None:
    """A defect in the claim is told, keeps no slot, and reaches nobody: arq would only bury it."""
    scene = Scene()
    scene.ledger.on_claim = KeyError("a column")
    with structlog.testing.capture_logs() as logs:
        await scene.ring()

    assert (["claim.defect"], False) == ([line["event"] for line in logs], scene.in_flight.is_full)
    assert (1.0, 0.0) == (
        scene.counted("hookseal_claims_failed_total"),
        scene.counted("hookseal_rings_dropped_total", "not_due"),
    )


async def test_a_job_that_is_cut_off_at_the_claim() -> None:
    """A claim that is cancelled keeps no slot."""
    scene = Scene()
    asked = asyncio.Event()

    class Hanging(FailingLedger):
        async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
            asked.set()
            await asyncio.Event().wait()
            return await super().claim(ring, token)

    scene.ledger.__class__ = Hanging
    job = asyncio.create_task(scene.ring())
    await asyncio.wait_for(asked.wait(), 60)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job

    assert not scene.in_flight.is_full


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unavailable("PostgreSQL does not answer"), "delivery.unrecorded"), (KeyError("a"), "delivery.defect")],
)
async def test_what_cannot_be_recorded_is_told(error: Exception, event: str) -> None:
    """An outcome that could not be written is told with the delivery and the attempt; the slot is free."""
    scene = Scene()
    scene.ledger.on_record = error
    with structlog.testing.capture_logs() as logs:
        await scene.ring()
        await scene.end()

    [told] = [line for line in logs if line["event"] == event]
    assert ("acme", DELIVERY, 1, "error") == tuple(
        told[name] for name in ("tenant_id", "delivery_id", "attempt", "log_level")
    )
    assert not scene.in_flight.is_full


async def test_a_ring_that_finds_no_permit_is_rung_again() -> None:
    """While every claim under way waits for PostgreSQL a ring is tried again, before arq would drop its job."""
    scene = Scene()
    for _ in range(CLAIMS_AT_ONCE):
        await scene.answering._claiming.acquire()
    with pytest.raises(RingAgain):
        await scene.ring()

    assert 1.0 == scene.counted("hookseal_claims_failed_total")
    assert not scene.in_flight.is_full


async def test_a_busy_delivery_is_rung_again_soon_and_is_no_failure() -> None:
    """Somebody else changes it: that is no outage, so it is not counted as one."""
    scene = Scene()
    scene.ledger.on_claim = Busy()
    with pytest.raises(RingAgain) as again:
        await scene.ring()

    assert (0.2, False) == (again.value.seconds, again.value.keeps_place)
    assert 0.0 == scene.counted("hookseal_claims_failed_total")
    assert not scene.in_flight.is_full


@pytest.mark.req("DEL-06")
async def test_it_rests_while_this_machine_lacks_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery for which there was none is given back, and nothing begins for a while: longer, while it lasts."""
    scene = Scene()
    scene.transport = ScriptedTransport(*[NotBegun(lack="EMFILE")] * 9)
    scene.answering._parts = replace(scene.answering._parts, transport=scene.transport)
    rests: list[float] = []
    monkeypatch.setattr(scene.in_flight, "rest", rests.append)
    with structlog.testing.capture_logs() as logs:
        for elapsed in (0, 0, 0, 0, 0, 0, 16, 17):
            scene.clock.elapsed += elapsed
            await scene.ring()
            await scene.end()

    assert [0.5, 1, 2, 4, 8, 8, 8, 0.5] == rests
    assert rests == [line["rests_seconds"] for line in logs if line["event"] == "worker.exhausted"]
    assert 8.0 == scene.counted("hookseal_exhausted_total")
    assert (State.PENDING, [], 0) == (scene.row.state, scene.row.attempts, scene.row.budget_spent)


async def test_one_rest_at_a_time() -> None:
    """What is given back while nothing begins makes the rest no longer."""
    scene = Scene()
    scene.transport = ScriptedTransport(NotBegun(lack="EMFILE"))
    scene.answering._parts = replace(scene.answering._parts, transport=scene.transport)
    await scene.ring()
    scene.in_flight.rest(3_600)
    with structlog.testing.capture_logs() as logs:
        await scene.end()
    scene.in_flight.close()

    assert ["delivery.given_back"] == [line["event"] for line in logs]
