"""The bounded set of requests in flight."""

import asyncio

import pytest

from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.worker.inflight import InFlight


async def hold(until: asyncio.Event) -> None:
    """Be in flight until then."""
    await until.wait()


async def test_slots_bound_what_is_in_flight() -> None:
    """With every slot taken there is no room; there is as soon as a work has ended."""
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


@pytest.mark.req("PERF-07", part="bytes")
async def test_bytes_bound_what_is_in_flight() -> None:
    """There is no room while a body of the largest size would not fit, however many slots are free."""
    end = asyncio.Event()
    in_flight = InFlight(10, most_bytes=2 * MAX_BODY_BYTES)
    in_flight.take(1)
    in_flight.hold(MAX_BODY_BYTES)
    in_flight.start(hold(end), MAX_BODY_BYTES)
    assert (9, MAX_BODY_BYTES) == (in_flight.room, in_flight.bytes_room)
    in_flight.take(1)
    in_flight.hold(1)
    in_flight.start(hold(end), 1)
    assert (0, MAX_BODY_BYTES - 1) == (in_flight.room, in_flight.bytes_room)
    end.set()
    await asyncio.wait_for(in_flight.wait_for_room(60), 60)

    assert 0 == await in_flight.drain(5)
    assert (10, 2 * MAX_BODY_BYTES) == (in_flight.room, in_flight.bytes_room)


@pytest.mark.req("DUR-05")
async def test_what_waits_for_room_when_it_closes_waits_no_longer() -> None:
    """Once nothing is begun any more, everything that waits for room goes on at once."""
    in_flight = InFlight(1)
    in_flight.take(1)
    in_flight.start(hold(asyncio.Event()))
    waiting = [asyncio.create_task(in_flight.wait_for_room(60)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0)
    in_flight.close()

    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert in_flight.is_closed
    assert 1 == await in_flight.drain(0)


async def test_a_wait_for_room_ends() -> None:
    """It returns when its time is over, and leaves no task."""
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


async def test_drain_waits() -> None:
    """What ends in time is waited for, with what it started meanwhile, and nothing is cut off."""
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


async def test_drain_of_nothing() -> None:
    """With nothing in flight there is nothing to wait for."""
    assert 0 == await InFlight(1).drain(5)


async def test_drain_cuts_off() -> None:
    """What does not end in time is cut off, counted, and waited for until it has told what became of it."""
    told: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.01)
            told.append("unknown")

    in_flight = InFlight(3)
    end = asyncio.Event()
    end.set()
    in_flight.take(3)
    for work in (stubborn(), stubborn(), hold(end)):
        in_flight.start(work)

    assert 2 == await in_flight.drain(0.01)
    assert (["unknown", "unknown"], 0) == (told, len(in_flight))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_work_that_fails_gives_its_slot_back() -> None:
    """However a work ends, its slot and its bytes are free."""

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


async def test_a_rest() -> None:
    """For a while there is no room, though slots are free; what is in flight goes on, and a stop ends the rest."""
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
