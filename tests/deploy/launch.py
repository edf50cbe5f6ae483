"""Runs the commands of deploy/ outside of a container, with their environment and without the right to write a file."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cli.command import DEADLINE_SECONDS, Ended
from tests.deploy.files import image

# From here on no file may be written; pipes and sockets still may.
_WITHOUT_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
"""


def environment(
    given: Mapping[str, str], *, secrets: str = "", mounted: Path | None = None, port: int
) -> dict[str, str]:
    """Return the variables of a process of the image, with the `python` of these tests.

    Paths below `secrets` are replaced by paths below `mounted`. Probes and API listen on this machine only.
    """
    paths = {name: value.replace(secrets, str(mounted)) if secrets else value for name, value in given.items()}
    return {
        **image().environment,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOOKSEAL_HEALTH_HOST": "127.0.0.1",
        "HOOKSEAL_HEALTH_PORT": str(port),
        "HOOKSEAL_API_HOST": "127.0.0.1",
        "HOOKSEAL_API_PORT": "0",
        **paths,
    }


async def ended(words: Sequence[str], variables: Mapping[str, str], folder: Path) -> Ended:
    process = await _started(words, variables, folder)
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    finally:
        await _killed(process)
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


@asynccontextmanager
async def running(
    words: Sequence[str], variables: Mapping[str, str], folder: Path
) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """Yield a worker or an API that is ready, and its ready line."""
    process = await _started(words, variables, folder)
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        yield process, json.loads(line)
    finally:
        await _killed(process)


async def _started(words: Sequence[str], variables: Mapping[str, str], folder: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _WITHOUT_FILES, *words),
        cwd=folder,
        env=dict(variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )


async def _killed(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()
