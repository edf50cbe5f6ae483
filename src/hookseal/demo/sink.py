"""A receiver that reports each request. It verifies nothing, unless it gets a `Judge` that does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from hookseal.demo.served import FREE_THE_PORT, LOOPBACK, served
from hookseal.ground.wire import MAX_BODY_BYTES

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
    """Return the id of the delivery as the headers of either scheme have it, None if they have none."""
    return headers.get("webhook-id") or headers.get("x-webhook-delivery-id")


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
