"""How an attempt ends that is late or cancelled, or whose lease was lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import structlog

from hookseal.dispatcher.core.model import Attempt, Claim, FinishedAttempt, NotBegun, State, Verdict
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.core.ports import Signer
from hookseal.dispatcher.core.prepare import START_WITHIN_SECONDS
from hookseal.errors import CannotSign, Exhausted, LocalFailure, Unavailable
from hookseal.ground.pointer import Pointer
from hookseal.worker.recorder import PersistentLedger
from tests.dispatcher.scene import OK, Scene, attempt, take
from tests.doubles.claims import CLAIM, DELIVERY, RING, target
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport


async def test_an_old_claim_is_given_back() -> None:
    """More than two seconds after its claim, a delivery is given back unsent, due at once."""
    scene = Scene()
    taken = await take(RING, scene.parts)
    assert taken is not None
    scene.clock.elapsed += START_WITHIN_SECONDS + 0.001
    await attempt(*taken, scene.parts)

    assert ([], [], State.PENDING) == (scene.transport.sent, scene.row.attempts, scene.row.state)
    assert 1 == scene.meter.returns
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DUR-03")
async def test_nothing_is_sent_while_no_outcome_can_be_recorded() -> None:
    """A delivery that was claimed before is given back, due at once, and counted; only the outage is logged."""
    scene = Scene()
    scene.parts = replace(scene.parts, may_begin=lambda: False)
    logs = await scene.run_logged()

    assert ([], [], State.PENDING, 0) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.row.budget_spent,
    )
    assert ([], 1) == (logs, scene.meter.returns)
    assert await take(RING, scene.parts) is not None


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


@pytest.mark.req("DEL-06")
async def test_missing_resources_for_tls_spend_nothing() -> None:
    """If resources for a TLS context are lacking, the delivery is given back, due at once; the error is raised."""
    scene = with_identity(Exhausted("the TLS context cannot be made (EMFILE)"))
    with pytest.raises(Exhausted, match=r"cannot be made \(EMFILE\)"):
        await scene.run()

    assert ([], [], State.PENDING, 0) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.row.budget_spent,
    )
    assert (1, 0, []) == (scene.meter.lacks, scene.meter.returns, scene.meter.holds)
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-06")
async def test_a_failure_of_one_worker_is_retried_unspent() -> None:
    """After a failure of this worker alone, the delivery is given back unspent and due later; no endpoint is held."""
    scene = with_identity(LocalFailure("too many are asked for: run more workers"))
    await scene.run()

    assert ([], [], State.PENDING, None) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.row.waiting_for,
    )
    assert "too many are asked for: run more workers" == scene.row.error
    assert (0, 1, []) == (scene.meter.lacks, scene.meter.returns, scene.meter.holds)
    scene.clock.elapsed += 14.9
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 0.2
    assert await take(RING, scene.parts) is not None


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

    assert ([], [], State.PENDING, 1) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.meter.returns,
    )


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
    assert await take(RING, scene.parts) is not None


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
    taken = await take(RING, scene.parts)
    assert taken is not None
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
        """Never return."""
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
    assert await take(RING, scene.parts) is not None


class SlowLedger(MemoryLedger):
    """A ledger that writes only after `may_write` is set."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.writing, self.may_write = asyncio.Event(), asyncio.Event()

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Record after `may_write`."""
        self.writing.set()
        await self.may_write.wait()
        return await super().record(claim, attempt, verdict, error)

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Release after `may_write`."""
        self.writing.set()
        await self.may_write.wait()
        return await super().release(claim, wait)


def with_ledger(scene: Scene, ledger: MemoryLedger) -> Scene:
    """Return the pipeline with the ledger of a worker over this one."""
    scene.ledger = ledger
    ledger.add(CLAIM)
    used = PersistentLedger(ledger, clock=scene.clock, new_token=lambda: "lease", lost=lambda _token: None)
    used.give_up_after(5)
    scene.parts = replace(scene.parts, ledger=used)
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
    """A cancellation during the release of a delivery takes effect after the release."""
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
    """If a delivery is cancelled while its outcome is written, and that fails, the delivery id is logged."""

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
