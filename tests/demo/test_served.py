"""A server of this process names a busy port, and ends soon although a client is stuck."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from hookseal.demo import sink as served
from hookseal.demo.receiver import run_receiver
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.raw_request import raw_request
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


@pytest.mark.parametrize("line", [b"content-encoding: br", b"x-\xe9: 1"])
async def test_an_unreadable_request_is_one_line_of_the_log(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A request that aiohttp itself refuses is logged in one line, without a traceback."""
    async with served.served(web.Application(), 0) as url:
        assert 400 == await raw_request(url, line)
    [record] = caplog.records
    assert record.getMessage().startswith("answered 400: the request cannot be read (")
    assert (1, None) == (len(record.getMessage().splitlines()), record.exc_info)


async def test_a_fault_of_the_handler_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An error of hookseal itself is answered with 500 and logged with its traceback."""

    async def fail(_request: web.Request) -> web.Response:
        raise LookupError("a fault")

    application = web.Application()
    application.router.add_post("/hook", fail)
    async with served.served(application, 0) as url:
        assert 500 == await raw_request(url)
    assert "LookupError: a fault" in caplog.text
