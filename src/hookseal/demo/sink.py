"""A receiver that takes everything and tells what it got. It verifies nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from hookseal.ground.errors import Unavailable


@asynccontextmanager
async def sinking(tell: Callable[[dict[str, object]], None], port: int = 0) -> AsyncIterator[str]:
    """Give the url of a receiver on 127.0.0.1 that answers 204 and tells each request, for the length of the block.

    `retry` tells that this is not the first attempt of its delivery: a retry, or a replay. Raises
    `Unavailable` if somebody else listens on the port; port 0 takes a free one.
    """

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        attempt = request.headers.get("x-hookseal-attempt")
        tell(
            {
                "event": "request.received",
                "path": request.path,
                "webhook_id": request.headers.get("webhook-id") or request.headers.get("x-webhook-delivery-id"),
                "attempt": attempt,
                "retry": attempt not in {None, "1"},
                "bytes": len(body),
            }
        )
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise Unavailable(f"the receiver cannot listen on 127.0.0.1:{port} ({type(error).__name__})") from None
        host, bound = runner.addresses[0][:2]
        yield f"http://{host}:{bound}/"
    finally:
        await runner.cleanup()
