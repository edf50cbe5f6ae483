"""The parent: keeps N processes running, answers the probes for all of them on one port, and ends them together."""

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TextIO

from hookseal.config.load import SplitEnvironment
from hookseal.config.settings import Settings
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.worker.health import Port, Reply, answer
from hookseal.worker.listening import url_of
from hookseal.worker.metrics.runtime import RUNTIME, Ending, Figures, aggregations
from hookseal.worker.processes import health
from hookseal.worker.processes.health import families, merged, rendered, restart_counts
from hookseal.worker.processes.messages import Start, Topic
from hookseal.worker.processes.process import COMMAND, Ended, Patience, Process, failure_of_drain, started
from hookseal.worker.processes.slot import Slot, relayed
from hookseal.worker.stopping import on_stop, print_ready

# A supervisor that stops the parent should allow ten seconds more than a drain takes.
_AFTER_DRAIN_SECONDS: Final = 8.0
_AGGREGATIONS: Final = aggregations(RUNTIME)


class Parent:
    """Starts `count` processes with these settings, and keeps them running.

    They are workers, or with another `kind` and `command` something else, which may accept the connections of one
    socket together.
    """

    def __init__(
        self,
        settings: Settings,
        handed: SplitEnvironment,
        count: int,
        *,
        clock: Clock | None = None,
        kind: str = "worker",
        command: Sequence[str] = COMMAND,
        listening: socket.socket | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._handed = handed
        self._clock = clock or SystemClock()
        self._kind = kind
        self._command = command
        self._listening = listening
        self._patience = patience or Patience()
        self._log: Any = logger()
        self._stop = asyncio.Event()
        self._url = ""
        self._own = Figures()
        self._slots = [
            Slot(number, self._start, stop=self._stop, clock=self._clock, log=self._log)
            for number in range(1, count + 1)
        ]

    async def run(self, output: TextIO = sys.stdout) -> None:
        """Run until SIGTERM or SIGINT; afterwards every process has drained and ended.

        It prints one line on `output` once all are ready. Raises `Unavailable` if the port is taken or nothing reads
        `output`, and the error of a process that will not start, once the others have drained and ended.
        """
        on_stop(self._stop.set)
        port = Port(self._answer)
        self._url = await port.serve(self._settings.health.host, self._settings.health.port)
        try:
            await self._keep(output)
        finally:
            await port.close()

    async def _keep(self, output: TextIO) -> None:
        keeping = {asyncio.create_task(slot.keep(self._began)): slot for slot in self._slots}
        stopped = asyncio.create_task(self._stop.wait())
        reporting = asyncio.create_task(self._report_ready(output))
        try:
            ended, _ = await asyncio.wait({stopped, reporting, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            if ended == {reporting} and reporting.exception() is None:
                await asyncio.wait({stopped, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            self._stop.set()
            if self._listening is not None:
                self._listening.close()  # once the processes have closed it, too, nobody waits for an answer in vain
            self._log.info(f"{self._kind}.draining")
            await self._end(list(keeping))
        finally:
            stopped.cancel()
            reporting.cancel()
        self._raise_failure(keeping)
        if reporting.done() and not reporting.cancelled():
            reporting.result()  # raises if the line could not be printed
        self._log.info(f"{self._kind}.stopped")

    def _began(self) -> bool:
        return all(slot.first_ready.is_set() for slot in self._slots)

    async def _report_ready(self, output: TextIO) -> None:
        for slot in self._slots:
            await slot.first_ready.wait()
        if self._listening is None:
            own = {"worker_id": f"{socket.gethostname()}-{os.getpid()}", "pid": os.getpid()}
        else:
            own = {"pid": os.getpid(), "url": url_of(self._listening)}
        processes = [
            {
                "process": slot.number,
                **({"worker_id": slot.process.worker_id} if slot.process.worker_id else {}),
                "pid": slot.process.pid,
            }
            for slot in self._slots
            if slot.process is not None
        ]
        print_ready(output, own | {"health_url": self._url, "processes": processes}, event=f"{self._kind}.ready")
        self._log.info(f"{self._kind}.ready", health_url=self._url, processes=len(self._slots))

    async def _end(self, keeping: Sequence["asyncio.Task[Ended | None]"]) -> None:
        """Make every process drain, and kill each one that takes longer than a drain may."""
        for process in self._running():
            process.terminate()
        limit = self._settings.worker.drain_seconds + _AFTER_DRAIN_SECONDS
        await asyncio.wait(keeping, timeout=limit)
        for process in self._running():
            self._log.error("process.killed", pid=process.pid, reason=f"it has not ended {limit:.0f} s after SIGTERM")
            process.kill()
        await asyncio.wait(keeping)

    def _raise_failure(self, keeping: "dict[asyncio.Task[Ended | None], Slot]") -> None:
        """Raise the first error of a process that could not be started or did not drain."""
        for task in keeping:
            if (error := task.exception()) is not None:
                raise error
        for task, slot in keeping.items():
            ended = task.result()
            failure = None if ended is None else failure_of_drain(ended, number=slot.number)
            if failure is not None:
                raise relayed(failure)

    def _running(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None]

    async def _start(self, number: int) -> Process:
        return await started(
            Start(
                number=number,
                health_url=self._url,
                variables=dict(self._handed.variables),
                files=dict(self._handed.files),
                listening=None if self._listening is None else self._listening.fileno(),
            ),
            self._handed.environment,
            command=self._command,
            clock=self._clock,
            patience=self._patience,
        )

    async def _answer(self, path: str, accept: str) -> Reply | None:
        draining = self._stop.is_set()
        match path:
            case "/livez":
                return _probed(health.live({slot.number: slot.health for slot in self._slots}, draining=draining))
            case "/readyz" | "/healthz":
                return _probed(health.ready(await self._states(Topic.READY), draining=draining))
            case "/startupz":
                return _probed(health.started(await self._states(Topic.STARTUP)))
            case "/metrics":
                return await self._metrics(accept)
            case _:
                return None

    async def _states(self, topic: Topic) -> dict[int, health.ProcessState]:
        results = await asyncio.gather(*(slot.state(topic) for slot in self._slots))
        return {slot.number: seen for slot, seen in zip(self._slots, results, strict=True)}

    async def _metrics(self, accept: str) -> Reply:
        parts = await asyncio.gather(*(slot.figures() for slot in self._slots))
        counted: Counter[Ending] = Counter()
        for slot in self._slots:
            counted.update(slot.restarts)
        own = [*families(self._own.families(), _AGGREGATIONS), restart_counts(counted)]
        figures = merged([*(part for of_slot in parts for part in of_slot), own])
        body, content_type = rendered(figures, accept)
        return Reply(status=200, body=body, content_type=content_type)


def _probed(probed: health.Probed) -> Reply:
    ok, body = probed
    return answer(body, ok=ok)
