"""One of several processes: a complete worker, or server, that answers its parent instead of a port of its own."""

import asyncio
import io
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

from hookseal.errors import HooksealError, Unavailable, with_advice
from hookseal.ground.log import logger, why
from hookseal.worker.health import CHECK_SECONDS, SCRAPE_SECONDS, Opening, Probes
from hookseal.worker.metrics.definitions import METRICS
from hookseal.worker.metrics.runtime import RUNTIME, Figures, Metric, aggregations
from hookseal.worker.periodic import retrieve_exception
from hookseal.worker.processes.health import families
from hookseal.worker.processes.messages import (
    LENGTH_BYTES,
    Answer,
    Ask,
    Channel,
    Family,
    Ready,
    Refusal,
    Start,
    Topic,
    ToProcess,
    channel_on,
    encoded,
    length,
    to_process,
)

_START_SECONDS: Final = 10.0  # the parent writes as soon as it has started us


class ParentProcess:
    """The connection of a process to its parent, before and after its event loop runs."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def start(self) -> Start:
        """Return the first message of the parent. Raises `Unavailable` if the parent is gone, or sends none in time."""
        self._socket.settimeout(_START_SECONDS)
        try:
            message = to_process(self._exactly(length(self._exactly(LENGTH_BYTES))))
        except (OSError, ValueError) as error:
            raise Unavailable(f"the parent of this process sent no settings ({type(error).__name__})") from None
        if not isinstance(message, Start):
            raise Unavailable("the parent of this process sent a question before the settings")
        return message

    def refuse(self, error: HooksealError) -> None:
        """Send the error with which this process ends. Does nothing if the parent is gone."""
        refusal = Refusal(code=error.code, exit_code=error.exit_code, message=with_advice(error), field=error.field)
        self._socket.settimeout(_START_SECONDS)
        try:
            self._socket.sendall(encoded(refusal))
        except (OSError, ValueError):
            return

    def opening(self, health_url: str, metrics: Iterable[Metric] = METRICS) -> tuple[Opening, io.StringIO]:
        """Return the function that connects the probes to the parent, and the output for the ready line.

        `metrics` are those of the process, beside those that every one has.
        """
        output = _Output()
        merging = aggregations((*metrics, *RUNTIME))

        async def opened(probes: Probes, figures: Figures) -> tuple["Answering", str]:
            channel = await channel_on(self._socket.dup(), to_process)
            output.send = channel.send
            return Answering(channel, probes, lambda: families(figures.families(), merging)), health_url

        return opened, output

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            more = self._socket.recv(size - len(received))
            if not more:
                raise ConnectionError
            received += more
        return received


class Answering:
    """Answers the parent until `close`. If the parent is gone, the process drains as after SIGTERM."""

    def __init__(self, channel: Channel[ToProcess], probes: Probes, figures: Callable[[], list[Family]]) -> None:
        self._channel = channel
        self._probes = probes
        self._figures = figures
        self._log: Any = logger()
        self._running: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._listen(), name="parent")
        self._listening.add_done_callback(retrieve_exception)

    async def close(self) -> None:
        """Stop answering."""
        for task in (self._listening, *self._running):
            task.cancel()
        self._channel.close()

    async def _listen(self) -> None:
        while isinstance(ask := await self._received(), Ask):
            task = asyncio.create_task(self._answer(ask))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(retrieve_exception)
        self._log.warning("process.orphaned", reason="the parent of this process is gone: this process drains and ends")
        os.kill(os.getpid(), signal.SIGTERM)

    async def _received(self) -> ToProcess | None:
        try:
            return await self._channel.receive()
        except ValueError:
            return None

    async def _answer(self, ask: Ask) -> None:
        try:
            self._channel.send(await self._answer_to(ask))
        except Exception as error:  # noqa: BLE001 -- without an answer the parent kills this process: the log then has the reason
            self._log.error("process.no_answer", of=ask.topic.value, **why(error))

    async def _answer_to(self, ask: Ask) -> Answer:
        states: dict[str, str] = {}
        if ask.topic is Topic.STARTUP:
            states = await self._probes.startup_states()
        elif ask.topic is not Topic.BEAT:
            states = await self._probes.ready_states(SCRAPE_SECONDS if ask.topic is Topic.FIGURES else CHECK_SECONDS)
        figures = self._figures() if ask.topic in {Topic.BEAT, Topic.FIGURES} else []
        moves, draining = self._probes.moves, self._probes.draining
        unrecorded = self._probes.unrecorded() if ask.topic is Topic.READY else None
        unaudited = await self._probes.unaudited() if ask.topic is Topic.READY else []
        return Answer(
            id=ask.id,
            moves=moves,
            draining=draining,
            states=states,
            unrecorded=unrecorded,
            unaudited=unaudited,
            figures=figures,
        )


class _Output(io.StringIO):
    """Takes the JSON line that a process prints when it is ready, and sends its content to the parent."""

    send: Callable[[Ready], None]

    def write(self, text: str) -> int:
        self.send(Ready(worker_id=json.loads(text).get("worker_id", "")))
        return len(text)
