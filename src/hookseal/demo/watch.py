"""Watches the processes of `hookseal up`, and says which one ended."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from hookseal.errors import Unavailable

_LOOK_EVERY_SECONDS: Final = 0.2


class Watched(Protocol):
    """A process that should run until `up` ends it."""

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    @property
    def log(self) -> Path:
        """The file with its log."""
        ...

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        ...


async def watch(servers: Sequence[Watched], worker: Watched, stop: asyncio.Event) -> None:
    """Return once `stop` is set. Raises `Unavailable`, with what to do, if a process ends before.

    If a server and the worker end at the same moment, the error names the server.
    """
    while not stop.is_set():
        # Before the pause, so that a server that dies with the worker has ended when the servers are looked at.
        worker_ended = worker.exit_code is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_SECONDS)
        if stop.is_set():
            return
        for part in (*servers, *([worker] if worker_ended else [])):
            if part.exit_code is not None:
                others = [other.name for other in (worker, *servers) if other is not part]
                raise Unavailable(_message(part, part.exit_code, others))


def how_ended(exit_code: int) -> str:
    """Return how a process with this exit code ended, as the end of a sentence."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # most real-time signals have no name
        return f"was killed by signal {-exit_code}"


def _message(part: Watched, exit_code: int, others: Sequence[str]) -> str:
    stopped = " and ".join(others)
    return (
        f"{part.name} {how_ended(exit_code)}; its log is {part.log}. {stopped[0].upper()}{stopped[1:]} are stopped "
        "too, and the data is kept: start `hookseal up` again, then repeat the eval in the second terminal, since the "
        "ports are new"
    )
