"""Without a free file descriptor on this machine, a request is not begun, and no attempt is spent."""

import errno
import gc
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network

import pytest

from hookseal.dispatcher.core.model import Failure, FailureKind, NotBegun, Reply
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http import egress_guard
from hookseal.dispatcher.http.egress_guard import ForbiddenAddressError, Guard, begun_socket, exhaustion_error
from hookseal.dispatcher.http.request_progress import PROGRESS, Progress
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import exhausted_resource
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.dispatcher.http.test_resolver import transport
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.dispatcher.http.test_transport_receivers import wait_until_closed
from tests.doubles.receivers import listening, status

LACKING = NotBegun(missing_resource="EMFILE")
OK = Reply(status=204, snippet="")
HERE = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 9))


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
    """Leave only the reserved descriptors, and none for a request."""
    free = os.dup(0)
    os.close(free)
    with limited(2 * free):
        yield


@contextmanager
def none_left() -> Iterator[None]:
    """Leave no descriptor. Garbage collection, which could free one, is disabled meanwhile."""
    gc.collect()
    gc.disable()
    taken = [os.dup(0)]
    with limited(taken[0] + 16):
        with suppress(OSError):  # some numbers above it may be in use already
            while True:
                taken.append(os.dup(0))
        try:
            yield
        finally:
            for each in taken:
                os.close(each)
            gc.enable()


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
    """The guard checks the address again when it creates the socket, whatever was checked before."""
    with pytest.raises(ForbiddenAddressError):
        Guard(frozenset()).socket(HERE)
    assert not progress.begun
    Guard(frozenset({ip_network("127.0.0.0/8")})).socket(HERE).close()
    assert progress.begun


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_request_takes_no_reserved_descriptor(host: str) -> None:
    """A request never takes a reserved descriptor: it is not begun, and is sent once another one is free."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as sending:
        request = request_to(f"http://{host}:{listener.port}/")
        with only_reserved():
            assert LACKING == await sending.send(request)
        assert 0 == listener.connections
        assert OK == await sending.send(request)


@pytest.mark.req("DEL-06")
async def test_a_kept_connection_frees_its_descriptor() -> None:
    """If a request lacks a descriptor, an idle kept connection is closed to free one."""
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
    async with HttpTransport(AddressRules(LOOPBACK)) as sending:
        with none_left():
            assert LACKING == await sending.send(request_to(f"http://{host}:9/"))


@pytest.mark.req("DEL-06")
async def test_a_missing_descriptor_is_no_failure_of_the_proxy() -> None:
    """If no descriptor is left to dial the proxy, this is not reported as a failure of the proxy."""
    proxy = EgressProxy(host="127.0.0.1", port=9)
    async with HttpTransport(AddressRules(LOOPBACK), proxy=proxy) as sending:
        with only_reserved():
            assert LACKING == await sending.send(request_to("http://127.0.0.1:9/"))


@pytest.mark.req("DEL-06")
async def test_without_a_descriptor_the_next_address_is_not_tried() -> None:
    """If one address refuses and no descriptor is left for the next one, the request is not begun."""
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
