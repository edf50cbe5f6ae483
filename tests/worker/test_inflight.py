"""The bounded set of requests in flight."""

import asyncio

import pytest

from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.worker.inflight import InFlight


async def hold(until: asyncio.Event) -> None:
    """Stay in flight until the event is set."""
    await until.wait()


async def test_slots_bound_requests_in_flight() -> None:
    """With every slot taken there is no room; when one request has ended there is."""
    end = asyncio.Event()
    in_flight = InFlight(2)
    in_flight.take(2)
    in_flight.start(hold(end))
    in_flight.start(hold(asyncio.Event()))
    assert (2, 0, 2) == (in_flight.limit, in_flight.room, len(in_flight))

    waiting = asyncio.create_task(in_flight.wait_for_room(60))
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    end.set()
    await asyncio.wait_for(waiting, 60)
    assert (1, 1) == (in_flight.room, len(in_flight))
    assert 1 == await in_flight.drain(0)


async def test_after_its_close_nothing_may_be_claimed() -> None:
    """After `close` there is no room, though slots are free."""
    in_flight = InFlight(2)
    in_flight.close()

    assert (0, 2) == (in_flight.room, in_flight.slots)


async def test_bytes_bound_requests_in_flight() -> None:
    """There is room for as many requests as fit with bodies of the largest size, however many slots are free."""
    end = asyncio.Event()
    in_flight = InFlight(10, most_bytes=2 * MAX_BODY_BYTES)
    assert 2 == in_flight.room
    in_flight.take(1)
    in_flight.hold(MAX_BODY_BYTES)
    in_flight.start(hold(end), MAX_BODY_BYTES)
    assert (1, MAX_BODY_BYTES, True) == (in_flight.room, in_flight.bytes_room, in_flight.has_bytes)
    in_flight.take(1)
    in_flight.hold(1)
    in_flight.start(hold(end), 1)
    assert (0, MAX_BODY_BYTES - 1, False) == (in_flight.room, in_flight.bytes_room, in_flight.has_bytes)
    end.set()
    await asyncio.wait_for(in_flight.wait_for_room(60), 60)

    assert 0 == await in_flight.drain(5)
    assert (2, 2 * MAX_BODY_BYTES) == (in_flight.room, in_flight.bytes_room)


async def test_an_answered_request_gives_its_slot_back() -> None:
    """Outcomes that are being recorded hold no slots, until they are as many as the slots. A drain waits for them."""
    in_flight, recorded = InFlight(2), asyncio.Event()

    async def answer(done: asyncio.Event) -> None:
        in_flight.answered()
        done.set()
        await recorded.wait()

    slots = [in_flight.slots]
    for _ in range(4):
        in_flight.take(1)
        in_flight.start(answer(answered := asyncio.Event()))
        await asyncio.wait_for(answered.wait(), 60)
        slots.append(in_flight.slots)
    in_flight.answered()  # a task that holds no slot gives none back
    assert ([2, 2, 2, 1, 0], 0, 4) == (slots, in_flight.slots, len(in_flight))
    recorded.set()
    assert (0, 2) == (await in_flight.drain(5), in_flight.slots)


async def test_an_answer_ends_a_wait_for_room() -> None:
    """Who waits for a slot gets the one of a request that was answered, before its outcome is recorded."""
    in_flight, answer = InFlight(1), asyncio.Event()

    async def work() -> None:
        await answer.wait()
        in_flight.answered()
        await asyncio.Event().wait()

    in_flight.take(1)
    in_flight.start(work())
    waiting = asyncio.create_task(in_flight.wait_for_room(60))
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    answer.set()
    await asyncio.wait_for(waiting, 60)
    assert (1, 1) == (in_flight.slots, await in_flight.drain(0))


async def test_slots_that_become_free_together_are_gathered() -> None:
    """A wait for several slots lasts until they are free; one that has lasted long enough takes all that end now."""
    in_flight = InFlight(8)
    in_flight.take(8)
    ends = [asyncio.Event() for _ in range(8)]
    for end in ends:
        in_flight.start(hold(end))
    waiting = asyncio.create_task(in_flight.gather(60, 2))
    for end in ends[:2]:
        await asyncio.wait({waiting}, timeout=0)
        assert not waiting.done()
        end.set()
    await asyncio.wait_for(waiting, 60)

    for end in ends[2:5]:
        end.set()
    await in_flight.gather(0, 8)
    assert 5 == in_flight.slots
    waiting = asyncio.create_task(in_flight.gather(60, 8))
    await asyncio.wait({waiting}, timeout=0)
    in_flight.end_wait()
    await asyncio.wait_for(waiting, 60)
    assert 5 == in_flight.slots
    assert 3 == await in_flight.drain(0)


@pytest.mark.req("DUR-05")
async def test_close_ends_every_wait() -> None:
    """After `close` everything that waits for room continues at once."""
    in_flight = InFlight(1)
    in_flight.take(1)
    in_flight.start(hold(asyncio.Event()))
    waiting = [asyncio.create_task(in_flight.wait_for_room(60)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0)
    in_flight.close()

    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert in_flight.is_closed
    assert 1 == await in_flight.drain(0)


async def test_several_slots_are_taken_together() -> None:
    """A wait for several slots ends when that many are free, or with fewer at its time limit."""
    in_flight = InFlight(3)
    in_flight.take(3)
    ends = [asyncio.Event() for _ in range(3)]
    for end in ends:
        in_flight.start(hold(end))
    waiting = asyncio.create_task(in_flight.wait_for_room(60, 2))
    ends[0].set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert 1 == in_flight.room
    assert not waiting.done()
    ends[1].set()

    await asyncio.wait_for(waiting, 60)
    assert 2 == in_flight.room
    await in_flight.wait_for_room(0.01, 3)
    assert 2 == in_flight.room
    assert 1 == await in_flight.drain(0)


async def test_a_wait_for_room_ends() -> None:
    """A wait for room returns at its time limit and leaves no task."""
    in_flight = InFlight(1)
    in_flight.take(1)
    before = asyncio.all_tasks()
    await in_flight.wait_for_room(0.01)
    await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.01)

    assert 0 == in_flight.room
    assert before == {task for task in asyncio.all_tasks() if task in before}


async def test_unused_slots_are_given_back() -> None:
    """Slots that were taken and freed can be taken again."""
    in_flight = InFlight(3)
    in_flight.take(3)
    in_flight.free(2)

    assert 2 == in_flight.room


async def test_a_drain_waits_for_requests() -> None:
    """A drain waits for what ends in time, including what was started meanwhile, and cancels nothing."""
    end = asyncio.Event()
    in_flight = InFlight(2)
    in_flight.take(2)

    async def first() -> None:
        await end.wait()
        in_flight.start(hold(end))

    in_flight.start(first())
    asyncio.get_running_loop().call_soon(end.set)

    assert 0 == await in_flight.drain(5)
    assert (0, 2) == (len(in_flight), in_flight.room)


async def test_an_empty_drain_returns_at_once() -> None:
    assert 0 == await InFlight(1).drain(5)


async def test_a_drain_cancels_late_requests() -> None:
    """A drain cancels and counts what does not end in time, and waits until it has handled the cancellation."""
    handled: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.01)
            handled.append("unknown")

    in_flight = InFlight(3)
    end = asyncio.Event()
    end.set()
    in_flight.take(3)
    for work in (stubborn(), stubborn(), hold(end)):
        in_flight.start(work)

    assert 2 == await in_flight.drain(0.01)
    assert (["unknown", "unknown"], 0) == (handled, len(in_flight))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.req("DUR-05")
async def test_a_task_cancelled_at_its_start_still_runs() -> None:
    """A task that is started in the turn of the cancellation runs, sees it, and can give back its claim."""
    written: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            written.append("given back")
            raise

    async def group() -> None:
        in_flight.start(work())
        await work()

    in_flight = InFlight(2)
    in_flight.take(2)
    in_flight.start(group())

    assert 2 == await in_flight.drain(0)
    assert (["given back", "given back"], 0, 2) == (written, len(in_flight), in_flight.room)


async def test_a_failed_task_frees_its_slot() -> None:
    async def fail() -> None:
        raise ValueError

    in_flight = InFlight(1)
    room = in_flight.bytes_room
    in_flight.take(1)
    in_flight.hold(7)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    in_flight.start(fail(), 7)
    await asyncio.wait_for(in_flight.wait_for_room(60), 60)

    assert (0, 1, room) == (len(in_flight), in_flight.room, in_flight.bytes_room)


async def test_there_is_no_room_during_a_rest() -> None:
    """During a rest there is no room although slots are free; requests in flight continue; `close` ends the rest."""
    end = asyncio.Event()
    in_flight = InFlight(3)
    in_flight.take(1)
    in_flight.start(hold(end))
    in_flight.rest(0.01)
    assert (0, True) == (in_flight.room, in_flight.is_resting)
    await asyncio.wait_for(in_flight.wait_for_room(60), 60)
    assert (2, False) == (in_flight.room, in_flight.is_resting)

    in_flight.rest(3_600)
    waiting = asyncio.create_task(in_flight.wait_for_room(60))
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    end.set()
    in_flight.close()
    await asyncio.wait_for(waiting, 60)
    in_flight.rest(3_600)
    assert not in_flight.is_resting
    assert 0 == await in_flight.drain(5)
