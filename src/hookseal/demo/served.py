"""An HTTP server of this process, which ends soon whatever its clients do."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from hookseal.errors import Unavailable

LOOPBACK: Final = "127.0.0.1"
FREE_THE_PORT: Final = "free the port, or choose another one"
_SHUTDOWN_SECONDS: Final = 1.0  # for requests that have begun; their handlers then have as long to end
_AT_ONCE_SECONDS: Final = 0.01  # 0 would be without a limit
_log: Final = logging.getLogger(__name__)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of what is a fault of the client; leave it out if the handler has had the same error."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        reason = error.message.partition("\n")[0].rstrip(":")
        record.msg, record.args, record.exc_info = f"answered 400: the request cannot be read ({reason})", (), None
    return not isinstance(error, web.RequestPayloadError)


_log.addFilter(_without_traceback)


@asynccontextmanager
async def served(
    application: web.Application,
    port: int,
    *,
    host: str = LOOPBACK,
    advice: str = FREE_THE_PORT,
    at_once: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Serve the application for the length of the block, and yield its url without a path; port 0 picks a free one.

    At the end of the block it waits for requests that have begun: two seconds at most, and no longer when `at_once` is
    set. Raises `Unavailable`, with the advice, if it cannot listen there, for instance because the port is in use.
    """
    runner = web.AppRunner(application, access_log=None, logger=_log, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise Unavailable(f"the receiver cannot listen on {host}:{port} ({reason}): {advice}") from None
        shown, bound = runner.addresses[0][:2]
        yield f"http://{f'[{shown}]' if ':' in shown else shown}:{bound}"
    finally:
        await _close(runner, asyncio.Event() if at_once is None else at_once)


async def _close(runner: web.AppRunner, at_once: asyncio.Event) -> None:
    closing, hurried = asyncio.create_task(runner.cleanup()), asyncio.create_task(at_once.wait())
    try:
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurried.cancel()
        closing.cancel()
    if closing.done():
        await closing
        return
    await asyncio.wait({closing})
    if runner.server is not None:  # the time for its requests was cut short
        await runner.server.shutdown(_AT_ONCE_SECONDS)
