"""The transport, on the loop of a worker, with receivers that misbehave."""

import asyncio
import errno
import gc
import os
import resource
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from ipaddress import ip_network
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Reply
from hookseal.dispatcher.core.outcome import classify
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http import egress_guard
from hookseal.dispatcher.http.connection import SLICE_BYTES
from hookseal.dispatcher.http.egress_guard import ForbiddenAddressError, Guard, begun_socket, exhaustion_error
from hookseal.dispatcher.http.observation import PROGRESS, Limits, Progress
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import exhausted_resource
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.dispatcher.http.test_egress import transport
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import (
    Script,
    answers,
    drips,
    endless,
    flood,
    hang,
    listening,
    reset,
    resets_after,
    stalls_after,
    status,
)
from tests.worker.waiting import eventually

SECONDS = 1.0
PATIENCE = 20.0  # seconds for receivers that end by themselves, enough on a busy machine
QUICK = Limits(body_seconds=0.3)
UNHURRIED = Limits(name_seconds=PATIENCE)  # a busy machine may take longer than 1.5 seconds to begin a thread
MEMORY_BYTES = 8_388_608  # of a bomb of 64 MiB or more; includes the memory of the receiver
HEAD = b"HTTP/1.1 200 OK\r\n"
LACKING = NotBegun(missing_resource="EMFILE")
OK = Reply(status=204, snippet="")
HERE = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 9))


@cache
def compressed(wbits: int, megabytes: int = 64) -> bytes:
    """Return that many megabytes of zeros, compressed to about a thousandth."""
    press = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([*(press.compress(bytes(1_048_576)) for _ in range(megabytes)), press.flush()])


def zstd_bomb() -> bytes:
    """Return a Zstandard frame (RFC 8878) with a window of 128 KiB, whose blocks each expand one byte to 128 KiB."""
    block = ((131_072 << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * 20_000


def encoded(encoding: bytes, body: bytes) -> Callable[[], Script]:
    """Return a function that makes a script which answers with a body in this encoding."""
    return lambda: status(200, body, b"content-encoding: %b\r\n" % encoding)


def cases() -> dict[str, tuple[Callable[[], Script], FailureKind | int]]:
    """Return the receivers by name, each with the expected kind of failure or status."""
    return {
        "black hole": (lambda: hang, FailureKind.TIMEOUT),
        "headers that stall": (lambda: stalls_after(HEAD + b"x: "), FailureKind.TIMEOUT),
        "headers a byte at a time": (lambda: drips(HEAD + b"x: "), FailureKind.TIMEOUT),
        "a body a byte at a time": (lambda: drips(HEAD + b"content-length: 99999\r\n\r\n"), 200),
        "a body that stalls": (lambda: stalls_after(HEAD + b"content-length: 9\r\n\r\nabc"), 200),
        "an endless body": (endless, 200),
        "an endless body without a length": (lambda: drips(HEAD + b"\r\n", b"x" * 65_536), 200),
        "a body with a lie about its length": (
            lambda: status(200, b"x" * 10, b"content-length: 5\r\n"),
            FailureKind.PROTOCOL,
        ),
        "a 204 with a body": (lambda: answers(b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok"), 204),
        "a 204 with chunks": (lambda: answers(b"HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 204),
        "more than its length": (lambda: answers(HEAD + b"content-length: 2\r\n\r\nok!"), 200),
        "more than its length, with bare line feeds": (
            lambda: answers(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok!"),
            200,
        ),
        "an invalid chunk": (lambda: answers(HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n"), 200),
        "an interim reply, and an invalid chunk": (
            lambda: answers(b"HTTP/1.1 102 Go\r\n\r\n" + HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n"),
            200,
        ),
        "an endless size of a chunk": (lambda: drips(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"0" * 4_096), 200),
        "a gzip bomb": (lambda: status(200, compressed(31), b"content-encoding: gzip\r\n"), 200),
        "a deflate bomb": (lambda: status(200, compressed(15), b"content-encoding: Deflate\r\n"), 200),
        "a bomb in a bomb": (lambda: status(200, compressed(31), b"content-encoding: gzip, gzip\r\n"), 200),
        "a zstd bomb": (encoded(b"zstd", zstd_bomb()), 200),
        "brotli that is none": (encoded(b"br", bytes(99_999)), 200),
        "gzip that is none": (encoded(b"gzip", b"nothing of the kind" * 99), 200),
        "a reset before the headers": (lambda: resets_after(b""), FailureKind.CONNECTION),
        "an end before the headers": (lambda: reset, FailureKind.CONNECTION),
        "a reset within the headers": (lambda: resets_after(HEAD), FailureKind.CONNECTION),
        "200, then a reset": (lambda: resets_after(HEAD + b"content-length: 9\r\n\r\nabc"), 200),
        "interim replies without end": (lambda: flood, FailureKind.CONNECTION),
        "a header of a megabyte": (
            lambda: answers(HEAD + b"x: " + b"y" * 1_048_576 + b"\r\n\r\n"),
            FailureKind.PROTOCOL,
        ),
        "a header without end": (lambda: drips(HEAD + b"x: ", b"y" * 65_536), FailureKind.PROTOCOL),
        "ten thousand headers": (lambda: answers(HEAD + b"x: y\r\n" * 10_000 + b"\r\n"), FailureKind.PROTOCOL),
        "HTTP/0.9": (lambda: resets_after(b"<html>it works</html>\r\n"), FailureKind.PROTOCOL),
        "another protocol": (lambda: answers(b"220 mail.example ESMTP\r\n"), FailureKind.PROTOCOL),
        "a status of 99999": (lambda: answers(b"HTTP/1.1 99999 OK\r\n\r\n"), FailureKind.PROTOCOL),
        "a status of 101": (lambda: answers(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n" + b"x" * 99_999), 101),
    }


NAMES = list(cases())


def kind_or_status(answer: Answer) -> FailureKind | int | None:
    match answer:
        case Failure(kind=kind):
            return kind
        case Reply(status=code):
            return code
        case _:
            return None


def connections_to(port: int) -> int:
    """Return how many sockets of this process are connected to that loopback port, according to the system."""
    mine = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            mine.add(str(link.readlink()))
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    far = f"0100007F:{port:04X}"
    return sum(row[2] == far and f"socket:[{row[9]}]" in mine for row in rows)


async def wait_until_closed(port: int, *, kept: int = 0) -> None:
    """Wait until no connection to that port is open except the kept ones."""

    async def look() -> bool:
        return connections_to(port) == kept

    await eventually(look)


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize("name", NAMES)
async def test_each_receiver_has_its_outcome(name: str) -> None:
    """Each misbehaving receiver has one outcome; afterwards no connection is open, and the peak of memory is small."""
    made, expected = cases()[name]
    script = made()
    seconds = SECONDS if expected is FailureKind.TIMEOUT else PATIENCE
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        gc.collect()
        tracemalloc.start()
        try:
            async with asyncio.timeout(60):
                answer = await transport.send(request_to(listener.url, timeout_seconds=seconds))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert expected == kind_or_status(answer)
        assert MEMORY_BYTES > peak
        assert 1 == len(listener.requests), "the request was not sent exactly once"
        await wait_until_closed(listener.port, kept=len(transport._options.idle))
    assert isinstance(answer, Failure | Reply)
    assert classify(answer)


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize("beyond", range(-3, 3))
async def test_a_status_counts_wherever_its_head_is_cut(beyond: int) -> None:
    """An answer is parsed in slices: an invalid body does not undo the status, wherever the end of the head is cut."""
    begins, ends = HEAD + b"transfer-encoding: chunked\r\nx: ", b"\r\n\r\n"
    filled = b"y" * (SLICE_BYTES + beyond - len(begins) - len(ends))
    script = answers(begins + filled + ends + b"ZZ\r\n" * SLICE_BYTES)
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        assert 200 == kind_or_status(await transport.send(request_to(listener.url)))
        assert 1 == len(listener.requests)


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_receiver_that_does_not_read_times_out() -> None:
    """A connection whose receiver does not read the request is closed at the time-out.

    The system buffers more on loopback than on a network, so the body is large.
    """
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        port = deaf.getsockname()[1]
        async with HttpTransport(AddressRules(LOOPBACK)) as transport:
            request = request_to(f"http://127.0.0.1:{port}/", body=bytes(16 << 20), timeout_seconds=SECONDS)
            answer = await transport.send(request)

            assert Failure(kind=FailureKind.TIMEOUT, detail="no answer within 1 s") == answer
            await wait_until_closed(port)


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/",
        "//localhost:{port}",
    ],
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirects_target_is_not_dialled(location: str, code: int) -> None:
    """A redirect to loopback or to a metadata service is returned as a reply, and its target is not dialled."""
    async with listening(status(204)) as elsewhere:
        header = b"location: %b\r\n" % location.format(port=elsewhere.port).encode("ascii")
        script = status(code, headers=header)
        async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
            answer = await transport.send(request_to(listener.url))

    assert Reply(status=code, snippet="") == answer
    assert (1, 0) == (listener.connections, elsewhere.connections)


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        (b"gzip", compressed(31, 1)[:10] + b"", ""),
        (b"gzip", zlib.compress(b"hello", wbits=31), "hello"),
        (b"X-GZIP", zlib.compress(b"hello", wbits=31), "hello"),
        (b"deflate", zlib.compress(b"hello"), "hello"),
        (b"identity", b"hello", "hello"),
        (b"br", b"hello", ""),
        (b"gzip", zlib.compress(b"hello", wbits=31) + b"more", "hello"),
        (b"gzip", zlib.compress(b"x" * 4_000, wbits=31), "x" * 2_048),
    ],
)
async def test_compressed_answers_are_decompressed_to_the_limit(encoding: bytes, body: bytes, expected: str) -> None:
    """An answer in gzip or deflate is decompressed up to the size of the snippet; other encodings give an empty one."""
    script = status(500, body, b"content-encoding: %b\r\n" % encoding)
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answers = [await transport.send(request_to(listener.url)) for _ in range(2)]

    assert [Reply(status=500, snippet=expected)] * 2 == answers
    assert 1 == listener.connections


@pytest.mark.req("DEL-11", part="bounds")
async def test_a_healthy_receiver_is_not_delayed() -> None:
    scripts = {name: made() for name, (made, _) in cases().items()}
    ended = asyncio.Event()

    async def hostile(transport: HttpTransport, script: Script) -> None:
        async with listening(script) as listener:
            while not ended.is_set():
                await transport.send(request_to(listener.url, tenant="globex", timeout_seconds=SECONDS))

    async with listening(status(204)) as healthy, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        others = [asyncio.create_task(hostile(transport, script)) for script in scripts.values()]
        answers = [await transport.send(request_to(healthy.url)) for _ in range(40)]
        ended.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*others)

    assert [Reply(status=204, snippet="")] * 40 == answers
    assert 1 == healthy.connections


@contextmanager
def limited(soft: int) -> Iterator[None]:
    """Limit the number of files that this process may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def only_reserved() -> Iterator[None]:
    """Leave only the reserved descriptors, and none for a request.

    Garbage collection, which could free one that a request may take, is disabled meanwhile.
    """
    gc.disable()
    free = os.dup(0)
    os.close(free)
    try:
        with limited(2 * free):
            yield
    finally:
        gc.enable()


@contextmanager
def none_left() -> Iterator[None]:
    """Leave no descriptor, also if one is closed meanwhile.

    Garbage of another test may close one, or a thread that outlives its test, as those of gRPC do.
    """
    closed = os.dup(0)
    with limited(0):
        os.close(closed)
        yield


@pytest.fixture
def progress() -> Iterator[Progress]:
    """Yield the progress of a request that may begin."""
    clock = SystemClock()
    progress = Progress(tenant=TenantId("acme"), begin_by=clock.monotonic() + 60, clock=clock)
    before = PROGRESS.set(progress)
    yield progress
    PROGRESS.reset(before)


@pytest.mark.req("DEL-12")
def test_the_guard_checks_the_address_again(progress: Progress) -> None:
    with pytest.raises(ForbiddenAddressError):
        Guard(frozenset()).socket(HERE)
    assert not progress.begun
    Guard(frozenset({ip_network("127.0.0.0/8")})).socket(HERE).close()
    assert progress.begun


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_request_takes_no_reserved_descriptor(host: str) -> None:
    """A request never takes a reserved descriptor: it is not begun, and is sent once another one is free."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK), limits=UNHURRIED) as sending:
        request = request_to(f"http://{host}:{listener.port}/", timeout_seconds=PATIENCE)
        with only_reserved():
            assert LACKING == await sending.send(request)
        assert 0 == listener.connections
        assert OK == await sending.send(request)


@pytest.mark.req("DEL-06")
async def test_a_kept_connection_frees_its_descriptor() -> None:
    async with (
        listening(status(204)) as listener,
        listening(status(204)) as other,
        HttpTransport(AddressRules(LOOPBACK)) as sending,
    ):
        assert OK == await sending.send(request_to(other.url))
        [kept] = sending._options.idle._all
        with only_reserved():
            assert OK == await sending.send(request_to(listener.url))
            assert OK == await sending.send(request_to(listener.url))
        assert kept not in sending._options.idle._all
        await wait_until_closed(other.port)

    assert (1, 1) == (listener.connections, other.connections)


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "unknown.invalid"])
async def test_a_missing_descriptor_is_no_failure_of_the_receiver(host: str) -> None:
    """Without a descriptor, neither an address nor a name is reported as failed: the request is not begun."""
    async with HttpTransport(AddressRules(LOOPBACK), limits=UNHURRIED) as sending:
        with none_left():
            assert LACKING == await sending.send(request_to(f"http://{host}:9/", timeout_seconds=PATIENCE))


@pytest.mark.req("DEL-06")
async def test_a_missing_descriptor_is_no_failure_of_the_proxy() -> None:
    proxy = EgressProxy(host="127.0.0.1", port=9)
    async with HttpTransport(AddressRules(LOOPBACK), proxy=proxy) as sending:
        with only_reserved():
            assert LACKING == await sending.send(request_to("http://127.0.0.1:9/"))


@pytest.mark.req("DEL-06")
async def test_without_a_descriptor_the_next_address_is_not_tried() -> None:
    asked = 0

    def few() -> int:
        nonlocal asked
        asked += 1
        return 0 if asked > 1 else 1_000_000

    async with transport(AddressRules(LOOPBACK), lambda _host: ("127.0.0.1", "127.0.0.2")) as sending:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(egress_guard, "_usable_descriptors", few)
            assert LACKING == await sending.send(request_to("http://two.example:9/"))
        found = await sending.send(request_to("http://two.example:9/"))

    assert isinstance(found, Failure)
    assert FailureKind.CONNECTION is found.kind
    assert 2 == asked


async def test_a_missing_thread_is_no_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started for a look-up, the request is not begun: the name is not reported as unknown."""

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with transport(AddressRules(LOOPBACK), lambda _host: ("127.0.0.1",)) as sending:
        monkeypatch.setattr(threading.Thread, "start", refused)
        assert NotBegun(missing_resource="ENOMEM") == await sending.send(request_to("http://some.example:9/"))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_only_codes_of_exhaustion_mean_a_lack_of_resources(code: int) -> None:
    """These codes mean that this machine lacks a resource; errors of a connection or of a name do not."""
    assert errno.errorcode[code] == exhausted_resource(OSError(code, ""))
    others = [OSError(), ConnectionRefusedError(errno.ECONNREFUSED, ""), ValueError(), socket.gaierror(-2, "")]
    assert [None] * 4 == [exhausted_resource(error) for error in others]


def test_exhaustion_is_reported_without_a_descriptor(progress: Progress) -> None:
    """`exhaustion_error` reports EMFILE if no descriptor is left, and nothing otherwise; `begun_socket` raises then."""
    assert exhaustion_error() is None
    with none_left():
        found = exhaustion_error()
        with pytest.raises(OSError, match="open files"):
            begun_socket(HERE)
    assert found is not None
    assert (errno.EMFILE, "EMFILE") == (found.errno, progress.missing_resource)
