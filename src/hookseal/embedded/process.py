"""One child process: started, watched, frozen and ended.

PostgreSQL puts each of its children into a session of its own, so a signal to the process group does not reach them.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import Account, create_private
from hookseal.errors import Unavailable

_TAIL_LINES: Final = 12
_LOOK_EVERY_SECONDS: Final = 0.001
_INHERITED_VARIABLES: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters need them to start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    pid: int
    parent: int
    state: str


def children(pid: int) -> tuple[int, ...]:
    """Return the process ids of its current direct children."""
    entries = _from_proc(Path("/proc")) if sys.platform == "linux" else _from_ps()
    return tuple(entry.pid for entry in entries if entry.parent == pid)


def is_stopped(pid: int) -> bool:
    """Return whether every thread of the process is stopped, or the process is gone."""
    return all(entry.state[0] in "TZX" for entry in _threads(pid))


def _threads(pid: int) -> Iterator[_Entry]:
    if sys.platform == "linux":
        return _from_proc(Path(f"/proc/{pid}/task"))
    else:  # noqa: RET505 -- mypy needs the else to distinguish the platforms
        return (entry for entry in _from_ps() if entry.pid == pid)


def _from_proc(folder: Path) -> Iterator[_Entry]:
    for file in folder.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since the listing
            # The name, in parentheses, may hold anything; then come the state and the parent.
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            yield _Entry(pid=int(file.parent.name), parent=int(parent), state=state)


def _from_ps() -> Iterator[_Entry]:
    command = ["/bin/ps", "-A", "-o", "pid=,ppid=,state="]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        pid, parent, state = line.split()
        yield _Entry(pid=int(pid), parent=int(parent), state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, where and as whom, the signals that stop it, in order, and the one for when its parent dies."""

    command: tuple[str, ...]
    folder: Path
    log: Path
    account: Account | None
    stop_signals: tuple[signal.Signals, ...]
    death_signal: signal.Signals
    standard_input: str = field(default="", repr=False)
    stop_seconds: float = 10.0  # after each signal


class Process:
    """A running program. Start it from a thread that lives longer: the kernel ends the process with that thread."""

    def __init__(self, program: Program) -> None:
        self._program = program
        owner = program.account
        log = create_private(program.log)
        try:
            # Its own process group keeps it from the Ctrl-C of a terminal. It stays in this session, so that
            # the kernel continues and ends a stopped one when this process dies.
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
        """The process id of the program."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    @property
    def folder(self) -> Path:
        """The folder in which it runs."""
        return self._program.folder

    @property
    def log(self) -> Path:
        """The file with its log."""
        return self._program.log

    async def finish(self, seconds: float) -> bool:
        """Wait at most that long, then end it if it still runs; return whether it ended by itself with status 0."""
        try:
            return await asyncio.to_thread(self._child.wait, seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End it, and wait until it is gone, whatever state it is in."""
        try:
            await asyncio.to_thread(self._end)
        except asyncio.CancelledError:
            self._end()  # a cancelled clean-up must finish all the same
            raise

    def freeze(self) -> None:
        """Stop it and its children until `thaw`: they answer nothing and keep their sockets.

        All of them are stopped when this returns. Raises `Unavailable` if one is not stopped in time.
        """
        self._halt((self.pid,))  # first, so that it starts no new children
        self._halt(children(self.pid))

    def thaw(self) -> None:
        """Let it and its children continue."""
        _signal_all((*children(self.pid), self.pid), signal.SIGCONT)

    def last_lines(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _halt(self, pids: tuple[int, ...]) -> None:
        _signal_all(pids, signal.SIGSTOP)
        deadline = time.monotonic() + self._program.stop_seconds
        while not all(is_stopped(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise Unavailable(f"process {self.pid} cannot be stopped")
            time.sleep(_LOOK_EVERY_SECONDS)

    def _hand_over(self, text: bytes) -> None:
        stdin = self._child.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):  # it has already ended; its log has the reason
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
                self._child.wait(self._program.stop_seconds)


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **inherited}


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
