"""Runs a worker process: open the resources, report that it is ready, take rings until a signal, drain, close."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TextIO

from hookseal.config.load import freeze_objects, raise_descriptor_limit
from hookseal.config.settings import Settings
from hookseal.dispatcher.http.egress_guard import RESERVED_DESCRIPTORS
from hookseal.dispatcher.lanes.lane import PEAK_PART
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.errors import Defect
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.postgres.pool import waited_seconds
from hookseal.worker.background import BackgroundLoops, Loop
from hookseal.worker.checks import ready_checks, startup_checks, unaudited_rows
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.engine import Engine, Shell, without_arq
from hookseal.worker.health import Opening, Probes, on_port
from hookseal.worker.heartbeat import Load
from hookseal.worker.inflight import InFlight
from hookseal.worker.lane_keeper import LaneKeeper
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import watch_records, watch_secrets
from hookseal.worker.periodic import Passes
from hookseal.worker.resources import Resources, opened
from hookseal.worker.ring_handler import Movement, RingHandler
from hookseal.worker.saturation import Has, Sample, Saturation
from hookseal.worker.stopping import on_stop, print_ready
from hookseal.worker.unlocking import WarmUp

_CANCEL_AGAIN_SECONDS: Final = 0.1


async def run(
    settings: Settings,
    *,
    output: TextIO = sys.stdout,
    clock: Clock | None = None,
    opening: Opening | None = None,
    with_arq: bool = False,
) -> None:
    """Run a worker until SIGTERM or SIGINT; afterwards nothing is in flight and every lease is given back.

    It prints one line on `output` once it is ready. Its probes answer on the port of the settings, unless `opening`
    makes them reachable in another way. It takes rings as an arq worker if it is to be one `with_arq`. Raises
    `Unavailable` or `ConfigError` if it cannot start.
    """
    clock = clock or SystemClock()
    log: Any = logger()
    stop = asyncio.Event()
    on_stop(stop.set)
    _raise_limit(settings, log)
    async with opened(settings, clock, log) as resources:
        log = log.bind(worker_id=resources.worker_id)
        await _Worker(settings, resources, clock, log, _shell(with_arq=with_arq)).until(
            stop, output, opening or on_port(settings.health)
        )


def _shell(*, with_arq: bool) -> Shell:
    if not with_arq:
        return without_arq
    from hookseal.worker.arq_worker import within_arq  # noqa: PLC0415 -- only a deployed worker has arq

    return within_arq


def _raise_limit(settings: Settings, log: Any) -> None:
    limit = raise_descriptor_limit()
    needed = settings.worker.concurrency + RESERVED_DESCRIPTORS
    if limit < needed:
        log.warning(
            "worker.few_descriptors",
            limit=limit,
            needed=needed,
            reason=f"this process may open {limit} files, and HOOKSEAL_CONCURRENCY={settings.worker.concurrency} needs "
            f"{needed}: raise the hard limit (LimitNOFILE, ulimits, ulimit -Hn), or lower HOOKSEAL_CONCURRENCY",
        )


async def run_until(stop: asyncio.Event, loops: Sequence[asyncio.Task[None]], log: Any) -> None:
    """Return when `stop` is set. Raises `Defect` if a loop ends before, also one that something else cancelled."""
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        ended, _ = await asyncio.wait({stopped, *loops}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in ended - {stopped}:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        log.error("worker.loop_ended", loop=task.get_name(), exc_info=error)
        raise Defect(f"the {task.get_name()} loop ended by itself") from error


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel the tasks repeatedly until they have ended.

    One cancellation is not enough: on Python 3.11 `asyncio.wait_for`, which the Redis client uses to write, loses a
    cancellation that comes when the write ends.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)  # retrieves their errors, so that asyncio does not log them


def sample(lanes: Lanes, in_flight: InFlight, handler: RingHandler, resources: Resources, clock: Clock) -> Sample:
    """Return the state of a worker now."""
    return Sample(
        at=clock.monotonic(),
        waits=lanes.ready,
        has_slot=in_flight.is_resting or (in_flight.slots > 0 and not lanes.at_their_share),
        has_bytes=in_flight.has_bytes,
        records_late=in_flight.records_late or resources.circuit.is_open,
        cpu_seconds=time.process_time(),
        connection_seconds=waited_seconds(resources.batching),
        claim_seconds=handler.claiming.seconds,
        redis_seconds=resources.bell.stopwatch.seconds,
    )


def watch_limits(resources: Resources, in_flight: InFlight, saturation: Saturation) -> None:
    """Have the meter and the heartbeat report what a worker may have, what it has now, and what limits it."""
    pools = {Has.CONNECTIONS: resources.pool, Has.BATCH_CONNECTIONS: resources.batching}

    def limits() -> dict[str, int]:
        connections = {of.value: pool.get_max_size() for of, pool in pools.items()}
        return {Has.REQUESTS.value: in_flight.limit, Has.BYTES.value: in_flight.most_bytes, **connections}

    def in_use() -> dict[str, int]:
        connections = {of.value: pool.get_size() - pool.get_idle_size() for of, pool in pools.items()}
        held_bytes = in_flight.most_bytes - in_flight.bytes_room
        return {Has.REQUESTS.value: in_flight.used_slots, Has.BYTES.value: held_bytes, **connections}

    def waits() -> dict[str, float]:
        return {of.value: waited_seconds(pool) for of, pool in pools.items()}

    resources.meter.watch(definitions.LIMIT, limits)
    resources.meter.watch(definitions.IN_USE, in_use)
    resources.meter.watch(definitions.CONNECTION_WAIT, waits)
    resources.meter.watch(definitions.SATURATED, lambda: saturation.seconds)
    resources.heartbeat.load = lambda: _load(in_use(), limits(), saturation.limits)


def probes_of(resources: Resources, engine: Engine, movement: Movement, others: Sequence[Passes] = ()) -> Probes:
    """Return the probes of a worker with these resources.

    It is alive while the loops of `engine` run, and ready only while these and `others` end their passes in time.
    """
    own = (engine.taking, engine.handling)
    return Probes(
        ready={**ready_checks(resources, movement), **{f"loop_{each.name}": each.check for each in (*own, *others)}},
        startup=startup_checks(resources),
        loops=own,
        scrape=resources.meter.scrape,
        unrecorded=resources.circuit.report,
        unaudited=partial(unaudited_rows, resources.probing),
    )


def _load(used: Mapping[str, int], most: Mapping[str, int], limited_by: Sequence[str]) -> Load:
    return Load(
        requests=used[Has.REQUESTS],
        most_requests=most[Has.REQUESTS],
        bytes=used[Has.BYTES],
        most_bytes=most[Has.BYTES],
        connections=used[Has.CONNECTIONS],
        most_connections=most[Has.CONNECTIONS],
        batch_connections=used[Has.BATCH_CONNECTIONS],
        most_batch_connections=most[Has.BATCH_CONNECTIONS],
        limited_by=limited_by,
    )


class _Worker:
    def __init__(self, settings: Settings, resources: Resources, clock: Clock, log: Any, shell: Shell) -> None:
        self._settings = settings
        self._worker_id = resources.worker_id
        self._heartbeat = resources.heartbeat
        self._meter = resources.meter
        self._log = log
        self._in_flight = InFlight(settings.worker.concurrency)
        self._movement = Movement(clock, sweep_seconds=settings.worker.sweep_seconds)
        lanes = Lanes(
            settings.worker.endpoint_concurrency,
            lambda: resources.heartbeat.fleet,
            peak=settings.worker.endpoint_concurrency_peak,
            peak_here=settings.worker.concurrency // PEAK_PART,
        )
        store, turns = PostgresLanes(resources.pool), BacklogTurns(clock)
        self._keeper = LaneKeeper(store, lanes, self._in_flight, resources.parts, meter=resources.meter, turns=turns)
        self._handler = RingHandler(
            resources.parts,
            self._in_flight,
            resources.meter,
            self._movement,
            lanes=lanes,
            crowded=self._keeper.wake,
        )
        self._warm_up = WarmUp(resources.pool, resources.batching, clock=clock, log=log)
        self._engine = Engine(resources.bell, self._handler, due=store.due, clock=clock, log=log, shell=shell)
        self._background = BackgroundLoops(settings, resources, clock, log, turns=turns)
        needed = (*self._background.needed, self._keeper.passes)
        self._probes = probes_of(resources, self._engine, self._movement, needed)
        resources.meter.watch(definitions.IN_FLIGHT, lambda: len(self._in_flight))
        resources.meter.watch(definitions.READY, self._probes.readiness)
        look = partial(sample, lanes, self._in_flight, self._handler, resources, clock)
        self._saturation = Saturation(look, clock=clock, log=log)
        watch_limits(resources, self._in_flight, self._saturation)
        self._persistent = resources.persistent
        watch_records(resources.meter, resources.circuit)
        watch_secrets(resources.meter, resources.unlocked.service.statistics)

    async def until(self, stop: asyncio.Event, output: TextIO, opening: Opening) -> None:
        """Serve until `stop` is set, then drain."""
        port, url = await opening(self._probes, self._meter)
        running: dict[str, Loop] = {
            "engine": self._engine.run,
            "lanes": self._keeper.loop(self._handler).run,
            "warm_up": self._warm_up.loop.run,
            "saturation": self._saturation.loop.run,
            **self._background.loops,
        }
        loops = [asyncio.create_task(loop(), name=name) for name, loop in running.items()]
        freeze_objects()
        try:
            self._say_ready(url, output)
            await run_until(stop, loops, self._log)
            await self._drain()
        finally:
            await cancelled(loops)
            await self._background.end()
            await port.close()

    def _say_ready(self, url: str, output: TextIO) -> None:
        print_ready(output, {"worker_id": self._worker_id, "pid": os.getpid(), "health_url": url})
        self._log.info("worker.ready", health_url=url)

    async def _drain(self) -> None:
        self._probes.draining = True
        self._log.info("worker.draining", in_flight=len(self._in_flight))
        self._in_flight.close()
        await asyncio.gather(self._engine.stop(), self._heartbeat.drain())
        self._persistent.give_up_after(self._settings.worker.drain_seconds)
        cut_off = await self._in_flight.drain(self._settings.worker.drain_seconds)
        self._log.info("worker.stopped", cut_off=cut_off)
