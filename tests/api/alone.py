"""The API as a process of its own."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any

from tests import forked
from tests.cli.command import DEADLINE_SECONDS

PORTS = {"HOOKSEAL_API_PORT": "0", "HOOKSEAL_HEALTH_PORT": "0"}


@asynccontextmanager
async def serving(
    settings: Mapping[str, str], *options: str, log: IO[bytes] | None = None
) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """Yield a process that serves the API, and its first output. Its log is a pipe, or goes to a file."""
    environment = {**os.environ, **PORTS, **settings}
    process = await forked.start("api", *options, env=environment, stdout=PIPE, stderr=log or PIPE)
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        yield process, json.loads(line or b"{}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
