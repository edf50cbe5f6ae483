"""One child process of ours: started, watched, frozen and ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from hookseal.embedded.account import Account
from hookseal.embedded.children import children, stands_still
from hookseal.ground.errors import Unavailable

_TAIL_LINES: Final = 12
_LOOK_EVERY_SECONDS: Final = 0.001
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters do not start without


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, as whom, where, and how it is ended: each stop signal in turn; the other when we die."""

    command: tuple[str, ...]
    folder: Path
    log: Path
    account: Account | None
    stop_signals: tuple[signal.Signals, ...]
    death_signal: signal.Signals
    standard_input: str = field(default="", repr=False)
    patience_seconds: float = 10.0  # after each signal


class Process:
    """A running program. Start it from a thread that outlives it: the kernel ends it with that thread."""

    def __init__(self, program: Program) -> None:
        self._program = program
        owner = program.account
        log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            # A process group of its own keeps Ctrl-C in a terminal from it. It stays in our session, so that
            # the kernel wakes a frozen one to its end when we die.
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", files("hookseal.embedded").joinpath("launch.py").read_text()),
                    *(str(os.getpid()), str(int(program.death_signal)), f"{owner.uid}:{owner.gid}" if owner else ""),
                    *program.command,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=program.folder,
                env=_environment(),
                process_group=0,
            )
        finally:
            os.close(log)
        self._hand_over(program.standard_input.encode())

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.poll() is None

    async def finish(self, seconds: float) -> bool:
        """Wait for it to end by itself, at most that long; tell whether it ended well. It has ended afterwards."""
        try:
            return await asyncio.to_thread(self._child.wait, seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End it and wait until it is gone, whatever state it is in."""
        try:
            await asyncio.to_thread(self._end)
        except asyncio.CancelledError:
            self._end()  # whoever cancels the clean-up waits for it all the same
            raise

    def freeze(self) -> None:
        """Make it and its children stand still until `thaw`: they answer nothing and keep their sockets.

        All of them stand when this returns. Raises `Unavailable` if one does not in time.
        """
        self._halt((self.pid,))  # first, so that it makes no new children
        self._halt(children(self.pid))

    def thaw(self) -> None:
        """Let it and its children go on."""
        _signal_all((*children(self.pid), self.pid), signal.SIGCONT)

    def last_lines(self) -> str:
        """Return the end of what it has written."""
        lines = self._program.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _halt(self, pids: tuple[int, ...]) -> None:
        _signal_all(pids, signal.SIGSTOP)
        deadline = time.monotonic() + self._program.patience_seconds
        while not all(stands_still(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise Unavailable(f"process {self.pid} does not stand still")
            time.sleep(_LOOK_EVERY_SECONDS)

    def _hand_over(self, text: bytes) -> None:
        stdin = self._child.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):  # it has ended already: its log says why
                stdin.write(text)
                stdin.flush()
            with suppress(BrokenPipeError):
                stdin.close()

    def _end(self) -> None:
        for number in self._program.stop_signals:
            if not self.is_running:
                return
            self.thaw()
            self._child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(self._program.patience_seconds)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
