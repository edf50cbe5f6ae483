"""What becomes of an attempt that is too late, cut off, or whose lease moved on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from hookseal.dispatcher.model import Attempt, Claim, NotBegun, State, Verdict
from hookseal.dispatcher.ports import Signer
from hookseal.dispatcher.prepare import START_WITHIN_SECONDS
from hookseal.ground.errors import CannotSign, Exhausted
from hookseal.ground.pointer import Pointer
from tests.dispatcher.scene import OK, Scene, attempt, take
from tests.doubles.claims import CLAIM, DELIVERY, RING, target
from tests.doubles.ledger import MemoryLedger
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport


async def test_an_old_claim_is_given_back() -> None:
    """No request starts later than two seconds after its claim: the delivery is given back, due at once."""
    scene = Scene()
    taken = await take(RING, scene.parts)
    assert taken is not None
    scene.clock.elapsed += START_WITHIN_SECONDS + 0.001
    await attempt(*taken, scene.parts)

    assert ([], [], State.PENDING) == (scene.transport.sent, scene.row.attempts, scene.row.state)
    assert 1 == scene.meter.returns
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-06")
async def test_what_this_machine_lacks_spends_nothing() -> None:
    """A request for which there was no descriptor is given back, due at once, and whoever runs us hears of it."""
    scene = Scene(answers=[NotBegun(lack="EMFILE"), OK])
    with pytest.raises(Exhausted, match=r"none left of what a connection takes \(EMFILE\)"):
        await scene.run()

    assert ([], State.PENDING, 0) == (scene.row.attempts, scene.row.state, scene.row.budget_spent)
    assert (1, 0) == (scene.meter.lacks, scene.meter.returns)
    await scene.run()
    assert State.DELIVERED is scene.row.state


class StallingSigners(FixedSigners):
    """The process stands still while a secret signs."""

    stands_still: Callable[[], None]

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        """Give the signers, and let the time pass in which they sign."""
        async with super().signers(pointer) as given:
            yield given
            self.stands_still()


@pytest.mark.req("DUR-02", "DUR-07")
async def test_a_process_that_stands_still_while_it_signs() -> None:
    """A request that was ready in time, and whose process then stood still, is not sent late: it is given back."""
    signers = StallingSigners("db:acme:n:1")
    scene = Scene(signers=signers)

    def nine_seconds() -> None:
        scene.clock.elapsed += 9

    signers.stands_still = nine_seconds
    await scene.run()

    assert ([], [], State.PENDING, 1) == (
        scene.transport.sent,
        scene.row.attempts,
        scene.row.state,
        scene.meter.returns,
    )


@pytest.mark.req("DEL-03", "DEL-15")
async def test_cut_off_in_mid_send() -> None:
    """A request that is cut off is on record as unknown, and its delivery is due again after the back-off."""
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
    """A worker whose lease moved on while it sent writes neither attempt nor state, and says so."""
    scene = Scene()
    scene.parts = replace(scene.parts, transport=ScriptedTransport(OK, during=scene.lose_lease))
    logs = await scene.told()

    assert (State.SENDING, []) == (scene.row.state, scene.row.attempts)
    assert [("delivery.attempted", "warning", False)] == [
        (line["event"], line["log_level"], line["recorded"]) for line in logs
    ]
    assert (1, 1) == (scene.meter.leases_lost, len(scene.meter.attempts))


@pytest.mark.parametrize("why", ["disabled", "gone", "no secret", "too old"])
async def test_every_lost_lease_is_counted(why: str) -> None:
    """A wait, an end and a delivery that is given back are fenced as well: each is counted, none as held back."""
    scene = Scene(signers=FixedSigners("db:acme:n:1", error=CannotSign() if why == "no secret" else None))
    if why in {"disabled", "gone"}:
        scene.ledger.target(DELIVERY, target(enabled=False) if why == "disabled" else None)
    taken = await take(RING, scene.parts)
    assert taken is not None
    scene.lose_lease()
    scene.clock.elapsed += 3 if why == "too old" else 0
    await attempt(*taken, scene.parts)

    assert (State.SENDING, "another") == (scene.row.state, scene.row.lease)
    assert (1, [], []) == (scene.meter.leases_lost, scene.meter.holds, scene.meter.attempts)


@pytest.mark.req("DEL-03")
async def test_cut_off_while_the_secret_is_fetched() -> None:
    """A delivery that is cut off before its request exists is given back, due at once, without an attempt."""
    fetching = asyncio.Event()

    class HangingSigners(FixedSigners):
        @asynccontextmanager
        async def signers(self, _pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
            fetching.set()
            await asyncio.Event().wait()
            yield ()

    scene = Scene()
    scene.parts = replace(scene.parts, signers=HangingSigners())
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(fetching.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, []) == (scene.row.state, scene.row.attempts)
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-03", "DEL-15")
async def test_cut_off_while_recording() -> None:
    """A worker that is stopped while it writes an outcome finishes first, and counts and tells it."""
    writing, go_on = asyncio.Event(), asyncio.Event()

    class SlowLedger(MemoryLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            writing.set()
            await go_on.wait()
            return await super().record(claim, attempt, verdict, error)

    scene = Scene()
    scene.ledger = SlowLedger(scene.clock)
    scene.ledger.add(CLAIM)
    scene.parts = replace(scene.parts, ledger=scene.ledger)
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(writing.wait(), 60)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.DELIVERED, 1, 1) == (scene.row.state, len(scene.row.attempts), len(scene.meter.attempts))
