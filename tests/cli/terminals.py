"""Terminals in which the commands of a page run, one line after the other, as a reader types them."""

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DEADLINE_SECONDS: Final = 240  # only ends what hangs; `pip install` takes longest
# Commands that go on until Ctrl-C, and what each prints when it is ready.
_RUNNING: Final = {"hookseal up": "\nlogs ", "hookseal worker": '"worker.ready"', "uvicorn ": "Uvicorn running on"}
_ENDED: Final = re.compile(r"ended with (\d+)\n")


@dataclass(slots=True)
class Shell:
    """A shell that keeps its folder and its variables from line to line. `output` is all that it has shown."""

    process: Process
    output: str = ""
    is_busy: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, line: str) -> str:
        """Run a line to its end, or until what it starts is ready, and return what it showed; it must succeed."""
        ready = next((shown for begin, shown in _RUNNING.items() if line.startswith(begin)), None)
        assert not self.is_busy, f"still running: {line}"
        before, self.is_busy = len(self.output), True
        assert self.process.stdin is not None
        # The braces run in this shell, so that `cd` and `export` last, and take nothing of what is typed next.
        self.process.stdin.write(f"{{ {line}\n}} </dev/null; echo ended with $?\n".encode())
        if ready is not None:
            await self.shows(re.escape(ready), since=before)
            return self.output[before:]
        ended = await self.shows(_ENDED.pattern, since=before)
        self.is_busy = False
        assert "0" == ended[1], f"{line}: {self.output[before:]}"
        return self.output[before : before + ended.start()]

    async def interrupt(self) -> None:
        """Press Ctrl-C, and wait until what runs has ended."""
        before = len(self.output)
        os.killpg(self.process.pid, signal.SIGINT)
        await self.shows(_ENDED.pattern, since=before)
        self.is_busy = False

    async def shows(self, pattern: str, *, since: int = 0) -> re.Match[str]:
        """Wait until what was shown since then has this."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (found := re.search(pattern, self.output[since:], re.MULTILINE)) is None:
                    assert self.process.returncode is None, self.output[since:]
                    self._more.clear()
                    await self._more.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"never shown: {pattern}\n{self.output[since:]}") from None

    async def keep(self) -> None:
        """Keep what is shown, until the shell ends."""
        assert self.process.stdout is not None
        while shown := await self.process.stdout.read(65_536):
            self.output += shown.decode()
            self._more.set()


@asynccontextmanager
async def shell(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Shell]:
    """Open a terminal in this folder, and end what still runs in it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        cwd=folder,
        env=dict(environment),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(b"trap : INT\n")  # Ctrl-C ends what runs in the shell, and not the shell
    opened = Shell(process)
    keeping = asyncio.create_task(opened.keep())
    try:
        yield opened
        if opened.is_busy:
            await opened.interrupt()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(keeping, DEADLINE_SECONDS)
        await process.wait()


async def until(terminal: Shell, line: str, pattern: str) -> str:
    """Run a line again and again until it shows this, and return what it showed, as a reader does who waits."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        shown = await terminal.run(line)
        while re.search(pattern, shown) is None:
            shown = await terminal.run(line)
        return shown
