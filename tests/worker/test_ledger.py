"""The ledger that repeats failed writes, on a clock that tests move."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    FinishedAttempt,
    Outcome,
    Recorded,
    Ring,
    State,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.errors import Unavailable
from hookseal.ground.batches import MAX_ITEMS, MAX_RUNNING
from hookseal.ground.ids import DeliveryId
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.worker.recorder import LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, Circuit, KeptLeases
from tests.doubles.claims import CLAIM, DELIVERY, RING
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, WorkerLedger
from tests.doubles.replaced import replace

ROW = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=12, snippet="", signed_by=("db:acme:n:1",))
WAIT = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="why")
DELIVERED = Verdict(state=State.DELIVERED)
SECONDS = 22.5
SLOW_SECONDS = 5.0

Write = Callable[[WorkerLedger, Claim], Awaitable[object]]
WRITES: list[Write] = [
    lambda ledger, claim: ledger.record(claim, ROW, DELIVERED, None),
    lambda ledger, claim: ledger.release(claim, WAIT),
    lambda ledger, claim: ledger.end(claim, State.FAILED, "why"),
]


class FlakyLedger(MemoryLedger):
    """Fails `failures` times, then succeeds."""

    failures = 0
    calls = 0
    error: Exception = Unavailable("PostgreSQL does not answer")

    def _flake(self) -> None:
        self.calls += 1
        if self.failures > 0:
            self.failures -= 1
            raise self.error

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        self._flake()
        return await super().claim(ring, token)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        self._flake()
        return await super().record(claim, attempt, verdict, error)

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        self._flake()
        return await super().release(claim, wait)

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        self._flake()
        return await super().end(claim, state, error)


class SlowLedger(FlakyLedger):
    """Takes `SLOW_SECONDS` for each call."""

    def _flake(self) -> None:
        self._clock.elapsed += SLOW_SECONDS
        super()._flake()


def persistent(ledger: MemoryLedger, clock: FakeClock, lost: Callable[[str], None] = print) -> WorkerLedger:
    """Return a persistent ledger over this one; its lease tokens are numbered."""
    numbers = count(1)
    return WorkerLedger(ledger, clock, new_token=lambda: f"token-{next(numbers)}", lost=lost)


async def one(ledger: WorkerLedger) -> Claim:
    [claim] = (await ledger.claim_all([RING], most_bytes=MAX_BODY_BYTES)).claims
    return claim


async def claimed(
    kind: type[FlakyLedger] = FlakyLedger,
) -> tuple[FlakyLedger, WorkerLedger, FakeClock, Claim]:
    clock = FakeClock()
    flaky = kind(clock)
    flaky.add(CLAIM)
    ledger = persistent(flaky, clock)
    claim = await one(ledger)
    flaky.calls = 0
    return flaky, ledger, clock, claim


@pytest.mark.req("DEL-15")
async def test_a_repeated_write_is_stored_once() -> None:
    """A write that fails twice succeeds at the third try, after pauses, and is stored once."""
    flaky, ledger, clock, claim = await claimed()
    flaky.failures = 2

    assert await ledger.record(claim, ROW, DELIVERED, None)
    assert ([ROW], State.DELIVERED) == (flaky.rows[DELIVERY].attempts, flaky.rows[DELIVERY].state)
    assert (3, 2) == (flaky.calls, len(clock.slept))


@pytest.mark.parametrize("write", WRITES, ids=["record", "release", "end"])
async def test_every_write_is_tried_again(write: Write) -> None:
    """`record`, `release` and `end` are repeated until the outage is over."""
    flaky, ledger, _, claim = await claimed()
    flaky.failures = 3

    assert await write(ledger, claim)
    assert 4 == flaky.calls
    assert State.SENDING is not flaky.rows[DELIVERY].state


@pytest.mark.parametrize("write", WRITES, ids=["record", "release", "end"])
async def test_a_write_ends_when_the_process_gives_up(write: Write) -> None:
    """Once the ledger gives up a write raises the outage, at most one pause late, and after many tries."""
    flaky, ledger, clock, claim = await claimed()
    flaky.failures = 1_000_000
    ledger.give_up_after(SECONDS)
    with pytest.raises(Unavailable, match="PostgreSQL does not answer"):
        await write(ledger, claim)

    assert SECONDS <= clock.elapsed <= SECONDS + 2
    assert flaky.calls >= SECONDS / 2


async def test_outcomes_of_later_batches_end_at_the_same_time() -> None:
    """In an outage all outcomes are given up at the same time, however many batches are before their own."""
    flaky, ledger, clock, claim = await claimed(SlowLedger)
    flaky.failures = 1_000_000
    before = clock.elapsed
    ledger.give_up_after(SECONDS)
    outcomes = [ledger.record(claim, ROW, DELIVERED, None) for _ in range(4 * MAX_RUNNING * MAX_ITEMS)]
    results = await asyncio.gather(*outcomes, return_exceptions=True)

    assert {Unavailable} == {type(each) for each in results}
    assert SECONDS <= clock.elapsed - before <= SECONDS + 2 + MAX_RUNNING * SLOW_SECONDS


@pytest.mark.req("DUR-04")
async def test_a_known_outcome_is_kept_for_hours() -> None:
    """While the process runs, an outcome is kept and recorded, however long the outage is."""
    flaky, ledger, clock, claim = await claimed()
    flaky.failures = 10_000

    assert await ledger.record(claim, ROW, DELIVERED, None)
    assert clock.elapsed > 3_600
    assert ([ROW], State.DELIVERED) == (flaky.rows[DELIVERY].attempts, flaky.rows[DELIVERY].state)


async def test_a_batch_that_begins_after_the_end_is_tried() -> None:
    """If those before it took long, and were recorded at last, each of its outcomes is tried, alone or with others."""
    flaky, ledger, clock, claim = await claimed()
    ledger.give_up_after(SECONDS)
    number = 2 * MAX_RUNNING * MAX_ITEMS
    flaky.failures = 1
    outcomes = [ledger.record(claim, ROW, DELIVERED, None) for _ in range(number)]
    outcomes.append(ledger.record(claim, ROW, Verdict(state=State.FAILED, disable="gone"), None))
    clock.elapsed += SECONDS - 1e-9  # the pause after the failure ends after the time
    results = await asyncio.gather(*outcomes, return_exceptions=True)

    assert clock.elapsed >= SECONDS
    assert [] == [each for each in results if isinstance(each, BaseException)]
    assert 1 + len(outcomes) == flaky.calls  # the first try ended with its first outcome


async def test_a_batch_is_tried_once_postgresql_answers() -> None:
    """One batch fails after the end, another is recorded then: a third is tried."""

    class RemoteLedger(FlakyLedger):
        async def record_all(self, made: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
            await asyncio.sleep(0)  # so that two batches run at the same time
            return await super().record_all(made, again=again)

    flaky, ledger, _, claim = await claimed(RemoteLedger)
    ledger.give_up_after(0)
    flaky.failures = 1
    outcomes = [ledger.record(claim, ROW, DELIVERED, None) for _ in range(MAX_RUNNING * MAX_ITEMS + 1)]
    results = await asyncio.gather(*outcomes, return_exceptions=True)

    assert MAX_ITEMS == sum(isinstance(each, Unavailable) for each in results)
    assert len(outcomes) - MAX_ITEMS + 1 == flaky.calls


async def test_the_time_of_slow_failures_counts() -> None:
    """Slow tries count against the time limit like pauses."""
    flaky, ledger, clock, claim = await claimed(SlowLedger)
    flaky.failures = 1_000_000
    ledger.give_up_after(SECONDS)
    before = clock.elapsed
    with pytest.raises(Unavailable):
        await ledger.record(claim, ROW, DELIVERED, None)

    assert SECONDS <= clock.elapsed - before <= SECONDS + 2 + SLOW_SECONDS


async def test_a_claim_is_not_tried_again() -> None:
    """A failed claim is raised at once, because its ring comes again."""
    flaky, ledger, clock, _ = await claimed()
    flaky.failures = 1
    with pytest.raises(Unavailable):
        await one(ledger)

    assert (1, []) == (flaky.calls, clock.slept)


async def test_a_defect_is_not_tried_again() -> None:
    """An error that is not an outage is raised at once."""
    flaky, ledger, clock, claim = await claimed()
    flaky.failures, flaky.error = 1, KeyError("a column")
    with pytest.raises(KeyError):
        await ledger.record(claim, ROW, DELIVERED, None)

    assert (1, []) == (flaky.calls, clock.slept)


async def test_a_lost_lease_is_not_tried_again() -> None:
    """A write that the fence refuses returns False after one try."""
    flaky, ledger, clock, claim = await claimed()
    flaky.rows[DELIVERY].lease = "another"

    assert not await ledger.record(claim, ROW, DELIVERED, None)
    assert (1, []) == (flaky.calls, clock.slept)


@pytest.mark.req("DEL-15")
@pytest.mark.parametrize("repeats", [0, 1])
async def test_a_repeat_finds_the_first_record(repeats: int) -> None:
    """If the answer to a written record was lost, its repeat returns the verdict; after a lost lease None."""
    clock = FakeClock()

    class LosingAnswers(MemoryLedger):
        lost = repeats

        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            kept = await super().record(claim, attempt, verdict, error)
            if self.lost:
                self.lost -= 1
                raise Unavailable("the answer was lost")
            return kept

    inner = LosingAnswers(clock)
    inner.add(CLAIM)
    ledger = persistent(inner, clock)
    claim = await one(ledger)
    if not repeats:
        await inner.release(claim, None)

    assert (DELIVERED if repeats else None) == await ledger.record(claim, ROW, DELIVERED, None)
    assert repeats == len(inner.rows[DELIVERY].attempts)


@pytest.mark.parametrize("error", [Unavailable("no answer"), asyncio.CancelledError()])
async def test_a_claim_without_an_answer_is_reported(error: BaseException) -> None:
    """The token of a claim without an answer is reported as lost; that of an answered claim is not."""
    clock = FakeClock()
    lost: list[str] = []

    class SilentLedger(MemoryLedger):
        async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
            await super().claim(ring, token)
            raise error

    silent, heard = SilentLedger(clock), MemoryLedger(clock)
    silent.add(CLAIM)
    heard.add(CLAIM)
    with pytest.raises(type(error)):
        await one(persistent(silent, clock, lost.append))
    await one(persistent(heard, clock, lost.append))

    assert ["token-1"] == lost == [silent.rows[DELIVERY].lease]


@pytest.mark.parametrize("verdict", [DELIVERED, Verdict(state=State.FAILED, disable="gone")])
async def test_outcomes_of_cancelled_writes_are_answered(verdict: Verdict) -> None:
    """If the tasks that write are cancelled, as when the process ends, no delivery waits for its outcome for ever."""
    writing = asyncio.Event()

    class StuckLedger(MemoryLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            writing.set()
            await asyncio.Event().wait()
            return await super().record(claim, attempt, verdict, error)

    ledger = persistent(StuckLedger(FakeClock()), FakeClock())
    outcomes = [asyncio.ensure_future(ledger.record(CLAIM, ROW, verdict, None)) for _ in range(3)]
    await asyncio.wait_for(writing.wait(), 60)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait(outcomes, timeout=60)

    assert {Unavailable} == {type(each.exception()) for each in outcomes}


async def test_outcomes_of_a_failed_batch_are_answered() -> None:
    """If an error in hookseal ends the recording of a batch, each delivery of it gets the error."""

    class ForgetfulLedger(MemoryLedger):
        async def record_all(self, made: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
            await super().record_all(made, again=again)
            return []

    inner = ForgetfulLedger(FakeClock())
    inner.add(CLAIM)
    ledger = persistent(inner, FakeClock())
    claim = await one(ledger)
    outcomes = [asyncio.ensure_future(ledger.record(claim, ROW, DELIVERED, None)) for _ in range(2)]
    _, waiting = await asyncio.wait(outcomes, timeout=5)

    assert not waiting
    assert {ValueError} == {type(each.exception()) for each in outcomes}


async def test_an_error_in_a_report_concerns_no_outcome() -> None:
    """If what counts recorded attempts fails, every outcome of the batch is answered."""
    clock = FakeClock()
    inner = MemoryLedger(clock)
    inner.add(CLAIM)
    failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.set_result(context["exception"]))

    def failing(_made: FinishedAttempt) -> None:
        raise ValueError

    ledger = WorkerLedger(inner, clock, stored=failing)
    claim = await one(ledger)
    outcomes = [asyncio.ensure_future(ledger.record(claim, ROW, DELIVERED, None)) for _ in range(3)]
    await asyncio.wait(outcomes, timeout=60)

    assert [DELIVERED, None, None] == [each.result() for each in outcomes]
    assert isinstance(await asyncio.wait_for(failed, 60), ValueError)


async def test_an_error_in_a_report_costs_no_other_report() -> None:
    """If the report of one attempt of a batch fails, the others are reported, and the event loop gets the error."""
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context["exception"]))
    tried: list[str] = []
    all_tried = asyncio.Event()
    error = ValueError("the first")

    def report(made: FinishedAttempt) -> None:
        tried.append(made.claim.ring.delivery_id)
        if len(tried) == 1:
            raise error
        if len(tried) == len(rings):
            all_tried.set()

    inner = MemoryLedger(FakeClock())
    rings = [replace(RING, delivery_id=DeliveryId(f"{DELIVERY[:-1]}{number}")) for number in range(3)]
    for each in rings:
        inner.add(replace(CLAIM, ring=each))
    ledger = WorkerLedger(inner, FakeClock(), stored=report)
    claims = (await ledger.claim_all(rings, most_bytes=MAX_BODY_BYTES)).claims

    assert [DELIVERED] * 3 == await asyncio.gather(*(ledger.record(each, ROW, DELIVERED, None) for each in claims))
    await asyncio.wait_for(all_tried.wait(), 60)
    assert ([each.delivery_id for each in rings], [error]) == (tried, failed)


def at(seconds: float) -> tuple[Circuit, FakeClock]:
    """Return a circuit with one outcome that has waited for so long."""
    clock = FakeClock()
    circuit = Circuit(clock)
    circuit.waits("first")
    clock.elapsed += seconds
    return circuit, clock


@pytest.mark.req("DUR-04")
def test_the_circuit_opens_after_two_seconds_without_a_record() -> None:
    """It opens when an outcome has waited for 2 s and nothing was recorded, and closes when one is recorded."""
    circuit, clock = at(PATIENCE_SECONDS - 0.1)
    assert (False, False, None) == (circuit.is_open, circuit.is_late, circuit.report())
    clock.elapsed += 0.1
    circuit.waits("second")
    assert (True, True, 2, 2.0) == (circuit.is_open, circuit.is_late, circuit.unrecorded, circuit.oldest_seconds)
    expected = "PostgreSQL has not answered a record for 2 s"
    assert {"since": "2026-01-02T03:04:05Z", "outcomes": 2, "reason": expected} == circuit.report()

    circuit.answered()
    circuit.ended("first")
    assert (False, 1, 0.0) == (circuit.is_open, circuit.unrecorded, circuit.oldest_seconds)


@pytest.mark.req("DUR-04")
def test_the_circuit_opens_at_the_first_failure() -> None:
    """It opens when a record fails, and closes when one succeeds, or if no outcome is left that could show it."""
    circuit, _ = at(0)
    circuit.failed("disk full")
    assert (True, "disk full", 1) == (circuit.is_open, circuit.reason, circuit.failures)
    circuit.answered()
    assert not circuit.is_open
    circuit.failed("disk full")
    circuit.ended("first")
    assert not circuit.is_open


def test_an_outcome_that_waits_alone_opens_nothing() -> None:
    """If a row is locked, only the outcome for it waits: it is counted, its lease is kept, and others are sent."""
    circuit, _ = at(60)
    circuit.waits_alone("first")
    assert (False, True, 1, 60.0) == (circuit.is_open, circuit.is_late, circuit.unrecorded, circuit.oldest_seconds)
    circuit.ended("first")
    assert (0, 0.0) == (circuit.unrecorded, circuit.oldest_seconds)


async def test_an_open_circuit_tries_one_record_at_a_time() -> None:
    """While records fail, one at a time is tried, at most two seconds after the last; then all are recorded."""

    class CountingLedger(FlakyLedger):
        running = most = 0

        async def record_all(self, made: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
            self.running += 1
            self.most = max(self.most, self.running) if self.calls > MAX_RUNNING else 0
            try:
                await asyncio.sleep(0)  # so that another one could run at the same time
                return await super().record_all(made, again=again)
            finally:
                self.running -= 1

    counting, ledger, clock, claim = await claimed(CountingLedger)
    assert isinstance(counting, CountingLedger)
    counting.failures = 40
    outcomes = [ledger.record(claim, ROW, DELIVERED, None) for _ in range(MAX_RUNNING * MAX_ITEMS)]
    assert len(outcomes) == ledger.circuit.unrecorded
    await asyncio.gather(*outcomes)

    assert (1, 40, 0, False) == (
        *(counting.most, ledger.circuit.failures, ledger.circuit.unrecorded),
        ledger.circuit.is_open,
    )
    assert LONGEST_PAUSE_SECONDS >= max(clock.slept)


@pytest.mark.req("DUR-04")
@pytest.mark.parametrize("is_probe", [False, True], ids=["batch", "alone"])
@pytest.mark.parametrize("refusal", [asyncpg.InsufficientPrivilegeError, asyncpg.DataCorruptedError])
async def test_what_is_no_fault_of_an_outcome_is_waited_for(refusal: type[Exception], *, is_probe: bool) -> None:
    """If PostgreSQL refuses every record, an outcome is kept until it does not, and the circuit is open meanwhile."""
    seen = list[tuple[bool, str]]()
    flaky, ledger, _, claim = await claimed(FlakyLedger)

    class RefusingLedger(FlakyLedger):
        def _flake(self) -> None:
            seen.append((ledger.circuit.is_open, ledger.circuit.reason))
            super()._flake()

    flaky.__class__ = RefusingLedger
    flaky.failures, flaky.error = 100, refusal("no")

    assert DELIVERED == await ledger.record(replace(claim, is_probe=is_probe or None), ROW, DELIVERED, None)
    assert 101 == len(seen)
    assert {(True, f"PostgreSQL refuses every record ({refusal.__name__})")} == set(seen[1:])
    assert not ledger.circuit.is_open


def waited(problem: Exception) -> Unavailable:
    """Return the error of a statement that ended with this problem, as the statements raise it."""
    error = Unavailable("PostgreSQL does not answer")
    error.__context__ = problem
    return error


@pytest.mark.req("DUR-04")
@pytest.mark.parametrize(
    ("problem", "tables_locked", "opens"),
    [
        (TimeoutError(), False, False),
        (asyncpg.LockNotAvailableError(), False, False),
        (asyncpg.QueryCanceledError(), False, False),
        (TimeoutError(), True, True),
        (asyncpg.DiskFullError(), False, True),
        (ConnectionError(), False, True),
    ],
)
async def test_only_what_concerns_all_records_opens_the_circuit(
    problem: Exception, *, tables_locked: bool, opens: bool
) -> None:
    """The record of a probe that waits for a locked row stops nothing; a locked table, a full disk and an outage do."""
    flaky, ledger, clock, claim = await claimed()
    flaky.failures, flaky.error, flaky.tables_locked = 3, waited(problem), tables_locked
    open_at = list[bool]()

    async def sleep(seconds: float) -> None:
        open_at.append(ledger.circuit.is_open)
        await FakeClock.sleep(clock, seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    assert DELIVERED == await ledger.record(replace(claim, is_probe=True), ROW, DELIVERED, None)
    assert [opens] * 3 == open_at
    assert not ledger.circuit.is_open


@pytest.mark.req("DUR-04")
async def test_a_batch_is_not_kept_waiting_by_a_locked_endpoint() -> None:
    """While the circuit is open, what waits alone is not tried if a batch waits, whose record may close it."""
    flaky, ledger, _, claim = await claimed()
    other = replace(CLAIM, ring=replace(RING, delivery_id=DeliveryId("01890a5d-ac96-774b-bcce-b302099a8058")))
    flaky.add(other)
    order = list[str]()

    class OrderedLedger(FlakyLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            order.append("alone" if claim.is_probe else "batch")
            return await super().record(claim, attempt, verdict, error)

    [second] = (await ledger.claim_all([other.ring], most_bytes=MAX_BODY_BYTES)).claims
    flaky.__class__ = OrderedLedger
    flaky.failures = 3
    batch = ledger.record(second, ROW, DELIVERED, None)
    alone = ledger.record(replace(claim, is_probe=True), ROW, DELIVERED, None)

    assert [DELIVERED, DELIVERED] == [*await asyncio.gather(batch, alone)]
    assert "alone" == order[-1]
    assert ["batch"] * 4 == [each for each in order if each == "batch"]


@pytest.mark.req("DUR-07")
async def test_leases_are_kept_while_outcomes_wait() -> None:
    """Leases are prolonged four times in their length while an outcome waits; the outage is logged once."""
    prolonged = list[float]()
    circuit, clock = at(0)

    async def prolong() -> int:
        prolonged.append(clock.elapsed)
        return 1

    async def announce() -> None:
        announced.append(clock.elapsed)

    announced = list[float]()
    kept = KeptLeases(circuit, prolong, lease_seconds=40, clock=clock, log=structlog.get_logger(), announce=announce)
    with structlog.testing.capture_logs() as logs:
        while clock.elapsed < 40:
            await kept.once()
            clock.elapsed += 0.5
        circuit.ended("first")
        await kept.once()
        clock.elapsed += 40
        await kept.once()

    assert ([2, 12, 22, 32], [2]) == (prolonged, announced)
    assert [("records.failed", "error"), ("records.resumed", "info")] == [
        (line["event"], line["log_level"]) for line in logs
    ]


async def test_a_failed_prolongation_is_tried_again_and_logged_once() -> None:
    """If the leases cannot be prolonged either, that is tried twice a second and logged once."""
    tries = list[float]()
    circuit, clock = at(2)

    async def prolong() -> int:
        tries.append(clock.elapsed)
        raise Unavailable("PostgreSQL does not answer")

    kept = KeptLeases(circuit, prolong, lease_seconds=40, clock=clock, log=structlog.get_logger(), announce=prolong)
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            await kept.once()
            await clock.sleep(0.5)

    assert 20 == len(tries)
    assert ["records.failed", "leases.failed"] == [line["event"] for line in logs]
