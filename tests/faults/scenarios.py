"""Faults under load: each scenario publishes to a fleet, causes faults meanwhile, waits for the end, and balances.

The short form of each is a test, the long form is run by `make test-faults`; they differ in size alone.
"""

import asyncio
import signal
import time
from bisect import bisect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random

from redis.asyncio import Redis

from tests.faults.balance import Balance
from tests.faults.fault import POINTS, Action, Fault
from tests.faults.fleet import Member
from tests.faults.recording_receiver import slowly
from tests.faults.site import LEASE_SECONDS, SWEEP_SECONDS, Site

WORKERS = 3
SETTLES_WITHIN = 300.0
ANSWERS_AFTER = 0.2  # so that every worker has requests in flight when a fault occurs
SLACK_SECONDS = 2.0  # the time that a delivery takes without a fault, on busy cores
# Exit codes of a worker that gets SIGTERM while it starts: killed by it, or drained.
ENDS_OF_A_START = {0, -signal.SIGTERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is published, and how fast; `pause` is the longest time between two faults."""

    events: int
    per_second: float
    pause: float = 1.0


Harm = Callable[[], Awaitable[int]]


async def under_load(site: Site, size: Size, harm: Harm) -> int:
    """Publish, and cause faults until all is published, one at least; return the number of faults."""
    site.witness.answer = slowly(ANSWERS_AFTER)
    publishing = asyncio.create_task(site.publish(size.events, per_second=size.per_second))
    done = 0
    try:
        while not (publishing.done() and done):
            done += await harm()
        await publishing
    finally:
        publishing.cancel()
    return done


async def killed(site: Site, size: Size, chance: Random) -> Balance:
    """Kill -9 under load: from outside at any moment, and from inside at each step of a delivery in turn."""
    await site.fleet.start_many(WORKERS)
    points = list(POINTS)
    chance.shuffle(points)

    starting = set[asyncio.Task[bool]]()

    async def harm() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        if site.fleet.running:
            await site.fleet.kill(chance.choice(site.fleet.running))
        while sum(member.is_running for member in site.fleet.members) < WORKERS + 1:
            points.append(points.pop(0))
            doomed = Fault(point=points[0], action=Action.KILL, number=chance.randint(1, 200))
            starting.add(asyncio.create_task((await site.fleet.start(fault=str(doomed), wait=False)).was_ready()))
        return 1

    await under_load(site, size, harm)
    await asyncio.gather(*starting)
    await asyncio.gather(*(site.fleet.kill(member) for member in site.fleet.running))
    killed_ones = [each for each in site.fleet.members if each.process.returncode == -signal.SIGKILL]
    site.fleet.dead.update(member.worker_id for member in killed_ones if member.ready)
    await site.fleet.start_many(2)
    return await _settled(site, faults=len(killed_ones))


async def restarted(site: Site, size: Size, _chance: Random) -> Balance:
    """A rolling restart: again and again the oldest worker is replaced, as in a deployment. All exit with 0."""
    await site.fleet.start_many(WORKERS)

    async def harm() -> int:
        oldest = site.fleet.running[0]
        await site.fleet.start()
        assert 0 == await site.fleet.stop(oldest)
        return 1

    restarts = await under_load(site, size, harm)
    return await _settled(site, faults=restarts)


async def stormed(site: Site, size: Size, chance: Random) -> Balance:
    """SIGTERM again and again: while a worker starts, works and drains, until it has ended."""
    await site.fleet.start_many(WORKERS)

    async def harm() -> int:
        starting = await site.fleet.start(wait=False)
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment of its start
        ends = await asyncio.gather(_stormed(starting, chance), _stormed(site.fleet.running[0], chance))
        assert ends[0] in ENDS_OF_A_START
        assert 0 == ends[1]
        await site.fleet.start()
        return 2

    storms = await under_load(site, size, harm)
    return await _settled(site, faults=storms)


async def _stormed(member: Member, chance: Random) -> int:
    while member.is_running:
        member.send(signal.SIGTERM)
        await asyncio.sleep(chance.uniform(0, 0.05))  # like an impatient supervisor
    return await member.ended()


async def paused(site: Site, size: Size, chance: Random) -> Balance:
    """Stop a process (SIGSTOP) for longer than its lease, then continue it; others have its deliveries by then."""
    await site.fleet.start_many(WORKERS)

    async def harm() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        member = chance.choice(site.fleet.running)
        site.fleet.dead.add(member.worker_id)
        member.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + 2)  # its lease expires, and the sweep of another worker ends it
        member.send(signal.SIGCONT)
        return 1

    pauses = await under_load(site, size, harm)
    return await _settled(site, faults=pauses)


async def stalled(site: Site, size: Size, chance: Random) -> Balance:
    """Block an event loop for longer than the lease, at each step in turn."""
    await site.fleet.start()
    points = list(POINTS)
    chance.shuffle(points)

    async def stalling() -> Member:
        points.append(points.pop(0))
        number, seconds = chance.randint(1, 20), LEASE_SECONDS + 2
        member = await site.fleet.start(
            fault=str(Fault(point=points[0], action=Action.STALL, number=number, seconds=seconds))
        )
        site.fleet.dead.add(member.worker_id)
        return member

    waiting = [await stalling()]

    async def harm() -> int:
        await asyncio.sleep(LEASE_SECONDS + 4)  # long enough to reach the point and be blocked there
        assert 0 == await site.fleet.stop(waiting.pop())
        waiting.append(await stalling())
        return 1

    stalls = await under_load(site, size, harm)
    return await _settled(site, faults=stalls)


async def flushed(site: Site, size: Size, chance: Random) -> Balance:
    """FLUSHALL at random moments. It must not cause a second request.

    `late` counts deliveries seen later than one sweep, plus the usual time, after their publishing or the last flush.
    """
    emptied = [0.0]
    await site.fleet.start_many(WORKERS)

    async def harm() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        async with Redis.from_url(site.redis_url) as client:
            await client.flushall()
        emptied.append(time.time())
        return 1

    flushes = await under_load(site, size, harm)
    found = await _settled(site, faults=flushes)
    since = [seen - max(at, emptied[bisect(emptied, seen) - 1]) for at, seen in await site.waited()]
    late = [seconds for seconds in since if seconds > SWEEP_SECONDS + SLACK_SECONDS]
    return replace(found, counts=found.counts | {"late": len(late)})


async def _settled(site: Site, **counts: int) -> Balance:
    await site.settled(within=SETTLES_WITHIN)
    found = await site.balance()
    return replace(found, counts=found.counts | counts)
