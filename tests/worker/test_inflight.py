"""The bounded set of requests in flight."""

import asyncio

import pytest

from hookseal.worker.inflight import InFlight


async def hold(until: asyncio.Event) -> None:
    """Be in flight until then."""
    await until.wait()


async def test_a_slot_bounds_what_is_in_flight() -> None:
    """With every slot taken the next one is had only when a work has ended."""
    end = asyncio.Event()
    in_flight = InFlight(1)
    assert (1, 0, False) == (in_flight.limit, len(in_flight), in_flight.is_full)
    await in_flight.slot()
    in_flight.start(hold(end))
    assert (1, True) == (len(in_flight), in_flight.is_full)

    waiting = asyncio.create_task(in_flight.slot())
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    end.set()
    await asyncio.wait_for(waiting, 60)
    assert (0, True) == (len(in_flight), in_flight.is_full)


@pytest.mark.req("DUR-05")
async def test_who_waits_for_a_slot_when_it_closes_waits_no_longer() -> None:
    """Once nothing is started any more, whoever waits for a slot is told at once, and frees it for the next one."""
    in_flight = InFlight(1)
    await in_flight.slot()
    in_flight.start(hold(asyncio.Event()))

    async def refused() -> bool:
        await in_flight.slot()
        in_flight.free()
        return in_flight.is_closed

    waiting = [asyncio.create_task(refused()) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0)
    in_flight.close()

    assert [True] * 3 == await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert 1 == await in_flight.drain(0)


async def test_an_unused_slot_is_given_back() -> None:
    """A slot that was taken and freed can be taken again."""
    in_flight = InFlight(1)
    await in_flight.slot()
    in_flight.free()

    assert not in_flight.is_full
    await asyncio.wait_for(in_flight.slot(), 60)


async def test_drain_waits() -> None:
    """What ends in time is waited for, and nothing is cut off."""
    end = asyncio.Event()
    in_flight = InFlight(2)
    for _ in range(2):
        await in_flight.slot()
        in_flight.start(hold(end))
    asyncio.get_running_loop().call_soon(end.set)

    assert 0 == await in_flight.drain(5)
    assert (0, False) == (len(in_flight), in_flight.is_full)


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
    for work in (stubborn(), stubborn(), hold(end)):
        await in_flight.slot()
        in_flight.start(work)

    assert 2 == await in_flight.drain(0.01)
    assert (["unknown", "unknown"], 0) == (told, len(in_flight))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_work_that_fails_gives_its_slot_back() -> None:
    """However a work ends, its slot is free."""

    async def fail() -> None:
        raise ValueError

    in_flight = InFlight(1)
    await in_flight.slot()
    failing = asyncio.get_running_loop()
    failing.set_exception_handler(lambda _loop, _context: None)
    in_flight.start(fail())
    await asyncio.wait_for(in_flight.slot(), 60)

    assert 0 == len(in_flight)


@pytest.mark.parametrize("limit", [1, 3])
async def test_is_full_only_at_the_limit(limit: int) -> None:
    """It is full with the last slot, not before."""
    in_flight = InFlight(limit)
    for taken in range(limit):
        assert not in_flight.is_full, taken
        await in_flight.slot()

    assert in_flight.is_full


async def test_a_rest() -> None:
    """For a while no slot is given, though some are free; what is in flight goes on, and a stop ends the rest."""
    end = asyncio.Event()
    in_flight = InFlight(3)
    await in_flight.slot()
    in_flight.start(hold(end))
    in_flight.rest(0.01)
    assert (True, True) == (in_flight.is_full, in_flight.is_resting)
    await asyncio.wait_for(in_flight.slot(), 5)
    assert (False, False) == (in_flight.is_full, in_flight.is_resting)

    in_flight.rest(3_600)
    waiting = asyncio.create_task(in_flight.slot())
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    end.set()
    in_flight.close()
    await asyncio.wait_for(waiting, 5)
    in_flight.rest(3_600)
    assert not in_flight.is_resting
