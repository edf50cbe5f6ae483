"""One process that runs many commands one after the other, each with its own settings.

It is for tests whose commands all need the same state when Python starts; other tests use `tests/cli/command.py`.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from tests.cli.command import DEADLINE_SECONDS, Ended


class Many:
    """Runs commands in the process of `many`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, *arguments: str, **settings: str) -> Ended:
        """Run the command to its end with these settings and no others."""
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        writer.write(json.dumps([arguments, settings]).encode() + b"\n")
        async with asyncio.timeout(DEADLINE_SECONDS):
            return Ended(**json.loads(await reader.readline()))


@asynccontextmanager
async def many(settings: Mapping[str, str]) -> AsyncIterator[Many]:
    """Provide a process that has started with these settings; it must end afterwards without output of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__), env={**os.environ, **settings}, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        limit=1 << 24,
    )  # fmt: skip
    try:
        yield Many(process)
        out, err = await asyncio.wait_for(process.communicate(b""), DEADLINE_SECONDS)
        assert (b"", b"") == (out, err)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _answer(arguments: list[str], settings: dict[str, str]) -> dict[str, object]:
    from hookseal.cli.main import run_command  # noqa: PLC0415 -- only the process that runs commands needs them

    os.environ.clear()
    os.environ.update(settings)
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_answer(*json.loads(line))), flush=True)  # noqa: T201
