"""The HTTP port of the probes, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from hookseal.errors import Unavailable
from hookseal.worker.health import MOST_CONNECTIONS, Port, Reply

asked: list[tuple[str, str]] = []


async def answers(path: str, accept: str) -> Reply | None:
    """Answer `/readyz` only; one path has a defect."""
    asked.append((path, accept))
    if path == "/defect":
        raise TypeError("canary of an argument, 7c1d")
    return Reply(status=503, body=b"{}", content_type="application/json") if path == "/readyz" else None


@asynccontextmanager
async def serving(*, most: int = 64, seconds: float = 10.0) -> AsyncIterator[tuple[str, int]]:
    """Yield the address of a port."""
    port = Port(answers, most=most, seconds=seconds)
    url = urlsplit(await port.serve("127.0.0.1", 0))
    try:
        yield str(url.hostname), int(url.port or 0)
    finally:
        await port.close()


async def send(address: tuple[str, int], text: bytes) -> bytes:
    """Send the text and return the whole answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_connection_gets_one_answer() -> None:
    """The handler gets path and `Accept`; the answer states its length, and then the connection is closed."""
    asked.clear()
    async with serving() as address:
        found = await send(address, b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\naccept:  text/plain \r\n\r\n")

    assert [("/readyz", "text/plain")] == asked
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"{}" == body
    assert [
        b"HTTP/1.1 503 Service Unavailable",
        b"Content-Type: application/json",
        b"Content-Length: 2",
        b"Connection: close",
    ] == head.split(b"\r\n")


async def test_an_answer_to_head_has_no_body() -> None:
    """HEAD is answered as GET, without the body."""
    async with serving() as address:
        got, head = [await send(address, b"%s /readyz HTTP/1.1\r\n\r\n" % word) for word in (b"GET", b"HEAD")]
    assert got == head + b"{}"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET /nothing HTTP/1.0\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /readyz HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /defect HTTP/1.1\r\n\r\n", b"HTTP/1.1 500 "),
        (b"GET /readyz\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\xff\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /readyz HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", b""),  # more than the limit of a request
    ],
)
async def test_an_invalid_request_is_refused(text: bytes, status: bytes) -> None:
    """An invalid request is refused, and the next request is answered."""
    async with serving() as address:
        found = await send(address, text)
        after = await send(address, b"GET /readyz HTTP/1.1\r\n\r\n")

    assert (status, not status) == (found[: len(status)], not found)
    assert after.startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("sent", [b"", b"GET /rea"])
async def test_a_slow_request_is_closed(sent: bytes) -> None:
    """A connection without a whole request is closed at its time limit."""
    async with serving(seconds=0.05) as address:
        assert b"" == await send(address, sent)


async def test_one_connection_too_many_closes_the_oldest() -> None:
    """A connection above the limit closes the oldest one."""
    async with serving(most=2) as address:
        opened = [await asyncio.open_connection(*address) for _ in range(3)]
        oldest, _ = opened[0]

        assert b"" == await oldest.read()
        for _, writer in opened:
            writer.close()


async def test_connections_of_one_turn_are_limited() -> None:
    """Connections that arrive in one turn of the loop do not exceed the limit either."""
    async with serving(most=2, seconds=120) as address:
        clients = [socket.create_connection(address) for _ in range(8)]  # before the port accepts one
        opened = [await asyncio.open_connection(sock=each) for each in clients]
        ended = [asyncio.create_task(reader.read()) for reader, _ in opened[:6]]

        async with asyncio.timeout(60):
            assert [b""] * 6 == await asyncio.gather(*ended)
        assert [False, False] == [reader.at_eof() for reader, _ in opened[6:]]
        for _, writer in opened:
            writer.close()


async def test_an_address_with_many_connections_loses_one() -> None:
    """A connection above the limit closes one of the address with the most, not the oldest of another address."""
    async with serving(most=3) as (host, port):
        other, other_writer = await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0))
        opened = [await asyncio.open_connection(host, port) for _ in range(3)]

        assert b"" == await opened[0][0].read()
        other_writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert (await other.read()).startswith(b"HTTP/1.1 503 ")
        for writer in (other_writer, *(writer for _, writer in opened)):
            writer.close()


@pytest.mark.req("OPS-01")
async def test_many_connections_keep_no_other_client_out() -> None:
    """Connections above the limit are closed, and a client at another address is answered."""
    ask = b"GET /readyz HTTP/1.1\r\n\r\n"
    async with serving(most=MOST_CONNECTIONS, seconds=120) as (host, port):
        kubelet, to_kubelet = await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0))
        crowd = [await asyncio.open_connection(host, port) for _ in range(5 * MOST_CONNECTIONS)]
        async with asyncio.timeout(60):
            for reader, _ in crowd[: 4 * MOST_CONNECTIONS + 1]:
                assert b"" == await reader.read()
        late, to_late = await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0))
        for reader, writer in ((kubelet, to_kubelet), (late, to_late), crowd[-1]):
            writer.write(ask)
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        for _, writer in (*crowd, (late, to_late), (kubelet, to_kubelet)):
            writer.close()


async def test_a_busy_port_is_unavailable() -> None:
    """A port in use is named, with the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port} .* HOOKSEAL_HEALTH_PORT"):
            await Port(answers).serve("127.0.0.1", port)
