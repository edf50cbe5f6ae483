"""One process that runs the commands of a test in turn: the first costs a fork, the others only what they do.

Each command has its own environment, working folder and streams; standard input and output are files, as in a shell
that redirects them. What must not share a process runs in one of its own, by `tests.cli.command`: commands that run
until they are ended, and a command that begins while another one runs.
"""

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from tests import forked
from tests.cli.command import DEADLINE_SECONDS, Ended

ENDLESS: Final = frozenset({"worker", "listen", "up", "demo"})
_LIMIT_BYTES: Final = 1 << 24
_OF_PYTHON: Final = ("PYTHON", "LD_")


class InTurn:
    """Runs the commands; its process is started with the first one."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._is_busy = False

    def can_run(self, arguments: tuple[str, ...], settings: Mapping[str, str]) -> bool:
        """Return whether the command may run in this process now."""
        return not (
            self._is_busy
            or ENDLESS.intersection(arguments[:1])
            or any(name.startswith(_OF_PYTHON) for name in settings)
        )

    async def run(self, arguments: tuple[str, ...], settings: Mapping[str, str], standard_input: bytes) -> Ended:
        """Run the command to its end with these settings and this standard input."""
        self._is_busy = True
        request = {
            "arguments": arguments,
            "environment": {**os.environ, **settings},
            "folder": str(Path.cwd()),
            "standard_input": standard_input.decode("latin-1"),
        }
        async with asyncio.timeout(DEADLINE_SECONDS):
            if self._process is None:
                self._process = await forked.start(module=__name__, stdin=PIPE, stdout=PIPE)
            writer, reader = self._process.stdin, self._process.stdout
            assert writer is not None
            assert reader is not None
            writer.write(json.dumps(request).encode() + b"\n")
            size = int(await reader.readline())
            answer: dict[str, Any] = json.loads(await reader.readexactly(size))
        self._is_busy = False
        return Ended(code=answer["code"], out=answer["out"], err=answer["err"])

    async def end(self) -> None:
        """End the process; it must not fail."""
        if self._process is None:
            return
        if self._is_busy:  # a command that did not end in time, or that the test cancelled
            self._process.kill()
            await self._process.wait()
            return
        await asyncio.wait_for(self._process.communicate(b""), DEADLINE_SECONDS)
        assert 0 == self._process.returncode


def _answer(request: Mapping[str, Any]) -> dict[str, object]:
    from hookseal.cli.main import run_command  # noqa: PLC0415 -- only the process that runs commands needs it

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(request["standard_input"].encode("latin-1"))
        given.seek(0)
        for number, file in enumerate((given, out, err)):
            os.dup2(file.fileno(), number)
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 -- each command reads from the start
        code = run_command(request["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
        return {"code": code, "out": _written(out), "err": _written(err)}


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for line in requests:
        answer = json.dumps(_answer(json.loads(line))).encode()
        answers.write(b"%d\n%b" % (len(answer), answer))
        answers.flush()


if __name__ == "__main__":
    _serve()
