"""The signals that make a worker drain and end."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

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

    for number in _STOP_SIGNALS:
        signal.signal(number, handle)


def ignore_stop() -> None:
    """Ignore both signals from now on: a second one while the loop closes would turn a good drain into a failure."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
