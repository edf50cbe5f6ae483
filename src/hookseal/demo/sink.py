"""The HTTP server of `up` and `listen`: it reports each request, answers as a `Judge` says, and ends soon."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from hookseal.errors import Unavailable
from hookseal.ground.wire import MAX_BODY_BYTES

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


_BAD_REQUEST: Final = 400

# Called with url, body and headers; returns the status to answer with, and more fields for the report.
Judge = Callable[[str, bytes, Mapping[str, str]], Awaitable[tuple[int, dict[str, object]]]]


async def accept_everything(_url: str, _body: bytes, _headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """Answer 204, and report nothing more."""
    return 204, {}


@asynccontextmanager
async def run_sink(
    report: Callable[[dict[str, object]], None],
    port: int = 0,
    *,
    host: str = LOOPBACK,
    judge: Judge = accept_everything,
    advice: str = FREE_THE_PORT,
    at_once: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Run a receiver for the length of the block, and yield its url. It reports each request and answers as judged.

    `retry` in a report means that this is not the first attempt of its delivery: a retry, or a replay. A body larger
    than hookseal sends is answered with 413 and not reported. A request whose body does not come, or cannot be decoded,
    is answered with 400, and reported as `request.refused` with a `message`; the judge does not get it. `advice` and
    `at_once` are those of `served`. Raises `Unavailable` as that does.
    """
    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/{path:.*}", _receiving(report, judge))
    async with served(application, port, host=host, advice=advice, at_once=at_once) as url:
        yield f"{url}/"


def readable(value: str) -> str:
    """Return the value of a header with a replacement character for each byte that is no UTF-8."""
    return value.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def delivery_of(headers: Mapping[str, str]) -> str | None:
    """Return the id of the delivery as the headers of any scheme have it, None if they have none."""
    names = ("webhook-id", "svix-id", "x-webhook-delivery-id")
    return next((headers[name] for name in names if headers.get(name)), None)


def _receiving(
    report: Callable[[dict[str, object]], None], judge: Judge
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def receive(request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except (web.RequestPayloadError, ConnectionError) as error:
            refused = {"status": _BAD_REQUEST, "verified": False, "message": _without_body(request, error)}
            report({"event": "request.refused", **_about(request), **refused})
            return web.Response(status=_BAD_REQUEST)
        url = f"{request.scheme}://{readable(request.host)}{request.raw_path}"
        status, extra = await judge(url, body, request.headers)
        report({"event": "request.received", **_about(request), "bytes": len(body), **extra})
        return web.Response(status=status)

    return receive


def _about(request: web.Request) -> dict[str, object]:
    delivery = delivery_of(request.headers)
    attempt = request.headers.get("x-hookseal-attempt")
    return {
        "path": request.path,
        "webhook_id": None if delivery is None else readable(delivery),
        "attempt": None if attempt is None else readable(attempt),
        "retry": attempt not in {None, "1"},
    }


def _without_body(request: web.Request, error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "the connection was closed before the whole body had come"
    encoding = readable(request.headers.get("content-encoding", "none"))
    return f"the body cannot be decoded; its content-encoding is {encoding}"
