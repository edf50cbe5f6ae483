"""A parent and one process that ends, is silent or is stuck: small programs take the place of workers."""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.errors import HooksealError
from hookseal.ground.clock import SystemClock
from hookseal.worker.metrics.runtime import Aggregation, Ending
from hookseal.worker.processes.health import Health, merged
from hookseal.worker.processes.messages import Answer, Family, Ready, Refusal, Start, Topic, encoded
from hookseal.worker.processes.process import Ended, Patience, Process, started
from hookseal.worker.processes.slot import Slot
from tests.worker.waiting import eventually

# Sends the first message, then one answer for each question, and at last waits for a signal.
PROGRAM: Final = """
import signal, socket, sys, time
line = socket.socket(fileno=int(sys.argv[-1]))
first, *answers = [bytes.fromhex(text) for text in sys.argv[1:-1]]
line.recv(65536)
line.sendall(first)
for answer in answers:
    line.recv(65536)
    line.sendall(answer)
"""
WAITS: Final = "signal.pause()\n"
QUICK: Final = Patience(start_seconds=30, answer_seconds=30, beat_seconds=0.01)
READY: Final = Ready(worker_id="w-1")
COUNTED: Final = Family(name="x", kind="counter", text="x", aggregation=Aggregation.SUM, samples=[("x_total", {}, 3.0)])


def beat(number: int, *, moves: bool = True) -> Answer:
    return Answer(id=number, moves=moves, draining=False, figures=[COUNTED])


class Scene:
    """One slot, whose processes run these programs in turn, each with its messages."""

    def __init__(self, *programs: tuple[str, ...], patience: Patience = QUICK, began: bool = True) -> None:
        self.stop = asyncio.Event()
        self._programs = iter(programs)
        self._patience = patience
        self._began = began
        self.slot = Slot(7, self._start, stop=self.stop, clock=SystemClock(), log=structlog.get_logger())

    async def keep(self) -> Ended | None:
        return await self.slot.keep(lambda: self._began)

    async def _start(self, number: int) -> Process:
        program, *encoded_messages = next(self._programs)
        return await started(
            Start(number=number, health_url="http://x", variables={"SECRETS_MASTER_KEY": "hunter2"}),
            {},
            command=(sys.executable, "-I", "-S", "-c", program, *encoded_messages),
            clock=SystemClock(),
            patience=self._patience,
        )


def sending(*messages: Ready | Answer | Refusal, ends: str = WAITS) -> tuple[str, ...]:
    """Return a program that sends these messages, and then ends that way."""
    return (PROGRAM + ends, *(encoded(message).hex() for message in messages))


@asynccontextmanager
async def kept_slot(scene: Scene) -> AsyncIterator[asyncio.Task[Ended | None]]:
    """Keep the slot during the block, and then end its process."""
    task = asyncio.create_task(scene.keep())
    try:
        yield task
    finally:
        scene.stop.set()
        if scene.slot.process is not None:
            scene.slot.process.terminate()
        await asyncio.wait({task})


async def until(true: Callable[[], bool]) -> None:
    await eventually(true)


@pytest.mark.parametrize(
    ("dies", "ending"),
    [
        (sending(READY, beat(1), ends="sys.exit(3)"), Ending.EXITED),
        (sending(READY, beat(1), ends="signal.raise_signal(signal.SIGKILL)"), Ending.KILLED),
        (sending(READY, beat(1), beat(2, moves=False), beat(3, moves=False)), Ending.STUCK),
        (
            sending(READY, beat(1), Refusal(code="unavailable", exit_code=69, message="no"), ends="sys.exit(69)"),
            Ending.EXITED,
        ),
    ],
)
async def test_an_ended_process_is_replaced(dies: tuple[str, ...], ending: Ending) -> None:
    """A process that ends is counted by how it ended, logged and replaced, and its counters are kept."""
    scene = Scene(dies, sending(READY))
    with capture_logs() as lines:
        async with kept_slot(scene) as keeping:
            await until(lambda: scene.slot.restarts[ending] == 1)
            await until(lambda: scene.slot.health is Health.OK)
            assert {ending: 1} == scene.slot.restarts
            [restart] = [line for line in lines if line["event"] == "process.restarting"]
            assert (7, ending.value, 0.5) == (restart["process"], restart["ending"], restart["in_seconds"])
    ended = await keeping
    assert ended is not None
    assert (-15, None) == (ended.code, ended.refusal)
    assert [[COUNTED], []] == await scene.slot.figures()


async def test_a_silent_process_is_killed() -> None:
    """A process that does not answer is reported as silent, and killed as stuck after several beats."""
    patience = replace(QUICK, answer_seconds=0.05)
    scene = Scene(sending(READY), sending(READY), patience=patience)
    async with kept_slot(scene):
        await until(lambda: scene.slot.health is Health.SILENT)
        assert Health.SILENT is (await scene.slot.state(Topic.READY)).health
        await until(lambda: scene.slot.restarts[Ending.STUCK] >= 1)  # the next one is killed soon, too


async def test_a_process_that_never_becomes_ready_is_killed() -> None:
    """A process that never becomes ready is killed; before the worker has begun, that ends the worker."""
    scene = Scene(sending(beat(1)), patience=replace(QUICK, start_seconds=0.05), began=False)

    with pytest.raises(HooksealError, match="process 7 gave no answer and was killed before all"):
        await scene.keep()


async def test_invalid_messages_kill_the_process() -> None:
    scene = Scene((PROGRAM + WAITS, "00000003ffffff"), sending(READY))
    async with kept_slot(scene):
        await until(lambda: scene.slot.restarts[Ending.STUCK] == 1)
    too_long = Scene((PROGRAM + WAITS, "ffffffff"), sending(READY))
    async with kept_slot(too_long):
        await until(lambda: too_long.slot.restarts[Ending.STUCK] == 1)


@pytest.mark.parametrize("began", [False, True])
async def test_a_refusal_is_raised_unchanged(began: bool) -> None:
    """A refusal of a process is raised unchanged: code, exit code, message and field."""
    refusal = Refusal(code="configuration", exit_code=78, message="no schema", field="DATABASE_URL")
    scene = Scene(sending(refusal, ends="sys.exit(78)"), began=began)

    with pytest.raises(HooksealError) as raised:
        await scene.keep()
    error = raised.value
    assert ("configuration", 78, "no schema", "DATABASE_URL") == (error.code, error.exit_code, str(error), error.field)


async def test_a_process_that_cannot_be_started_is_an_error() -> None:
    """A process that cannot be started is an error at the start, with the setting; later it is tried again."""
    first = Scene(("",), began=False)
    first.slot._start = _none_left

    with pytest.raises(HooksealError, match=r"process 7 cannot be started \(ENOENT\).*HOOKSEAL_PROCESSES") as raised:
        await first.keep()
    assert 69 == raised.value.exit_code
    later = Scene(("",))
    later.slot._start = _none_left
    async with kept_slot(later):
        await until(lambda: later.slot.restarts[Ending.EXITED] == 1)
        assert Health.WAITING is later.slot.health


async def _none_left(number: int) -> Process:
    start = Start(number=number, health_url="", variables={})
    return await started(start, {}, command=("/nothing/here",), clock=SystemClock(), patience=QUICK)


def test_no_message_shows_a_key() -> None:
    """The message that contains the settings shows only its number."""
    assert "hunter2" not in repr(Start(number=1, health_url="", variables={"SECRETS_MASTER_KEY": "hunter2"}))


async def test_an_ended_process_is_counted_once() -> None:
    scene = Scene(
        sending(READY, beat(1), ends="line.recv(65536)\nsys.exit(3)"),
        sending(READY),
        patience=replace(QUICK, answer_seconds=0.5, beat_seconds=30),
    )
    async with kept_slot(scene):
        await until(lambda: scene.slot.process is not None and bool(scene.slot.process.figures))

        assert [COUNTED] == merged(await scene.slot.figures())


async def test_a_missing_descriptor_is_an_error() -> None:
    """A process for whose socket no descriptor is left is reported like any other that cannot be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free(), hard))
    try:
        with pytest.raises(HooksealError, match=r"process 7 cannot be started \(EMFILE\)"):
            await _none_left(7)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _lowest_free() -> int:
    """Return the descriptor that this process would open next."""
    with open("/dev/null", "rb") as file:  # noqa: PTH123 -- only its number is needed
        return file.fileno()
