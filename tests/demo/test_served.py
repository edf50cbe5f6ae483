"""A server of this process names a busy port, and ends soon although a client is stuck."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from hookseal.demo import served
from hookseal.demo.receiver import run_receiver
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import Unavailable
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.stuck_client import stuck_client


async def test_a_busy_port_is_named() -> None:
    """A port in use is reported by its number."""
    async with served.served(web.Application(), 0) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port} .*: free it"):
            async with served.served(web.Application(), port, advice="free it"):
                pytest.fail("listens")


async def post(request: web.Request) -> web.Response:
    """Read the body, and answer."""
    await request.read()
    return web.Response()


async def end_with_a_stuck_client(at_once: asyncio.Event | None = None) -> None:
    """Serve until a client is stuck, and fail unless the server then ends soon."""
    application = web.Application()
    application.router.add_post("/", post)
    async with (
        AsyncExitStack() as clients,
        asyncio.timeout(SOON_SECONDS),
        served.served(application, 0, at_once=at_once) as url,
    ):
        await clients.enter_async_context(stuck_client(url))
        if at_once is not None:
            at_once.set()


async def test_a_stuck_client_hardly_delays_the_end() -> None:
    """The server ends soon although a client never sends the rest of its request."""
    await end_with_a_stuck_client()


async def test_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `at_once` it does not even wait as long as it else would."""
    monkeypatch.setattr(served, "_SHUTDOWN_SECONDS", 600.0)
    await end_with_a_stuck_client(asyncio.Event())


async def test_the_receiver_of_the_demo_ends_soon() -> None:
    """The receiver of `hookseal demo` does not wait for a stuck client either."""
    async with AsyncExitStack() as clients, asyncio.timeout(SOON_SECONDS), run_receiver(SystemClock()) as receiver:
        await clients.enter_async_context(stuck_client(receiver.base_url))
