"""The command `hookseal` in a process of its own, as users run it, with only the settings that a test passes.

The process is forked from one that has loaded everything (`tests/forking.py`). A test about the start of Python
uses `started`, or sets a variable that Python itself reads.
"""

import asyncio
import json
import os
import pty
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tests import forked

DEADLINE_SECONDS: Final = 120  # only ends a process that hangs: a busy machine needs many times as long as an idle one


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        value: dict[str, Any] = json.loads(self.out)
        assert 1 == self.out.count("\n")
        return value


async def hookseal(*arguments: str, **settings: str) -> Ended:
    """Run the command to its end with these settings."""
    return await fed(b"", *arguments, **settings)


async def fed(standard_input: bytes, /, *arguments: str, **settings: str) -> Ended:
    """Run the command to its end with these settings and this standard input."""
    process = await forked.start(*arguments, env={**os.environ, **settings}, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    return await _ended(process, standard_input)


async def started(*arguments: str, **settings: str) -> Ended:
    """Run the command to its end as `python -m hookseal`, in a newly started Python, with these settings."""
    return await python("-m", "hookseal", *arguments, **settings)


async def python(*arguments: str, **settings: str) -> Ended:
    """Run Python to its end with these settings of hookseal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **settings}, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    return await _ended(process, b"")


async def _ended(process: Process, standard_input: bytes) -> Ended:
    try:
        out, err = await asyncio.wait_for(process.communicate(standard_input), DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


async def on_a_terminal(*arguments: str, stream: str = "stdout", typed: str = "", **settings: str) -> Ended:
    """Run the command to its end with a terminal as one of its streams, at which this is typed."""
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {"stdout": PIPE, "stderr": PIPE, stream: theirs}
    process = await forked.start(*arguments, env={**os.environ, **settings}, **streams)
    os.close(theirs)
    try:
        os.write(ours, typed.encode())
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        shown = {"stdout": out, "stderr": err} | ({} if stream == "stdin" else {stream: _shown(ours)})
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    return Ended(code=process.returncode or 0, out=shown["stdout"].decode(), err=shown["stderr"].decode())


def _shown(terminal: int) -> bytes:
    """Return what a terminal shows whose programs have ended; the output of these tests fits into its buffer."""
    parts = []
    with suppress(OSError):  # so Linux says that nothing follows
        while part := os.read(terminal, 65_536):  # a terminal passes output on in parts
            parts.append(part)
    return b"".join(parts).replace(b"\r\n", b"\n")
