"""A receiver that tells what it got. It verifies nothing, unless it is given somebody who does."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from hookseal.ground.errors import Unavailable
from hookseal.ground.wire import MAX_BODY_BYTES

LOOPBACK = "127.0.0.1"

# Given body and headers: the status to answer with, and what is told beside the rest.
Judge = Callable[[bytes, Mapping[str, str]], tuple[int, dict[str, object]]]


def takes_everything(_body: bytes, _headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """Answer 204, with nothing to add."""
    return 204, {}


@asynccontextmanager
async def sinking(
    tell: Callable[[dict[str, object]], None],
    port: int = 0,
    *,
    host: str = LOOPBACK,
    judge: Judge = takes_everything,
) -> AsyncIterator[str]:
    """Give the url of a receiver that tells each request and answers as it is judged, for the length of the block.

    `retry` tells that this is not the first attempt of its delivery: a retry, or a replay. A body that is larger than
    hookseal sends is answered with 413, and not told. Raises `Unavailable` if the receiver cannot listen there, for
    instance because somebody else does; port 0 takes a free one.
    """
    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/{path:.*}", _receiving(tell, judge))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Unavailable(f"the receiver cannot listen on {host}:{port} ({type(error).__name__})") from None
        shown, bound = runner.addresses[0][:2]
        yield f"http://{f'[{shown}]' if ':' in shown else shown}:{bound}/"
    finally:
        await runner.cleanup()


def _receiving(
    tell: Callable[[dict[str, object]], None], judge: Judge
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        attempt = request.headers.get("x-hookseal-attempt")
        status, beside = judge(body, request.headers)
        tell(
            {
                "event": "request.received",
                "path": request.path,
                "webhook_id": request.headers.get("webhook-id") or request.headers.get("x-webhook-delivery-id"),
                "attempt": attempt,
                "retry": attempt not in {None, "1"},
                "bytes": len(body),
                **beside,
            }
        )
        return web.Response(status=status)

    return receive
