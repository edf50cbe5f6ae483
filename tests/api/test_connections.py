"""Slow clients, and many of them, shut out nobody."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookseal.api import connections
from hookseal.api.connections import MOST_HEAD_BYTES, MOST_HEADERS, MOST_REQUESTS, Connections
from tests.worker.waiting import eventually

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = b"x" * 8_000_000  # more than the system takes for a client that does not read


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, with much if the path says so."""
    await Response(LARGE if scope["path"] == "/large" else b"here")(scope, receive, send)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path and the body."""
    body = await Request(scope, receive).body()
    await Response(scope["path"].encode() + b" " + body + b"|")(scope, receive, send)


@asynccontextmanager
async def listening(limits: Connections, application: Any = answer) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve within these limits, and yield the server and its port."""
    config = uvicorn.Config(
        application,
        port=0,
        http=cast("Any", limits),
        ws="none",
        lifespan="off",
        log_level="critical",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or running.done())
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def opened(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server closes the connection."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nhost: x\r\n"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_head_that_stops_is_answered_in_time(sent: bytes, *, is_first: bool) -> None:
    async with listening(Connections(head_seconds=0.3)) as (server, port):
        reader, writer = await opened(port)
        if not is_first:
            writer.write(REQUEST)
            await reader.readuntil(b"here")
        writer.write(sent)
        answered = await rest(reader)
        writer.close()
        await eventually(lambda: not server.server_state.connections)

    assert answered.startswith(b"HTTP/1.1 408 ")
    assert answered.endswith(
        b'{"code":"request_timeout","detail":"the head of a request must come within 0.3 seconds"}'
    )


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with listening(Connections(head_seconds=0.3)) as (_, port):
        reader, writer = await opened(port)
        assert b"" == await rest(reader)
        writer.close()


async def test_a_head_has_a_limit() -> None:
    """One byte more than it may have is answered; a client that goes on sending may see only the end of it."""
    async with listening(Connections()) as (server, port):
        reader, writer = await opened(port, b"GET / HTTP/1.1\r\nx: ")
        sent = len(b"GET / HTTP/1.1\r\nx: ")
        while sent <= MOST_HEAD_BYTES:
            writer.write(b"y" * min(8_192, MOST_HEAD_BYTES + 1 - sent))
            sent += min(8_192, MOST_HEAD_BYTES + 1 - sent)
        answered = await rest(reader)
        writer.close()
        await eventually(lambda: not server.server_state.connections)

    assert answered.startswith(b"HTTP/1.1 431 ")
    assert b'{"code":"request_header_fields_too_large","detail":' in answered


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["begun", "whole"])
async def test_a_head_has_a_limit_of_headers(end: bytes) -> None:
    """Short ones would take thirty times as much memory as the bytes that a head may have."""
    async with listening(Connections(), echo) as (server, port):
        reader, writer = await opened(
            port, REQUEST.replace(b"\r\n\r\n", b"\r\n" + b"x:\r\n" * (MOST_HEADERS - 1) + b"\r\n")
        )
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"|")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HTTP/1.1\r\n" + b"x:\r\n" * (MOST_HEADERS + 2) + end)
        answered = await rest(reader)
        writer.close()
        await eventually(lambda: not server.server_state.connections)

    assert answered.startswith(b"HTTP/1.1 431 ")
    assert 1 == answered.count(b"HTTP/1.1")


@pytest.mark.req("API-08")
async def test_a_request_has_one_host() -> None:
    """As RFC 9112 demands of a server; only HTTP/1.0 knows requests without it."""
    async with listening(Connections(), echo) as (_, port):
        for head, status in (
            (b"HTTP/1.1\r\n", b"400"),
            (b"HTTP/1.1\r\nhost: x\r\nHost: x\r\n", b"400"),
            (b"HTTP/1.0\r\nhost: x\r\nhost: y\r\n", b"400"),
            (b"HTTP/1.0\r\n", b"200"),
        ):
            reader, writer = await opened(port, b"GET / " + head + b"\r\n")
            answered = await rest(reader)
            writer.close()
            assert answered.startswith(b"HTTP/1.1 " + status), head
            assert (status == b"400") == answered.endswith(
                b'{"code":"bad_request","detail":"a request must have one header `host`"}'
            ), head


async def test_a_request_without_a_host_is_not_answered_in_place_of_one_in_work() -> None:
    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with listening(Connections(), never) as (_, port):
        reader, writer = await opened(port, REQUEST + b"GET / HTTP/1.1\r\n\r\n")
        assert b"" == await rest(reader)
        writer.close()


async def test_a_head_has_its_limit_while_a_request_is_in_work() -> None:
    """A client may send the next request before the answer to the one before: its head is counted, too."""
    working = asyncio.Event()

    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        working.set()
        await asyncio.Event().wait()

    async with listening(Connections(), never) as (server, port):
        _, writer = await opened(port, REQUEST)
        await working.wait()
        writer.write(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                while server.server_state.connections:
                    writer.write(b"x: " + b"y" * 8_192 + b"\r\n")
                    await writer.drain()
        writer.close()
        await eventually(lambda: not server.server_state.connections)


TRAILERS = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"


@pytest.mark.parametrize("begun", [b"0\r\nx: ", b"1;"], ids=["trailer", "extension"])
@pytest.mark.parametrize("is_answered", [True, False])
async def test_what_stands_behind_a_body_has_a_limit(begun: bytes, *, is_answered: bool) -> None:
    """Neither a trailer nor the extension of a chunk is read without end, also of a request that was answered."""
    async with listening(Connections(head_seconds=60), answer if is_answered else echo) as (server, port):
        reader, writer = await opened(port, TRAILERS)
        if is_answered:
            await reader.readuntil(b"here")
        writer.write(begun)
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                while server.server_state.connections:
                    writer.write(b"y" * 8_192)
                    await writer.drain()
        writer.close()
        await eventually(lambda: not server.server_state.connections)


async def test_a_trailer_is_no_header() -> None:
    """It would count as one of the request to which it belongs, and so would a million of them."""

    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await Response(b",".join(name for name, _ in scope["headers"]) + b"|")(scope, receive, send)

    async with listening(Connections(), names) as (_, port):
        reader, writer = await opened(port, TRAILERS + b"0\r\nidempotency-key: a\r\n\r\n")
        async with asyncio.timeout(30):
            answered = await reader.readuntil(b"|")
        writer.close()

    assert answered.endswith(b"\r\n\r\nhost,transfer-encoding|")


UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("body", [b"content-length: 5\r\n\r\nhello", CHUNKED])
async def test_a_request_for_another_protocol_keeps_its_body(body: bytes, *, at_once: bool) -> None:
    """As the HTTP client of Java sends it. The connection serves the next requests, also one that comes with it."""
    async with listening(Connections(), echo) as (_, port):
        request = b"POST /first HTTP/1.1\r\nhost: x\r\n" + UPGRADE + body
        upgraded = b"GET /second HTTP/1.1\r\nhost: x\r\n" + UPGRADE + b"\r\n"
        sent = request + upgraded + request
        reader, writer = await opened(port)
        for part in [sent] if at_once else [sent[place : place + 1] for place in range(len(sent))]:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(30):
            answered = b"".join([await reader.readuntil(b"|") for _ in range(3)])
        writer.close()

    assert [b"/first hello", b"/second ", b"/first hello"] == re.findall(rb"\r\n\r\n(.*?)\|", answered)
    assert 3 == answered.count(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", [b"", UPGRADE], ids=["usual", "upgrade"])
async def test_requests_that_wait_have_a_limit(kind: bytes) -> None:
    """A client may send some before the answer to the first. With more the connection is cut."""
    request = REQUEST.removesuffix(b"\r\n") + kind + b"\r\n"
    async with listening(Connections(), echo) as (server, port):
        reader, writer = await opened(port, request * (1 + MOST_REQUESTS))
        async with asyncio.timeout(30):
            for _ in range(1 + MOST_REQUESTS):
                assert b"HTTP/1.1 200 OK" in await reader.readuntil(b"|")
        writer.write(request * (2 + MOST_REQUESTS))
        assert b"" == await rest(reader)
        writer.close()
        await eventually(lambda: not server.server_state.connections)


async def test_a_body_that_nobody_reads_is_no_head() -> None:
    """A request that is answered before its body has come is answered once, and the connection serves the next."""
    async with listening(Connections(head_seconds=5)) as (server, port):
        reader, writer = await opened(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        await reader.readuntil(b"here")
        writer.write(b"x" * 1_000_000 + REQUEST)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * MOST_HEAD_BYTES)
        assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")
        writer.close()
        await eventually(lambda: not server.server_state.connections)


@pytest.mark.parametrize("head", [b"content-length: 1000000", b"transfer-encoding: chunked"])
async def test_a_body_that_nobody_reads_must_end_in_time(head: bytes) -> None:
    async with listening(Connections(head_seconds=0.3)) as (server, port):
        reader, writer = await opened(port, b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n")
        await reader.readuntil(b"here")
        while server.server_state.connections:
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)
        assert b"" == await rest(reader)
        writer.close()


async def test_a_connection_that_says_nothing_behind_a_late_body_is_closed() -> None:
    async with listening(Connections(head_seconds=0.3)) as (_, port):
        reader, writer = await opened(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
        await reader.readuntil(b"here")
        writer.write(b"body")
        assert b"" == await rest(reader)
        writer.close()


async def test_what_is_no_http_is_refused_in_json() -> None:
    async with listening(Connections()) as (_, port):
        reader, writer = await opened(port, b"\x16\x03\x01 nonsense\r\n\r\n")
        answered = await rest(reader)
        writer.close()

    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.endswith(b'{"code":"bad_request","detail":"Invalid HTTP request received."}')


@pytest.mark.parametrize(
    "before", [REQUEST, REQUEST + b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"]
)
async def test_what_is_no_http_is_not_answered_in_place_of_a_request_in_work(before: bytes) -> None:
    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with listening(Connections(), never) as (_, port):
        reader, writer = await opened(port, before + b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b"" == await rest(reader)
        writer.close()


async def test_a_body_that_is_no_http_is_refused() -> None:
    async with listening(Connections(), echo) as (_, port):
        reader, writer = await opened(port, b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"nonsense\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_an_answer_that_nobody_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
    async with listening(Connections()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        writer.write(REQUEST.replace(b"/ ", b"/large ", 1))
        await eventually(lambda: bool(server.server_state.total_requests))
        await eventually(lambda: not server.server_state.connections)
        assert len(await rest(reader)) < len(LARGE)
        writer.close()


async def test_many_slow_clients_shut_out_nobody() -> None:
    """Of 400 connections that send nothing or too little, the oldest make room; each request is answered."""
    async with listening(Connections(most=100)) as (server, port):
        slow = [await opened(port, b"GET / HTTP/1.1\r\n"[: number % 5]) for number in range(400)]
        for _ in range(20):
            reader, writer = await opened(port, REQUEST)
            assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
            writer.close()
        assert len(server.server_state.connections) <= 100
        for _, writer in slow:
            writer.close()


async def test_connections_that_come_at_once_have_the_limit_together() -> None:
    """Of a burst that is accepted in one turn of the event loop, each connection makes room for itself."""
    loop = asyncio.get_running_loop()
    async with listening(Connections(most=10)) as (server, port):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]  # accepted after the last one
        reader, writer = await opened(port, REQUEST)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        for client in clients[:51]:
            client.setblocking(False)
            async with asyncio.timeout(30):
                assert b"" == await loop.sock_recv(client, 1)
        assert len(server.server_state.connections) <= 10
        for client in clients:
            client.close()
        writer.close()


async def test_a_request_in_work_is_never_closed_for_another_connection() -> None:
    async with listening(Connections(most=3)) as (_, port):
        kept = await opened(port, REQUEST)
        await kept[0].readuntil(b"here")
        kept[1].write(REQUEST)  # it is the youngest of those that wait now
        await kept[0].readuntil(b"here")
        others = [await opened(port) for _ in range(2)]
        kept[1].write(REQUEST)
        await kept[0].readuntil(b"here")
        more = [await opened(port) for _ in range(2)]
        assert [b"", b""] == [await rest(reader) for reader, _ in others]
        kept[1].write(REQUEST)
        await kept[0].readuntil(b"here")
        for _, writer in (kept, *others, *more):
            writer.close()
