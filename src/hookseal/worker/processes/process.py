"""One process, seen from its parent: starts it, asks it, kills it if it no longer answers, and waits for its end."""

import asyncio
import errno
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, assert_never

from hookseal.errors import ConfigError, Defect, Exhausted, Refused
from hookseal.ground.clock import Clock
from hookseal.worker.metrics.runtime import Ending
from hookseal.worker.periodic import set_within
from hookseal.worker.processes.messages import (
    Answer,
    Ask,
    Channel,
    Family,
    Ready,
    Refusal,
    Start,
    ToParent,
    Topic,
    channel_on,
    to_parent,
)

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 60.0  # a process that was ready for this time starts again with the first pause
# Another start would fail in the same way: only a person can change settings, schema, keys and rights.
_PERMANENT: Final = frozenset({ConfigError.exit_code, Refused.exit_code})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended. `ready_seconds` is how long it was ready, None if it never was."""

    code: int
    was_stuck: bool = False
    refusal: Refusal | None = None
    ready_seconds: float | None = None

    @property
    def ending(self) -> Ending:
        """The label under which it is counted."""
        if self.was_stuck:
            return Ending.STUCK
        return Ending.KILLED if self.code < 0 else Ending.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Restart it after `pause_seconds`; this was failure number `failures` in a row."""

    pause_seconds: float
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """End all processes, and the parent with this error."""

    refusal: Refusal


def after(ended: Ended, *, number: int, failures: int, began: bool) -> Restart | GiveUp:
    """Return what follows the end of a process; `failures` is the number of failures in a row before it.

    `began` says whether every process has been ready once. Until then the worker as a whole has not started, and a
    failure ends it, as with a single process.
    """
    if ended.refusal is not None and (not began or ended.refusal.exit_code in _PERMANENT):
        return GiveUp(refusal=ended.refusal)
    if not began:
        return GiveUp(refusal=_unready(ended, number))
    if ended.ready_seconds is not None and ended.ready_seconds >= STABLE_SECONDS:
        failures = 0
    # The exponent is bounded, because the number of failures is not.
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), LONGEST_PAUSE_SECONDS)
    return Restart(pause_seconds=pause, failures=failures + 1)


def failure_of_drain(ended: Ended, *, number: int) -> Refusal | None:
    """Return the error if a process that was asked to end did not drain, None if it did."""
    ended_before_ready = ended.ready_seconds is None and ended.code < 0
    if ended.refusal is not None or ended.code == 0 or ended_before_ready:
        return ended.refusal
    return _internal(
        f"process {number} {_how(ended)} when it was asked to drain: its requests in flight are sent again"
    )


def _unready(ended: Ended, number: int) -> Refusal:
    return _internal(f"process {number} {_how(ended)} before all processes were ready: see its log")


def _how(ended: Ended) -> str:
    match ended.ending:
        case Ending.STUCK:
            return "gave no answer and was killed"
        case Ending.KILLED:
            return f"was killed by signal {-ended.code}"
        case Ending.EXITED:
            return f"ended with exit code {ended.code}"
        case _:
            assert_never(ended.ending)


def _internal(message: str) -> Refusal:
    return Refusal(code=Defect.code, exit_code=Defect.exit_code, message=message)


# With the Python of the parent; -P keeps the current folder out of the import path.
COMMAND: Final = (sys.executable, "-P", "-m", "hookseal", "worker", "--parent-channel")
_LAST_MESSAGE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a parent waits for a start, for an answer, and between two beats.

    A process is stuck if it misses `missed_beats` in a row, or answers `still_beats` in a row that it takes no rings.
    """

    start_seconds: float = 60.0
    answer_seconds: float = 2.0
    beat_seconds: float = 5.0
    missed_beats: int = 4
    still_beats: int = 2


class Process:
    """One process, from its start to its end; `worker_id` is set once it is ready."""

    def __init__(
        self, process: asyncio.subprocess.Process, channel: Channel[ToParent], *, clock: Clock, patience: Patience
    ) -> None:
        self._process = process
        self._channel = channel
        self._clock = clock
        self._patience = patience
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._refusal: Refusal | None = None
        self._was_stuck = False
        self._ready_at: float | None = None
        self.pid = process.pid
        self.worker_id: str | None = None
        self.readied = asyncio.Event()
        self.is_silent = False
        self.is_still = False
        self.figures: Sequence[Family] = ()  # of its last answer

    async def ended(self) -> Ended:
        """Wait until the process ends, and return how it ended. It gets beats, and is killed if it is stuck."""
        receiving = asyncio.create_task(self._receive())
        beating = asyncio.create_task(self._beat())
        try:
            code = await self._process.wait()
            await asyncio.wait({receiving}, timeout=_LAST_MESSAGE_SECONDS)
        finally:
            receiving.cancel()
            beating.cancel()
            await asyncio.gather(receiving, beating, return_exceptions=True)
            self._channel.close()
        return Ended(
            code=code,
            was_stuck=self._was_stuck,
            refusal=self._refusal,
            ready_seconds=None if self._ready_at is None else self._clock.monotonic() - self._ready_at,
        )

    async def ask(self, topic: Topic) -> Answer | None:
        """Return its answer, None if none comes in time. A process that is already silent is not asked."""
        return None if self.is_silent or not self.readied.is_set() else await self._answer(topic)

    def terminate(self) -> None:
        """Make the process drain and end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Kill it: its leases expire, and its requests in flight are sent again."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _answer(self, topic: Topic) -> Answer | None:
        number = next(self._numbers)  # never used again: a late answer matches nothing
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._channel.send(Ask(id=number, topic=topic))
        try:
            async with asyncio.timeout(self._patience.answer_seconds):
                answer = await future
        except TimeoutError:
            self.is_silent = True
            return None
        finally:
            del self._asked[number]
        self.is_silent = False
        self.figures = answer.figures or self.figures
        return answer

    async def _receive(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                self._take(message)
        except ValueError:  # not a valid message
            self._kill_stuck()

    def _take(self, message: ToParent) -> None:
        match message:
            case Answer():
                future = self._asked.get(message.id)
                if future is not None and not future.done():
                    future.set_result(message)
            case Ready():
                self.worker_id = message.worker_id
                self._ready_at = self._clock.monotonic()
                self.readied.set()
            case Refusal():
                self._refusal = message

    async def _beat(self) -> None:
        if not await set_within(self.readied, self._patience.start_seconds, self._clock):
            self._kill_stuck()
            return
        missed = still = 0
        while missed < self._patience.missed_beats and still < self._patience.still_beats:
            answer = await self._answer(Topic.BEAT)
            missed = missed + 1 if answer is None else 0
            still = still + 1 if answer is not None and not answer.moves else 0
            self.is_still = still > 0
            await self._clock.sleep(self._patience.beat_seconds)
        self._kill_stuck()

    def _kill_stuck(self) -> None:
        self._was_stuck = True
        self.kill()


async def started(
    start: Start,
    environment: Mapping[str, str],
    *,
    command: Sequence[str],
    clock: Clock,
    patience: Patience,
) -> Process:
    """Start a process, and send it the settings over its channel.

    The settings are neither in its arguments nor in its environment. Raises `Exhausted` if this machine has no process
    or descriptor left.
    """
    try:
        channel, process = await _with_channel(environment, command, start.listening)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise Exhausted(
            f"process {start.number} cannot be started ({name}): raise the limits of processes, open files and memory, "
            "or start fewer processes (HOOKSEAL_PROCESSES, --processes)"
        ) from None
    channel.send(start)
    return Process(process, channel, clock=clock, patience=patience)


async def _with_channel(
    environment: Mapping[str, str], command: Sequence[str], listening: int | None
) -> tuple[Channel[ToParent], asyncio.subprocess.Process]:
    """Start a process with one end of a new channel; return the other end. Raises `OSError` after closing both."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *(*command, str(theirs.fileno())),
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # only the parent prints the ready line
                pass_fds=(theirs.fileno(), *([] if listening is None else [listening])),
            )
        except OSError:
            ours.close()
            raise
    return await channel_on(ours, to_parent), process
