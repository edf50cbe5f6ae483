"""Faults under load: each scenario publishes to a fleet, causes faults meanwhile, waits for the end, and compares.

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

from tests.faults.comparison import Report
from tests.faults.faulty_worker import POINTS, Action, Fault
from tests.faults.site import FAULTY, LEASE_SECONDS, SWEEP_SECONDS, Site, slowly
from tests.worker.fleet import Worker

WORKERS = 3
SETTLES_WITHIN = 300.0
ANSWERS_AFTER = 0.2  # so that every worker has requests in flight when a fault occurs
SLACK_SECONDS = 2.0  # the time that a delivery takes without a fault, on busy cores
# Exit codes of a worker that gets SIGTERM while it starts: killed by it, or drained.
EXIT_CODES_OF_A_START = {0, -signal.SIGTERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is published, and how fast; `pause` is the longest time between two faults."""

    events: int
    per_second: float
    pause: float = 1.0


CauseFault = Callable[[], Awaitable[int]]


async def cause_faults_under_load(site: Site, size: Size, cause_fault: CauseFault) -> int:
    """Publish, and cause faults until all is published, one at least; return the number of faults."""
    site.receiver.answer = slowly(ANSWERS_AFTER)
    publishing = asyncio.create_task(site.publish(size.events, per_second=size.per_second))
    done = 0
    try:
        while not (publishing.done() and done):
            done += await cause_fault()
        await publishing
    finally:
        publishing.cancel()
    return done


async def kill_workers(site: Site, size: Size, chance: Random) -> Report:
    """Kill workers with SIGKILL: from outside at any moment, and from inside at each step of a delivery in turn."""
    await site.fleet.start_many(WORKERS)
    points = list(POINTS)
    chance.shuffle(points)

    starting = set[asyncio.Task[bool]]()

    async def cause_fault() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        if site.fleet.running:
            await site.fleet.kill(chance.choice(site.fleet.running))
        while sum(worker.is_running for worker in site.fleet.workers) < WORKERS + 1:
            points.append(points.pop(0))
            doomed = Fault(point=points[0], action=Action.KILL, number=chance.randint(1, 200))
            starting.add(
                asyncio.create_task((await site.fleet.start(module=FAULTY, FAULT=str(doomed), wait=False)).was_ready())
            )
        return 1

    await cause_faults_under_load(site, size, cause_fault)
    await asyncio.gather(*starting)
    await asyncio.gather(*(site.fleet.kill(worker) for worker in site.fleet.running))
    killed = [each for each in site.fleet.workers if each.process.returncode == -signal.SIGKILL]
    site.fleet.dead.update(worker.worker_id for worker in killed if worker.ready)
    await site.fleet.start_many(2)
    return await _report(site, faults=len(killed))


async def restart_workers(site: Site, size: Size, _chance: Random) -> Report:
    """Replace the oldest worker again and again, as in a rolling deployment. All exit with 0."""
    await site.fleet.start_many(WORKERS)

    async def cause_fault() -> int:
        oldest = site.fleet.running[0]
        await site.fleet.start()
        await oldest.stop()
        return 1

    restarts = await cause_faults_under_load(site, size, cause_fault)
    return await _report(site, faults=restarts)


async def send_sigterms(site: Site, size: Size, chance: Random) -> Report:
    """Send SIGTERM again and again: while a worker starts, works and drains, until it has ended."""
    await site.fleet.start_many(WORKERS)

    async def cause_fault() -> int:
        starting = await site.fleet.start(wait=False)
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment of its start
        codes = await asyncio.gather(_send_sigterms(starting, chance), _send_sigterms(site.fleet.running[0], chance))
        assert codes[0] in EXIT_CODES_OF_A_START
        assert 0 == codes[1]
        await site.fleet.start()
        return 2

    signalled = await cause_faults_under_load(site, size, cause_fault)
    return await _report(site, faults=signalled)


async def _send_sigterms(worker: Worker, chance: Random) -> int:
    while worker.is_running:
        worker.send(signal.SIGTERM)
        await asyncio.sleep(chance.uniform(0, 0.05))  # like an impatient supervisor
    return await worker.ended()


async def pause_workers(site: Site, size: Size, chance: Random) -> Report:
    """Stop a worker (SIGSTOP) for longer than its lease, then continue it; others have its deliveries by then."""
    await site.fleet.start_many(WORKERS)

    async def cause_fault() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        worker = chance.choice(site.fleet.running)
        site.fleet.dead.add(worker.worker_id)
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + 2)  # its lease expires, and the sweep of another worker ends it
        worker.send(signal.SIGCONT)
        return 1

    pauses = await cause_faults_under_load(site, size, cause_fault)
    return await _report(site, faults=pauses)


async def stall_workers(site: Site, size: Size, chance: Random) -> Report:
    """Block the event loop of a worker for longer than the lease, at each step in turn."""
    await site.fleet.start()
    points = list(POINTS)
    chance.shuffle(points)

    async def start_stalling() -> Worker:
        points.append(points.pop(0))
        number, seconds = chance.randint(1, 20), LEASE_SECONDS + 2
        worker = await site.fleet.start(
            module=FAULTY, FAULT=str(Fault(point=points[0], action=Action.STALL, number=number, seconds=seconds))
        )
        site.fleet.dead.add(worker.worker_id)
        return worker

    waiting = [await start_stalling()]

    async def cause_fault() -> int:
        await asyncio.sleep(LEASE_SECONDS + 4)  # long enough to reach the point and be blocked there
        await waiting.pop().stop()
        waiting.append(await start_stalling())
        return 1

    stalls = await cause_faults_under_load(site, size, cause_fault)
    return await _report(site, faults=stalls)


async def flush_redis(site: Site, size: Size, chance: Random) -> Report:
    """Send FLUSHALL at random moments. It must not cause a second request.

    `late` counts deliveries that arrived later than one sweep, plus the usual time, after their publishing or the last
    flush.
    """
    flushed_at = [0.0]
    await site.fleet.start_many(WORKERS)

    async def cause_fault() -> int:
        await asyncio.sleep(chance.uniform(0, size.pause))  # at a random moment
        async with Redis.from_url(site.redis_url) as client:
            await client.flushall()
        flushed_at.append(time.time())
        return 1

    flushes = await cause_faults_under_load(site, size, cause_fault)
    found = await _report(site, faults=flushes)
    since = [
        arrived - max(published, flushed_at[bisect(flushed_at, arrived) - 1])
        for published, arrived in await site.published_and_arrived()
    ]
    late = [seconds for seconds in since if seconds > SWEEP_SECONDS + SLACK_SECONDS]
    return replace(found, counts=found.counts | {"late": len(late)})


async def _report(site: Site, **counts: int) -> Report:
    await site.wait_until_settled(within=SETTLES_WITHIN)
    found = await site.report()
    return replace(found, counts=found.counts | counts)
