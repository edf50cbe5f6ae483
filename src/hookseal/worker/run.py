"""The life of a worker process: open, say ready, take rings until a signal, drain, close."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

import msgspec
import structlog

from hookseal.config.hardening import raised_descriptor_limit
from hookseal.config.settings import Settings
from hookseal.dispatcher.guard import RESERVED_DESCRIPTORS
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.errors import Defect, Unavailable
from hookseal.worker.checks import ready_checks, startup_checks
from hookseal.worker.engine import Engine
from hookseal.worker.health import Probes
from hookseal.worker.inflight import InFlight
from hookseal.worker.meter import watch_secrets
from hookseal.worker.metrics import IN_FLIGHT, READY
from hookseal.worker.movement import Movement
from hookseal.worker.resources import Resources, opened
from hookseal.worker.ring_handler import RingHandler
from hookseal.worker.rounds import Rounds

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_CANCEL_AGAIN_SECONDS: Final = 0.1
_COLLECT_AFTER: Final = (50_000, 20, 50)  # measured: docs/performance.md


async def run(settings: Settings, *, output: TextIO = sys.stdout, clock: Clock | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT; afterwards nothing is in flight and every lease is given back.

    One line on `output` tells that it is ready. Raises `Unavailable` or `ConfigError` if it cannot start.
    """
    clock = clock or SystemClock()
    log: Any = structlog.get_logger()
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _raise_limit(settings, log)
    async with opened(settings, clock, log) as resources:
        log = log.bind(worker_id=resources.worker_id)
        await _Life(settings, resources, clock, log).until(stop, output)


def _raise_limit(settings: Settings, log: Any) -> None:
    limit = raised_descriptor_limit()
    needed = settings.worker.concurrency + RESERVED_DESCRIPTORS
    if limit < needed:
        log.warning(
            "worker.few_descriptors",
            limit=limit,
            needed=needed,
            reason=f"this process may open {limit} files, and HOOKSEAL_CONCURRENCY={settings.worker.concurrency} needs "
            f"{needed}: raise the hard limit (LimitNOFILE, ulimits, ulimit -Hn), or lower HOOKSEAL_CONCURRENCY",
        )


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel the tasks, again and again until they have ended.

    Once is not enough: on Python 3.11 `asyncio.wait_for`, with which the client of Redis writes, loses a
    cancellation that comes as the write ends.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)  # takes notice of their errors


def probes_of(resources: Resources, engine: Engine, movement: Movement, clock: Clock) -> Probes:
    """Return the probes of a worker on these resources, which lives while that engine moves, by that movement."""
    return Probes(
        ready=ready_checks(resources, movement),
        startup=startup_checks(resources),
        silence=lambda: clock.monotonic() - engine.beat,
        scrape=resources.meter.scrape,
    )


def _calm_collector() -> None:
    """Have the collector of cycles leave alone what was made at the start, and look seldom at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


class _Life:
    def __init__(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> None:
        self._settings = settings
        self._worker_id = resources.worker_id
        self._log = log
        self._in_flight = InFlight(settings.worker.concurrency)
        self._movement = Movement(clock, sweep_seconds=settings.worker.sweep_seconds)
        self._engine = Engine(
            resources.bell,
            RingHandler(resources.parts, self._in_flight, resources.meter, self._movement),
            self._in_flight,
            clock=clock,
            log=log,
        )
        self._rounds = Rounds(settings, resources, clock, log)
        self._probes = probes_of(resources, self._engine, self._movement, clock)
        resources.meter.watch(IN_FLIGHT, lambda: len(self._in_flight))
        resources.meter.watch(READY, self._probes.readiness)
        watch_secrets(resources.meter, resources.unlocked.service.statistics)

    async def until(self, stop: asyncio.Event, output: TextIO) -> None:
        """Serve until `stop` is set, then drain."""
        health = self._settings.health
        try:
            port, url = await self._probes.serve(health.host, health.port)
        except OSError as error:
            raise Unavailable(
                f"the probes cannot listen on {health.host}:{health.port} ({type(error).__name__}): "
                "free the port or set HOOKSEAL_HEALTH_PORT"
            ) from None
        running = {"engine": self._engine.run, **self._rounds.loops}
        loops = [asyncio.create_task(loop(), name=name) for name, loop in running.items()]
        _calm_collector()
        try:
            self._say_ready(url, output)
            await self._serve(stop, loops)
            await self._drain()
        finally:
            await cancelled(loops)
            await self._rounds.end()
            await port.close()

    def _say_ready(self, url: str, output: TextIO) -> None:
        ready = {"event": "worker.ready", "worker_id": self._worker_id, "pid": os.getpid(), "health_url": url}
        output.write(msgspec.json.encode(ready).decode() + "\n")
        output.flush()
        self._log.info("worker.ready", health_url=url)

    async def _serve(self, stop: asyncio.Event, loops: list[asyncio.Task[None]]) -> None:
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            ended, _ = await asyncio.wait({stopped, *loops}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for task in ended - {stopped}:
            raise Defect(f"the {task.get_name()} loop ended by itself") from task.exception()

    async def _drain(self) -> None:
        self._probes.draining = True
        self._log.info("worker.draining", in_flight=len(self._in_flight))
        self._in_flight.close()
        await self._engine.stop()
        cut_off = await self._in_flight.drain(self._settings.worker.drain_seconds)
        self._log.info("worker.stopped", cut_off=cut_off)
