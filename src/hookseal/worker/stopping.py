"""The signals that make a worker drain and end."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final, TextIO

import msgspec

from hookseal.errors import Unavailable

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def on_stop(stop: Callable[[], None]) -> None:
    """Make the running loop call `stop` at SIGTERM and SIGINT, until `ignore_stop`.

    The handlers are not those of the loop: a loop sets the default action when it removes its handler, so that a signal
    which comes then would end the process.
    """
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop)

    if isinstance(loop, asyncio.SelectorEventLoop):  # uvloop does it by itself
        _wake_at_signals(loop)
    for number in _STOP_SIGNALS:
        signal.signal(number, handle)


def ignore_stop() -> None:
    """Ignore both signals from now on: a second one while the loop closes would turn a good drain into a failure."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _wake_at_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Make each signal end the wait of the loop, until the process ends.

    A handler runs in the main thread. A signal that comes just before this thread waits, or to another thread, does not
    end the wait: without this the handler would run when something else does.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    loop.add_reader(read, os.read, read, 4_096)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def print_ready(output: TextIO, facts: Mapping[str, object], *, event: str = "worker.ready") -> None:
    """Print these facts as one JSON object. Raises `Unavailable` if the output is closed, full or has no reader."""
    try:
        output.write(msgspec.json.encode({"event": event, **facts}).decode() + "\n")
        output.flush()
    except OSError as error:
        raise unwritable(type(error).__name__) from None


def unwritable(why: str) -> Unavailable:
    """Return the error of a process whose output cannot be written."""
    return Unavailable(
        f"that the process is ready cannot be written to its standard output ({why}): "
        "keep its reader open, make room on its disk, or redirect it to another file"
    )
