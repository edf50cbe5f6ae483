"""A receiver that reports each request. It verifies nothing, unless it gets a `Judge` that does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from hookseal.demo.served import FREE_THE_PORT, LOOPBACK, served
from hookseal.ground.wire import MAX_BODY_BYTES

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
    than hookseal sends is answered with 413 and not reported. `advice` and `at_once` are those of `served`. Raises
    `Unavailable` as that does.
    """
    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/{path:.*}", _receiving(report, judge))
    async with served(application, port, host=host, advice=advice, at_once=at_once) as url:
        yield f"{url}/"


def _receiving(
    report: Callable[[dict[str, object]], None], judge: Judge
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        attempt = request.headers.get("x-hookseal-attempt")
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        status, extra = await judge(url, body, request.headers)
        report(
            {
                "event": "request.received",
                "path": request.path,
                "webhook_id": request.headers.get("webhook-id") or request.headers.get("x-webhook-delivery-id"),
                "attempt": attempt,
                "retry": attempt not in {None, "1"},
                "bytes": len(body),
                **extra,
            }
        )
        return web.Response(status=status)

    return receive
