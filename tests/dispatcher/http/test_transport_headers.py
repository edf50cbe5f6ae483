"""The endpoint's own headers on real sockets: sent unchanged, shown nowhere else, and never in place of ours."""

import asyncio
import gc
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping

import pytest

from hookseal.dispatcher.core.model import Failure, NotBegun, Reply, Request
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.errors import Defect
from hookseal.secrets.core.material import SecretMaterial
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import Script, answers, hang, listening, reset, stalls_after, status
from tests.doubles.replaced import replace

CANARY = "canary-4f1d"
EVERY_CHARACTER = bytes(range(0x21, 0x7F))
OWN = {
    "authorization": f"Bearer {CANARY}".encode(),
    "cookie": b'a=1; b="2, 3"; a=4; not a pair',
    "x-every-character": EVERY_CHARACTER,
    "x-inside": b"a \t b",
    "x-long": b"v" * 4096,
}


def with_own(url: str, own: Mapping[str, bytes] = OWN, *, timeout_seconds: float = 5) -> Request:
    """Return a request to this URL with these headers of the endpoint's own."""
    request = request_to(url, timeout_seconds=timeout_seconds)
    return replace(request, sealed_headers={name: SecretMaterial(value) for name, value in own.items()})


def lines(raw: bytes) -> list[bytes]:
    """Return the header lines of a request as they arrived."""
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_arrive_byte_for_byte() -> None:
    """Each value arrives once and unchanged, on a new and on a kept connection; our headers do not change."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for request in (request_to(listener.url), with_own(listener.url), with_own(listener.url)):
            await transport.send(request)

    without, *carrying = [lines(raw) for raw in listener.requests]
    assert 1 == listener.connections
    for found in carrying:
        assert sorted(found) == sorted([*without, *(name.encode() + b": " + OWN[name] for name in OWN)])


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_belong_to_one_request() -> None:
    """The next request on the same connection contains none of the previous request's own headers."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        await transport.send(with_own(listener.url))
        await transport.send(request_to(listener.url))

    assert (1, 2) == (listener.connections, len(listener.requests))
    assert CANARY.encode() in listener.requests[0]
    assert not any(name.encode() in listener.requests[1].lower() for name in OWN)


@pytest.mark.req("DEL-13", part="rules")
async def test_hookseals_headers_take_precedence() -> None:
    """If both have a header of the same name, only ours is sent."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        request = with_own(listener.url, {"x-both": b"theirs"})
        await transport.send(replace(request, headers={**request.headers, "x-both": "ours"}))

    assert [b"x-both: ours"] == [line for line in lines(listener.requests[0]) if line.startswith(b"x-both")]


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, CANARY.encode()) for name in ("webhook-id", "x-webhook-event", "x-hookseal-attempt", "x-tenant-id")),
        *((name, CANARY.encode()) for name in ("x-correlation-id", "traceparent", "host", "content-length")),
        *((name, CANARY.encode()) for name in ("content-type", "user-agent", "accept-encoding", "connection")),
        *((name, CANARY.encode()) for name in ("transfer-encoding", "te", "upgrade", "expect", "proxy-authorization")),
        *((name, CANARY.encode()) for name in ("X-Api-Key", "x api", "x:api", "", "x\r\ny", "x\x00", "\xfc", "x" * 65)),
        *(("x-api-key", CANARY.encode() + tail) for tail in (b"\r\nx-admin: 1", b"\n", b"\r", b"\x00", b" ", b"\xfc")),
        ("x-api-key", b""),
        ("x-api-key", CANARY.encode() + b"v" * 4096),
    ],
)
async def test_a_forbidden_header_is_a_defect_before_dialling(name: str, value: bytes) -> None:
    """A reserved or malformed name, or a value that could end its line, is a `Defect` before anything is dialled."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        with pytest.raises(Defect) as caught:
            await transport.send(with_own(listener.url, {"x-good": CANARY.encode(), name: value}))

    assert 0 == listener.connections
    assert CANARY not in shown_by(caught.value)


def shown_by(error: BaseException) -> str:
    """Return all that a traceback could show of an error and its causes: texts, frames and their local variables.

    Frames of this file are left out.
    """
    shown = [repr(error)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename != __file__:
            shown.append(f"{frame.f_code.co_filename}: {frame.f_locals!r}")
    return "\n".join(
        [*shown, *(shown_by(cause) for cause in (error.__cause__, error.__context__) if cause is not None)]
    )


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    "script",
    [
        status(500, b"no"),
        reset,
        hang,
        answers(b"nonsense\r\n\r\n"),
        answers(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
        stalls_after(b"HTTP/1.1 200 OK\r\nx: "),
    ],
)
async def test_no_answer_or_log_has_a_value(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the receiver does, neither the answer nor the log of any library contains a header value."""
    caplog.set_level(logging.DEBUG)
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(with_own(listener.url, timeout_seconds=0.3))

    assert CANARY.encode() in listener.requests[0]
    assert isinstance(answer, Reply | Failure)
    assert CANARY not in f"{answer!r} {caplog.text}"


async def send_wrong_body(transport: HttpTransport, request: Request, _arrived: asyncio.Event) -> None:
    """Send a request whose body is not bytes."""
    await transport.send(replace(request, body="x"))


async def cancel_request(transport: HttpTransport, request: Request, arrived: asyncio.Event) -> None:
    """Cancel a request that has arrived and is not answered."""
    sending = asyncio.create_task(transport.send(request))
    await asyncio.wait_for(arrived.wait(), 60)
    sending.cancel()
    await sending


GoWrong = Callable[[HttpTransport, Request, asyncio.Event], Awaitable[None]]


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(("go_wrong", "within"), [(send_wrong_body, "transport.py"), (cancel_request, "streams.py")])
async def test_no_traceback_has_a_value(go_wrong: GoWrong, within: str) -> None:
    """An error that passes through the transport leaves no header value in the frames of its traceback."""
    arrived = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with listening(silent) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        with pytest.raises((Exception, asyncio.CancelledError)) as caught:
            await go_wrong(transport, with_own(listener.url), arrived)

    assert within in shown_by(caught.value), "the error did not pass through the expected frames"
    assert CANARY not in shown_by(caught.value)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_no_object_keeps_a_value() -> None:
    """After a request, sent or not, no object of the process refers to a header value, on a kept connection either."""

    def made() -> str:
        return bytes.fromhex("6b6570742d63616e617279").decode()

    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for script_url in (listener.url, listener.url, f"{listener.url}#late"):
            late = script_url.endswith("late")
            request = with_own(script_url.removesuffix("#late"), {"x-api-key": made().encode()})
            answer = await transport.send(replace(request, start_by=0) if late else request)
            assert isinstance(answer, NotBegun if late else Reply)
            del request
        assert 2 == sum(made().encode() in raw for raw in listener.requests)
        listener.requests.clear()
        gc.collect()

        needle = made()
        kept = [held for held in _held() if held is not needle and needle in _text(held)]

    assert [] == kept


def _held() -> Iterator[object]:
    """Yield every object that a container of this process refers to, also through containers that gc does not track."""
    for container in gc.get_objects():
        for held in gc.get_referents(container):
            yield held
            if not gc.is_tracked(held):
                yield from gc.get_referents(held)


def _text(held: object) -> str:
    match held:
        case str():
            return held
        case bytes() | bytearray():
            return held.decode("latin-1")
        case _:
            return ""
