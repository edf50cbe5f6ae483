"""The handling of rings: claims, requests and failures, over doubles."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Never

import pytest
import structlog

from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    Claimed,
    NotBegun,
    Pace,
    Reply,
    Ring,
    State,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.lanes.lane import LOCKED_SECONDS
from hookseal.dispatcher.lanes.tenants import MANY_UNANSWERED, MOST_AFTER_PAUSE, MOST_UNANSWERED, PAUSE_SECONDS
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.errors import CannotSign, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.worker import ring_handler
from hookseal.worker.inflight import MOST_BYTES, InFlight
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Passes
from hookseal.worker.recorder import PersistentLedger
from hookseal.worker.ring_handler import (
    BUSY_SECONDS,
    FAILED_SECONDS,
    LOOK_SECONDS,
    MOST_KEPT,
    UNRECORDABLE_SECONDS,
    Movement,
    RingHandler,
)
from tests.doubles.claims import CLAIM, DELIVERY, ENDPOINT, RING, TARGET
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, Row
from tests.doubles.parts import parts
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport
from tests.worker.figures import figures
from tests.worker.waiting import eventually

ANOTHER_ID = "01900000-0000-7000-8000-0000000000ff"
GLOBEX = replace(RING, tenant_id=TenantId("globex"), endpoint_id=EndpointId(ANOTHER_ID))
OK = Reply(status=204, snippet="")


def passes() -> Passes:
    return Passes("handling", SystemClock())


class FailingLedger(MemoryLedger):
    """Raises the given error when it claims or records; reports those in `held`, `behind` and `locked` so."""

    on_claim: Exception | None = None
    on_record: Exception | None = None
    held: frozenset[Ring] = frozenset()
    behind: frozenset[Ring] = frozenset()
    locked: frozenset[Ring] = frozenset()
    may_record: asyncio.Event | None = None
    claims = 0

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        self.claims += 1
        if self.on_claim is not None:
            raise self.on_claim
        free = [r for r in rings if r not in self.held | self.behind | self.locked]
        found = await super().claim_all(free, token, most_bytes=most_bytes)
        behind, locked = ([r for r in rings if r in them] for them in (self.behind, self.locked))
        busy = [*found.busy, *(r for r in rings if r in self.held)]
        return replace(found, busy=busy, behind=behind, locked=locked)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        if self.on_record is not None:
            raise self.on_record
        if self.may_record is not None:
            await self.may_record.wait()
        return await super().record(claim, attempt, verdict, error)


@dataclass
class Scene:
    """A worker with one pending delivery, whose receiver answers when `reply` is set."""

    reply: asyncio.Event = field(default_factory=asyncio.Event)
    signers: FixedSigners = field(default_factory=lambda: FixedSigners("db:acme:n:1"))
    slots: int = 4
    ledger_type: type[FailingLedger] = FailingLedger

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = self.ledger_type(self.clock)
        self.ledger.add(CLAIM)
        self.in_flight = InFlight(self.slots)
        self.meter = WorkerMeter()
        self.transport = ScriptedTransport(*[OK] * 4, during=self.reply.wait)
        self.parts = parts(self.ledger, self.clock, transport=self.transport, signers=self.signers, meter=self.meter)
        self.movement = Movement(self.clock, sweep_seconds=15)
        self.lanes = Lanes(32)
        self.handler = RingHandler(self.parts, self.in_flight, self.meter, self.movement, lanes=self.lanes)

    @property
    def row(self) -> Row:
        return self.ledger.rows[DELIVERY]

    def counted(self, name: str, label: str | None = None) -> float:
        return figures(self.meter)[name, label]

    @property
    def dropped(self) -> float:
        """Return the number of dropped rings that were not due."""
        return self.counted("hookseal_rings_dropped_total", "not_due")

    def add(self, number: int, ring: Ring = RING) -> Ring:
        ring = replace(ring, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012d}"))
        self.ledger.add(replace(CLAIM, ring=ring))
        return ring

    def lack(self, times: int) -> None:
        """Make that many requests fail because no socket can be opened."""
        self.send_by(ScriptedTransport(*[NotBegun(missing_resource="EMFILE")] * times))

    def send_by(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.handler._parts = replace(self.handler._parts, transport=transport)

    async def end(self) -> None:
        """Let the receiver answer, and wait until nothing is in flight."""
        self.reply.set()
        assert 0 == await self.in_flight.drain(5)
        assert (4, 0) == (self.in_flight.room, len(self.in_flight))


@pytest.mark.req("DEL-03")
async def test_requests_continue_after_the_claim() -> None:
    """The handler is free after the claim; each request continues in its slot and then frees it."""
    scene = Scene()
    rings = [RING, scene.add(1), scene.add(2)]
    await scene.handler.handle(rings)
    assert [State.SENDING] * 3 == [scene.ledger.rows[each.delivery_id].state for each in rings]
    assert (1, 1) == (scene.ledger.claims, scene.in_flight.room)

    await scene.end()
    assert [State.DELIVERED] * 3 == [scene.ledger.rows[each.delivery_id].state for each in rings]
    assert [OK] * 3 == [OK for _ in scene.transport.sent]


@pytest.mark.req("DEL-10")
async def test_what_lowered_limits_do_not_allow_is_given_back() -> None:
    """If a claim reads a lower limit than the one by which it was made, the rest of it is due again, unsent."""
    scene = Scene()
    rings = [RING, scene.add(1), scene.add(2)]
    scene.lanes.claimed(CLAIM, 0.0)
    for each in rings:
        scene.ledger.target(each.delivery_id, replace(TARGET, pace=Pace(concurrency=1)))
    await scene.handler.handle(rings)
    await scene.end()

    assert [State.DELIVERED, State.PENDING, State.PENDING] == [
        scene.ledger.rows[each.delivery_id].state for each in rings
    ]
    assert (1, [0, 0]) == (
        len(scene.transport.sent),
        [scene.ledger.rows[each.delivery_id].budget_spent for each in rings[1:]],
    )


async def test_signers_are_requested_once_for_an_endpoint() -> None:
    scene = Scene()
    other = scene.add(3, GLOBEX)
    asked: list[str] = []
    give = scene.signers.signers

    def counting(pointer: object) -> object:
        asked.append(str(getattr(pointer, "tenant_id", "")))
        return give(pointer)  # type: ignore[arg-type]

    scene.signers.signers = counting  # type: ignore[method-assign, assignment]
    await scene.handler.handle([RING, scene.add(1), scene.add(2), other])
    await scene.end()

    assert 2 == len(asked)


@pytest.mark.req("SEC-08", "DEL-02")
@pytest.mark.parametrize(
    "forged",
    [
        replace(RING, tenant_id=TenantId("globex")),
        replace(RING, endpoint_id=EndpointId(ANOTHER_ID)),
        replace(RING, delivery_id=DeliveryId(ANOTHER_ID)),
    ],
)
async def test_a_forged_ring_claims_nothing(forged: Ring) -> None:
    """A ring with another tenant or endpoint than its delivery claims nothing, frees its slot, and is counted."""
    scene = Scene()
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([forged])

    assert ([], State.PENDING, 4) == (logs, scene.row.state, scene.in_flight.room)
    assert 1.0 == scene.counted("hookseal_rings_dropped_total", "not_due")
    assert inf == scene.handler.next_in()


async def test_the_ring_of_a_locked_delivery_is_kept() -> None:
    """The ring of a locked delivery is kept for a fifth of a second and is no failure; other deliveries are sent."""
    scene = Scene()
    other = scene.add(1)
    scene.ledger.held = frozenset({RING})
    await scene.handler.handle([RING, other])
    assert (BUSY_SECONDS, []) == (scene.handler.next_in(), scene.handler.due(4))
    assert State.SENDING is scene.ledger.rows[other.delivery_id].state

    scene.ledger.held = frozenset()
    scene.clock.elapsed += BUSY_SECONDS
    due = scene.handler.due(4)
    assert [RING] == due
    await scene.handler.handle(due)
    await scene.end()
    assert State.DELIVERED is scene.row.state
    assert (0.0, 0.0) == (
        scene.counted("hookseal_claims_failed_total"),
        scene.counted("hookseal_rings_dropped_total", "not_due"),
    )


async def test_the_ring_of_a_locked_endpoint_waits_in_its_lane() -> None:
    """While the row of an endpoint is locked, its rings wait for a fifth of a second; that is no failure."""
    scene = Scene()
    scene.ledger.locked = frozenset({RING})
    await scene.handler.handle([RING])
    assert (LOCKED_SECONDS, [], 4) == (scene.handler.next_in(), scene.handler.due(4), scene.in_flight.room)

    scene.ledger.locked = frozenset()
    scene.clock.elapsed += LOCKED_SECONDS
    await scene.handler.handle(scene.lanes.pick(4, scene.clock.monotonic()))
    await scene.end()
    assert State.DELIVERED is scene.row.state
    assert (0.0, 0.0) == (scene.counted("hookseal_claims_failed_total"), scene.dropped)


async def test_the_number_of_kept_rings_is_limited() -> None:
    """At most a thousand rings of locked deliveries are kept. The sweep rings the others again that are not parked."""
    scene = Scene()
    rings = [scene.add(number) for number in range(1, 5)]
    scene.ledger.held = frozenset(rings)
    scene.handler.keep([RING] * (MOST_KEPT - 3), 60)
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle(rings)
        scene.handler.keep_busy([replace(RING, is_parked=True)])

    assert [("rings.left", 1)] == [(line["event"], line["rings"]) for line in logs]
    scene.clock.elapsed += BUSY_SECONDS
    assert rings[:3] == scene.handler.due(4)


@pytest.mark.req("OPS-01")
async def test_a_turn_is_no_pass_while_claims_fail() -> None:
    """After a claim that failed no turn is a pass until one succeeds; the same outage is logged once."""
    scene = Scene()
    recorded = Passes("handling", scene.clock)
    with structlog.testing.capture_logs() as logs:
        for error in (Unavailable("a"), Unavailable("a"), TypeError(), Unavailable("a")):
            scene.ledger.on_claim = error
            await scene.handler.handle([RING])
            scene.handler._record(recorded)
            with pytest.raises(Unavailable, match="has ended no pass"):
                await recorded.check()
    scene.ledger.on_claim = None
    await scene.handler.handle([RING])
    scene.handler._record(recorded)
    await recorded.check()

    assert ["claim.failed", "claim.defect", "claim.failed"] == [line["event"] for line in logs]
    assert 4.0 == scene.counted("hookseal_claims_failed_total")


async def test_an_outage_keeps_the_rings() -> None:
    """While PostgreSQL does not answer, rings are kept for a second, in order, and no more are taken."""
    scene = Scene()
    other = scene.add(1)
    scene.ledger.on_claim = Unavailable("PostgreSQL does not answer (TimeoutError)")
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([RING, other])

    assert (4, True, FAILED_SECONDS) == (scene.in_flight.room, scene.handler.is_down, scene.handler.next_in())
    assert [("claim.failed", 2)] == [(line["event"], line["deliveries"]) for line in logs]
    assert (1.0, 0.0) == (
        scene.counted("hookseal_claims_failed_total"),
        scene.counted("hookseal_rings_dropped_total", "not_due"),
    )
    scene.ledger.on_claim = None
    await scene.handler.pause(5)
    assert (False, [RING]) == (scene.handler.is_down, scene.handler.due(1))
    await scene.handler.handle([RING, *scene.handler.due(4)])
    await scene.end()
    assert (State.DELIVERED, State.DELIVERED) == (scene.row.state, scene.ledger.rows[other.delivery_id].state)


async def test_a_defect_in_the_claim_is_logged() -> None:
    """A defect in the claim is logged, frees the slot, and ends nothing."""
    scene = Scene()
    scene.ledger.on_claim = KeyError("a column")
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([RING])

    assert (["claim.defect"], 4) == ([line["event"] for line in logs], scene.in_flight.room)
    assert (1.0, 0.0) == (
        scene.counted("hookseal_claims_failed_total"),
        scene.counted("hookseal_rings_dropped_total", "not_due"),
    )


async def test_a_defect_costs_no_other_delivery() -> None:
    """A delivery that a defect of hookseal keeps from its claim is logged and counted; the others are sent."""
    scene = Scene()
    other, error = scene.add(1), OverflowError("date value out of range")

    class Faulty(FailingLedger):
        async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
            found = await super().claim_all([r for r in rings if r != RING], token, most_bytes=most_bytes)
            return replace(found, faulty=[(RING, error)])

    scene.ledger.__class__ = Faulty
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([RING, other])
    await scene.end()

    assert State.DELIVERED is scene.ledger.rows[other.delivery_id].state
    [line] = [each for each in logs if each["event"] == "claim.defect"]
    assert (DELIVERY, error) == (line["delivery_id"], line["exc_info"])
    assert (1.0, 0.0) == (scene.counted("hookseal_claims_failed_total"), scene.dropped)


async def test_a_cancelled_claim_frees_its_slot() -> None:
    """A cancelled claim frees its slot, and its ring is left to another worker."""
    scene = Scene()
    asked = asyncio.Event()

    class Hanging(FailingLedger):
        async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
            asked.set()
            await asyncio.Event().wait()
            return await super().claim_all(rings, token, most_bytes=most_bytes)

    scene.ledger.__class__ = Hanging
    claiming = asyncio.create_task(scene.handler.handle([RING]))
    await asyncio.wait_for(asked.wait(), 5)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming

    assert (4, [RING]) == (scene.in_flight.room, scene.handler.leave())


@pytest.mark.req("SEC-07")
async def test_an_endpoint_without_a_secret_holds_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All claims of an endpoint without a secret are held, unsent; those of another endpoint are sent."""
    scene = Scene()
    other = scene.add(3, GLOBEX)
    give = scene.signers.signers

    def refusing(pointer: object) -> object:
        if getattr(pointer, "tenant_id", "") == RING.tenant_id:
            raise CannotSign
        return give(pointer)  # type: ignore[arg-type]

    globex = replace(CLAIM.target, pointer=replace(CLAIM.target.pointer, tenant_id=TenantId("globex")))  # type: ignore[union-attr]
    scene.ledger.target(other.delivery_id, globex)
    monkeypatch.setattr(scene.signers, "signers", refusing)
    mine = [RING, scene.add(1)]
    await scene.handler.handle([*mine, other])
    await scene.end()

    assert ["secret"] * 2 == [scene.ledger.rows[each.delivery_id].waiting_for for each in mine]
    assert State.DELIVERED is scene.ledger.rows[other.delivery_id].state
    assert 1 == len(scene.transport.sent)


async def test_a_cancelled_group_is_given_back() -> None:
    """If a group is cancelled while its secret is fetched, all of its claims are given back and all slots are free."""
    scene = Scene()
    fetching = asyncio.Event()

    class Hanging:
        async def __aenter__(self) -> object:
            fetching.set()
            return await asyncio.Event().wait()

        async def __aexit__(self, *_: object) -> None:
            pass

    scene.signers.signers = lambda _pointer: Hanging()  # type: ignore[method-assign, assignment, return-value]
    rings = [RING, scene.add(1), scene.add(2)]
    await scene.handler.handle(rings)
    await asyncio.wait_for(fetching.wait(), 5)

    assert 1 == await scene.in_flight.drain(0)
    assert 4 == scene.in_flight.room
    assert [State.PENDING] * 3 == [scene.ledger.rows[each.delivery_id].state for each in rings]


@pytest.mark.req("DUR-05")
async def test_a_failed_give_back_keeps_no_other() -> None:
    """If one claim of a cancelled group cannot be given back, that is logged, and the others are given back."""
    scene = Scene()
    fetching = asyncio.Event()
    rings = [RING, scene.add(1), scene.add(2)]

    class Failing(FailingLedger):
        async def release(self, claim: Claim, wait: Wait | None) -> bool:
            if claim.ring == RING:
                raise Unavailable("PostgreSQL does not answer")
            return await super().release(claim, wait)

    class Hanging:
        async def __aenter__(self) -> object:
            fetching.set()
            return await asyncio.Event().wait()

        async def __aexit__(self, *_: object) -> None:
            pass

    scene.ledger.__class__ = Failing
    scene.signers.signers = lambda _pointer: Hanging()  # type: ignore[method-assign, assignment, return-value]
    await scene.handler.handle(rings)
    await asyncio.wait_for(fetching.wait(), 5)
    with structlog.testing.capture_logs() as logs:
        assert 1 == await scene.in_flight.drain(0)

    states = [scene.ledger.rows[each.delivery_id].state for each in rings]
    assert ([State.SENDING, State.PENDING, State.PENDING], 4) == (states, scene.in_flight.room)
    assert [("delivery.unrecorded", DELIVERY)] == [(line["event"], line["delivery_id"]) for line in logs]


class UnreachableLedger(FailingLedger):
    """Sets `writing` when something is written, and fails every write once `may_fail` is set."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.writing, self.may_fail = asyncio.Event(), asyncio.Event()

    async def _fail(self, *_: object, **__: object) -> Never:
        self.writing.set()
        await self.may_fail.wait()
        raise Unavailable("PostgreSQL does not answer")

    record = release = end = _fail


@pytest.mark.parametrize("writes", ["outcome", "unknown outcome", "hold", "end", "return"])
async def test_a_failed_write_of_a_drain_is_logged_once(writes: str) -> None:
    """Whatever a delivery writes when the drain cuts it off: if the write fails, the delivery id is logged once."""
    signers = FixedSigners("db:acme:n:1", error=CannotSign() if writes == "hold" else None)
    scene = Scene(signers=signers, ledger_type=UnreachableLedger)
    ledger = scene.ledger
    assert isinstance(ledger, UnreachableLedger)
    if writes == "end":
        scene.ledger.target(DELIVERY, None)
    if writes == "return":
        scene.lack(1)
    if writes == "outcome":
        scene.reply.set()
    persistent = PersistentLedger(ledger, clock=scene.clock)
    persistent.give_up_after(5)
    scene.handler._parts = replace(scene.handler._parts, ledger=persistent)
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([RING])
        if writes != "unknown outcome":
            await asyncio.wait_for(ledger.writing.wait(), 60)
        drain = asyncio.create_task(scene.in_flight.drain(0))
        await asyncio.wait_for(ledger.writing.wait(), 60)
        ledger.may_fail.set()
        assert 1 == await drain

    assert [("delivery.unrecorded", DELIVERY)] == [(line["event"], line["delivery_id"]) for line in logs]
    assert 4 == scene.in_flight.room


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unavailable("PostgreSQL does not answer"), "delivery.unrecorded"), (KeyError("a"), "delivery.defect")],
)
async def test_an_unrecorded_outcome_is_logged(error: Exception, event: str) -> None:
    """An outcome that cannot be recorded is logged with its delivery and attempt, and the slot is free."""
    scene = Scene()
    scene.ledger.on_record = error
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle([RING])
        await scene.end()

    [logged] = [line for line in logs if line["event"] == event]
    assert ("acme", DELIVERY, 1, "error") == tuple(
        logged[name] for name in ("tenant_id", "delivery_id", "attempt", "log_level")
    )


async def test_kept_rings_are_returned_at_the_end() -> None:
    """When a worker ends, every kept ring is returned once, for other workers."""
    scene = Scene()
    scene.handler.keep([RING, replace(RING, endpoint_id=EndpointId(ENDPOINT))], 5)

    assert [RING, RING] == scene.handler.leave()
    assert ([], inf) == (scene.handler.leave(), scene.handler.next_in())


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("error", [None, Unavailable("PostgreSQL does not answer"), KeyError("a column")])
async def test_a_matching_ring_moves_the_queue(error: Exception | None) -> None:
    """A matching ring shows that the queue moves, even if the claim fails; a forged ring does not."""
    scene = Scene()
    scene.clock.elapsed += scene.movement.still_seconds
    await scene.handler.handle([replace(RING, tenant_id=TenantId("globex"))])
    before = scene.movement.is_still
    scene.ledger.on_claim = error
    await scene.handler.handle([RING])

    assert (True, False) == (before, scene.movement.is_still)
    await scene.end()


@pytest.mark.req("DEL-06")
async def test_without_a_descriptor_the_worker_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor the delivery is given back, and nothing starts for a while, longer each time."""
    scene = Scene()
    scene.lack(9)
    rests: list[float] = []
    monkeypatch.setattr(scene.in_flight, "rest", rests.append)
    with structlog.testing.capture_logs() as logs:
        for elapsed in (0, 0, 0, 0, 0, 0, 16, 17):
            scene.clock.elapsed += elapsed
            await scene.handler.handle([RING])
            await scene.end()

    assert [0.5, 1, 2, 4, 8, 8, 8, 0.5] == rests
    assert rests == [line["rests_seconds"] for line in logs if line["event"] == "worker.exhausted"]
    assert 8.0 == scene.counted("hookseal_exhausted_total")
    assert (State.PENDING, [], 0) == (scene.row.state, scene.row.attempts, scene.row.budget_spent)


async def test_a_pause_is_not_extended() -> None:
    """A delivery that is given back during a pause does not make the pause longer."""
    scene = Scene()
    scene.lack(1)
    await scene.handler.handle([RING])
    scene.in_flight.rest(3_600)
    with structlog.testing.capture_logs() as logs:
        assert 0 == await scene.in_flight.drain(5)
    scene.in_flight.close()

    assert ["delivery.given_back"] == [line["event"] for line in logs]


@pytest.mark.req("DEL-17")
async def test_a_ring_behind_the_head_is_parked() -> None:
    """A due delivery that has others before it in its line is parked, and neither kept nor counted as dropped."""
    scene = Scene()
    scene.ledger.behind = frozenset({RING})
    await scene.handler.handle([RING])

    [parked] = scene.lanes.take_parked(9)
    assert (RING, WaitingFor.ORDER) == (parked.ring, parked.waiting_for)
    assert ([], 0.0) == (scene.handler.due(9), scene.dropped)


@pytest.mark.req("DEL-17")
async def test_the_next_of_a_line_is_requested_after_the_record() -> None:
    """While a delivery of an ordered endpoint is in flight, nothing more of it is asked for; after its record it is."""
    scene = Scene()
    woken: list[None] = []
    scene.handler._crowded = lambda: woken.append(None)
    scene.ledger.target(DELIVERY, replace(TARGET, pace=Pace(ordered=True)))
    lane = (RING.tenant_id, RING.endpoint_id)
    scene.lanes.crowded.learn(lane)
    await scene.handler.handle([RING])
    assert [] == list(scene.lanes.crowded.turns(1.0))
    woken.clear()
    await scene.end()

    assert State.DELIVERED is scene.row.state
    assert [lane] == list(scene.lanes.crowded.turns(1.0))
    assert woken


async def test_a_burst_does_not_wait_for_slots_that_are_free() -> None:
    """After a large or full claim the next one waits for a sixteenth of the slots, which may be free already."""
    handler = Scene(slots=500).handler

    assert (0, 31) == (handler._to_gather(MOST_UNANSWERED, 128), handler._to_gather(MOST_UNANSWERED + 1, 128))
    assert (31, 0) == (handler._to_gather(1, 1), handler._to_gather(0, 1))


@pytest.mark.parametrize(("slots", "gathered"), [(20, 5), (100, 12), (200, 12), (1_000, 62)])
async def test_how_many_slots_are_gathered(slots: int, gathered: int) -> None:
    """A sixteenth, at least twelve, and never more than a quarter."""
    assert gathered == Scene(slots=slots).handler._to_gather(1, 1)


async def claimed(scene: Scene, *, claims: int, slots: int) -> None:
    """Return once there were so many claims, and so many slots are free."""
    await eventually(lambda: (claims, slots) == (scene.ledger.claims, scene.in_flight.slots))


@pytest.mark.req("DEL-09")
async def test_no_tenant_waits_for_the_slots_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a tenant has its share, a ring of another is claimed at once, also if it comes during a claim."""
    monkeypatch.setattr(ring_handler, "GATHER_SECONDS", 600.0)
    scene, answers = Scene(slots=18), asyncio.Semaphore(0)
    scene.send_by(ScriptedTransport(*[OK] * 30, during=answers.acquire))
    claim_all = scene.ledger.claim_all

    async def claim(*given: Any, **named: Any) -> Claimed:
        if scene.ledger.claims == 1:
            scene.handler.add([scene.add(99, GLOBEX)])
        return await claim_all(*given, **named)

    monkeypatch.setattr(scene.ledger, "claim_all", claim)
    scene.handler.add([RING, *(scene.add(number) for number in range(24))])
    stop = asyncio.Event()
    running = asyncio.create_task(scene.handler.run(passes(), stop))
    await claimed(scene, claims=3, slots=1)

    stop.set()
    scene.handler.wake_up()
    scene.in_flight.close()
    await running
    assert 17 == await scene.in_flight.drain(0)


@pytest.mark.req("DEL-09")
async def test_a_tenant_at_its_share_is_claimed_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a tenant has its share, one claim is made when several slots are free; another tenant does not wait."""
    monkeypatch.setattr(ring_handler, "GATHER_SECONDS", 60.0)
    scene, answers = Scene(slots=18), asyncio.Semaphore(0)
    scene.send_by(ScriptedTransport(*[OK] * 30, during=answers.acquire))
    scene.handler.add([RING, *(scene.add(number) for number in range(24))])
    stop = asyncio.Event()
    running = asyncio.create_task(scene.handler.run(passes(), stop))
    state = partial(claimed, scene)

    await state(claims=3, slots=2)  # the first one reads the settings, the others begin 8 and 7 requests
    for _ in range(3):
        answers.release()
    await state(claims=3, slots=5)
    answers.release()
    await state(claims=4, slots=2)
    scene.handler.add([scene.add(99, GLOBEX)])
    await state(claims=5, slots=1)

    stop.set()
    scene.handler.wake_up()
    scene.in_flight.close()
    await running
    assert 17 == await scene.in_flight.drain(0)


async def test_without_slots_after_the_close_the_handler_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nothing may begin any more, the handler returns: it would look for room for ever, and wait for nothing."""
    scene, turns, recorded = Scene(), list[None](), passes()
    scene.in_flight.close()

    def turn() -> None:
        turns.append(None)
        assert len(turns) < 3, "it never waits"

    monkeypatch.setattr(recorded, "passed", turn)
    await scene.handler.run(recorded, asyncio.Event())


async def test_a_ring_that_is_kept_while_nothing_is_due_is_tried_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that the lane keeper keeps while the handler waits is tried after 0.2 s, not at its next look."""
    scene, stop, waits = Scene(), asyncio.Event(), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.Event().wait()

    async def waited(*seconds: float) -> None:
        await eventually(lambda: list(seconds) == waits)

    monkeypatch.setattr(scene.clock, "sleep", sleep)
    running = asyncio.create_task(scene.handler.run(passes(), stop))
    await waited(LOOK_SECONDS)
    scene.handler.keep_busy([RING])
    await waited(LOOK_SECONDS, BUSY_SECONDS)
    stop.set()
    scene.handler.wake_up()
    await running


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("begun_before", [0, MANY_UNANSWERED])
async def test_what_waits_for_a_pause_begins_when_it_ends(begun_before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many requests hang, the handler begins the next ones 20 ms later, not at its next look.

    So it does with rings that come during the pause, after a turn in which there was nothing to begin.
    """
    scene, stop, waits = Scene(slots=100), asyncio.Event(), list[float]()
    scene.send_by(ScriptedTransport(*[OK] * 60, during=scene.reply.wait))
    endpoints = [f"01900000-0000-7000-8000-{number:012d}" for number in range(MANY_UNANSWERED + MOST_AFTER_PAUSE)]
    rings = [scene.add(n, replace(RING, endpoint_id=EndpointId(each))) for n, each in enumerate(endpoints)]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if seconds < LOOK_SECONDS:
            scene.clock.elapsed += seconds
        else:
            await asyncio.Event().wait()

    monkeypatch.setattr(scene.clock, "sleep", sleep)
    scene.handler.add(rings[:begun_before])
    running = asyncio.create_task(scene.handler.run(passes(), stop))
    await claimed(scene, claims=begun_before // MOST_UNANSWERED, slots=100 - begun_before)
    scene.handler.add(rings[begun_before:])
    await claimed(scene, claims=MANY_UNANSWERED // MOST_UNANSWERED + 1, slots=100 - len(rings))
    stop.set()
    scene.handler.wake_up()
    await running
    scene.reply.set()
    assert 0 == await scene.in_flight.drain(5)
    assert [PAUSE_SECONDS] == [each for each in waits if each < LOOK_SECONDS]


@pytest.mark.req("DEL-03")
async def test_a_kept_ring_that_is_due_does_not_wait_for_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may become due in the middle of a turn: a timer of uvloop ends up to a millisecond early."""
    scene, stop, waits = Scene(), asyncio.Event(), list[float]()
    pick = scene.lanes.pick

    def late(*given: Any, **named: Any) -> list[Ring]:
        scene.clock.elapsed += BUSY_SECONDS
        return pick(*given, **named)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(scene.clock, "sleep", sleep)
    monkeypatch.setattr(scene.lanes, "pick", late)
    scene.handler.keep_busy([RING])
    running = asyncio.create_task(scene.handler.run(passes(), stop))
    await claimed(scene, claims=1, slots=3)
    stop.set()
    scene.handler.wake_up()
    await running
    assert 0.0 == waits[0]
    await scene.end()


async def test_a_kept_ring_waits_until_postgresql_is_asked_again() -> None:
    """While no claim is made, the handler does not look again and again for a ring that is due."""
    scene = Scene()
    scene.handler.keep([RING])
    scene.ledger.on_claim = Unavailable("PostgreSQL does not answer (TimeoutError)")
    await scene.handler.handle([scene.add(1)])

    assert FAILED_SECONDS == scene.handler.next_in()


async def test_an_outcome_that_is_being_recorded_holds_no_slot() -> None:
    """Each answered request of a claim gives its slot back; its delivery is in flight until it is recorded."""
    scene = Scene()
    scene.ledger.may_record = asyncio.Event()
    await scene.handler.handle([RING, scene.add(1)])
    assert 2 == scene.in_flight.slots
    scene.reply.set()
    await asyncio.wait_for(scene.in_flight.wait_for_room(60, 4), 60)

    assert 4 == scene.in_flight.slots
    assert ({State.SENDING}, 2) == ({each.state for each in scene.ledger.rows.values()}, len(scene.in_flight))
    scene.ledger.may_record.set()
    await scene.end()


async def test_each_claim_gives_its_own_bytes_back() -> None:
    """The claims of a group may be finished in another order than they were claimed in: all bytes are given back."""
    scene = Scene()
    large = scene.add(1)
    scene.ledger.add(replace(CLAIM, ring=large, body=b"x" * 1_000, is_probe=False))  # it waits: its endpoint is held
    await scene.handler.handle([RING, large])
    await scene.end()

    assert MOST_BYTES == scene.in_flight.bytes_room


@pytest.mark.req("DUR-04")
async def test_nothing_is_claimed_while_outcomes_cannot_be_recorded() -> None:
    """While the circuit is open no ring is taken or claimed; the handler looks five times a second; then it goes on."""
    scene = Scene()
    may_begin = False
    scene.handler._parts = replace(scene.handler._parts, may_begin=lambda: may_begin)
    scene.handler.add([RING])
    assert ([], True, UNRECORDABLE_SECONDS) == (
        scene.handler._next_rings(4),
        scene.handler.is_down,
        scene.handler.next_in(),
    )
    may_begin = True

    assert ([RING], False) == (scene.handler._next_rings(4), scene.handler.is_down)


@pytest.mark.req("DUR-04")
async def test_what_is_claimed_when_outcomes_cannot_be_recorded_is_not_sent() -> None:
    """What is claimed and not sent when the circuit opens is given back, unspent; what is in flight is recorded."""
    scene = Scene()
    rings = [RING, scene.add(1)]
    scene.handler._parts = replace(scene.handler._parts, may_begin=lambda: not scene.transport.sent)
    with structlog.testing.capture_logs() as logs:
        await scene.handler.handle(rings)
        await scene.end()

    states = [
        (scene.ledger.rows[each.delivery_id].state, scene.ledger.rows[each.delivery_id].budget_spent) for each in rings
    ]
    assert [(State.DELIVERED, 1), (State.PENDING, 0)] == states
    assert (1, 1.0) == (len(scene.transport.sent), scene.counted("hookseal_given_back_total"))
    assert ["delivery.attempted"] == [line["event"] for line in logs]
