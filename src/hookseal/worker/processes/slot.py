"""Keeps one of N processes running: starts it, and restarts it whenever it has ended."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from hookseal.errors import HooksealError, with_advice
from hookseal.ground.clock import Clock
from hookseal.worker.metrics.runtime import Ending
from hookseal.worker.periodic import set_within
from hookseal.worker.processes.health import Health, ProcessState, lasting, merged, of_states
from hookseal.worker.processes.messages import Family, Refusal, Topic
from hookseal.worker.processes.process import Ended, GiveUp, Process, after


class Slot:
    """One of the N processes and its successors. `restarts` counts the restarts, by how the process before ended."""

    def __init__(
        self,
        number: int,
        start: Callable[[int], Awaitable[Process]],
        *,
        stop: asyncio.Event,
        clock: Clock,
        log: Any,
    ) -> None:
        self.number = number
        self.process: Process | None = None
        self.first_ready = asyncio.Event()
        self.restarts: Counter[Ending] = Counter()
        self._start = start
        self._stop = stop
        self._clock = clock
        self._log = log.bind(process=number)
        self._failures = 0
        self._ended_counts: list[Family] = []

    async def keep(self, began: Callable[[], bool]) -> Ended | None:
        """Keep a process running until `stop` is set; return how the last one ended, None if there was none.

        `began` says whether every process has been ready once. Raises the error of a process that will not start.
        """
        while not self._stop.is_set():
            ended = await self._run_once()
            if self._stop.is_set():
                return ended
            follows = after(ended, number=self.number, failures=self._failures, began=began())
            if isinstance(follows, GiveUp):
                raise relayed(follows.refusal)
            self.restarts[ended.ending] += 1
            self._failures = follows.failures
            self._log.warning(
                "process.restarting",
                ending=ended.ending.value,
                exit_code=ended.code,
                reason=None if ended.refusal is None else ended.refusal.message,
                in_seconds=follows.pause_seconds,
            )
            await set_within(self._stop, follows.pause_seconds, self._clock)
        return None

    async def state(self, topic: Topic) -> ProcessState:
        """Ask the process for its state now, and return it."""
        process = self.process
        if process is None or not process.readied.is_set():
            return ProcessState(health=self.health)
        answer = await process.ask(topic)
        if answer is None:
            return ProcessState(health=Health.SILENT)
        health = of_states(answer.states, draining=answer.draining, moves=answer.moves)
        return ProcessState(
            health=health, states=answer.states, unrecorded=answer.unrecorded, unaudited=answer.unaudited
        )

    @property
    def health(self) -> Health:
        """The state of the process at its last answer."""
        process = self.process
        if process is None:
            return Health.WAITING
        if not process.readied.is_set():
            return Health.STARTING
        if process.is_silent:
            return Health.SILENT
        return Health.STUCK if process.is_still else Health.OK

    async def figures(self) -> list[list[Family]]:
        """Return the metrics of the process and the counts of its predecessors.

        For a silent process these are the counters and histograms of its last answer.
        """
        process = self.process
        answer = None if process is None else await process.ask(Topic.FIGURES)
        if self.process is not process:  # it has ended meanwhile, and `_ended_counts` includes it
            return [self._ended_counts]
        if answer is not None:
            return [self._ended_counts, answer.figures]
        return [self._ended_counts, _lasting(process)]

    async def _run_once(self) -> Ended:
        try:
            process = self.process = await self._start(self.number)
        except HooksealError as error:
            return Ended(code=error.exit_code, refusal=_refusal(error))
        self._log.info("process.started", pid=process.pid)
        readying = asyncio.create_task(self._await_ready(process))
        if self._stop.is_set():
            process.terminate()
        try:
            return await process.ended()
        finally:
            readying.cancel()
            process.terminate()  # if this task is cancelled
            self.process = None
            self._ended_counts = merged([self._ended_counts, _lasting(process)])

    async def _await_ready(self, process: Process) -> None:
        await process.readied.wait()
        self.first_ready.set()
        self._log.info("process.ready", pid=process.pid, worker_id=process.worker_id)


def _lasting(process: Process | None) -> list[Family]:
    return [] if process is None else lasting(process.figures)


def relayed(refusal: Refusal) -> HooksealError:
    """Return the error of a process as an error of its parent, with the same code, exit code, message and field."""
    kind = type("Relayed", (HooksealError,), {"code": refusal.code, "exit_code": refusal.exit_code})
    error: HooksealError = kind(refusal.message, field=refusal.field)
    return error


def _refusal(error: HooksealError) -> Refusal:
    return Refusal(code=error.code, exit_code=error.exit_code, message=with_advice(error), field=error.field)
