"""The signals that make a worker drain and end."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def on_stop(stop: Callable[[], None]) -> None:
    """Make the running loop call `stop` at SIGTERM and SIGINT."""
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)


def ignore_stop() -> None:
    """Ignore both signals from now on: a second one while the loop closes would turn a good drain into a failure."""
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
