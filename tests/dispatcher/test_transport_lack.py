"""This machine has no file descriptor left: a request does not begin, and nothing is spent."""

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

from hookseal.dispatcher import guard
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.course import COURSE, Course
from hookseal.dispatcher.guard import ForbiddenAddressError, Guard, begun_socket, lacking
from hookseal.dispatcher.model import Failure, FailureKind, NotBegun, Reply
from hookseal.dispatcher.transport import HttpTransport
from hookseal.dispatcher.tunnel import EgressProxy
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from hookseal.ground.lack import lack
from tests.dispatcher.test_transport import LOOPBACK, request_to
from tests.dispatcher.test_transport_names import transport
from tests.dispatcher.test_transport_receivers import let_go
from tests.doubles.receivers import listening, status

LACKING = NotBegun(lack="EMFILE")
OK = Reply(status=204, snippet="")
HERE = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 9))


@contextmanager
def limited(soft: int) -> Iterator[None]:
    """Let this process open so many files only."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def only_reserved() -> Iterator[None]:
    """Leave as many descriptors as are reserved, and none for a request."""
    free = os.dup(0)
    os.close(free)
    with limited(2 * free):
        yield


@contextmanager
def none_left() -> Iterator[None]:
    """Leave no descriptor at all. No garbage may give one back meanwhile."""
    gc.collect()
    gc.disable()
    taken = [os.dup(0)]
    with limited(taken[0] + 16):
        with suppress(OSError):  # others may have some of those above it already
            while True:
                taken.append(os.dup(0))
        try:
            yield
        finally:
            for each in taken:
                os.close(each)
            gc.enable()


@pytest.fixture
def course() -> Iterator[Course]:
    """A request that may begin."""
    clock = SystemClock()
    course = Course(tenant=TenantId("acme"), begin_by=clock.monotonic() + 60, clock=clock)
    before = COURSE.set(course)
    yield course
    COURSE.reset(before)


@pytest.mark.req("DEL-12")
def test_the_guard_itself_refuses(course: Course) -> None:
    """Where a socket is made the address is looked at once more, whatever was looked at before."""
    with pytest.raises(ForbiddenAddressError):
        Guard(frozenset()).socket(HERE)
    assert not course.begun
    Guard(frozenset({ip_network("127.0.0.0/8")})).socket(HERE).close()
    assert course.begun


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_only_reserved_ones_are_left(host: str) -> None:
    """A request takes no descriptor that is reserved: it is not begun, and sent once there is another."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as sending:
        request = request_to(f"http://{host}:{listener.port}/")
        with only_reserved():
            assert LACKING == await sending.send(request)
        assert 0 == listener.connections
        assert OK == await sending.send(request)


@pytest.mark.req("DEL-06")
async def test_a_kept_connection_gives_way() -> None:
    """A connection that waits for a next request has no descriptor that another request lacks."""
    async with (
        listening(status(204)) as listener,
        listening(status(204)) as other,
        HttpTransport(AddressRules(LOOPBACK)) as sending,
    ):
        assert OK == await sending.send(request_to(other.url))
        [kept] = sending._means.kept._all
        with only_reserved():
            assert OK == await sending.send(request_to(listener.url))
            assert OK == await sending.send(request_to(listener.url))
        assert kept not in sending._means.kept._all
        await let_go(other.port)

    assert (1, 1) == (listener.connections, other.connections)


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "unknown.invalid"])
async def test_none_is_left(host: str) -> None:
    """Without a descriptor neither an address is judged nor a name known: the request is not begun."""
    async with HttpTransport(AddressRules(LOOPBACK)) as sending:
        with none_left():
            assert LACKING == await sending.send(request_to(f"http://{host}:9/"))


@pytest.mark.req("DEL-06")
async def test_the_way_to_a_proxy() -> None:
    """A proxy that cannot be dialled for want of a descriptor has not failed."""
    proxy = EgressProxy(host="127.0.0.1", port=9)
    async with HttpTransport(AddressRules(LOOPBACK), proxy=proxy) as sending:
        with only_reserved():
            assert LACKING == await sending.send(request_to("http://127.0.0.1:9/"))


@pytest.mark.req("DEL-06")
async def test_one_address_of_several() -> None:
    """If one address of a name refuses and there is no descriptor for the next one, the request has not begun."""
    asked = 0

    def few() -> int:
        nonlocal asked
        asked += 1
        return 0 if asked > 1 else 1_000_000

    async with transport(AddressRules(LOOPBACK), lambda _host: ("127.0.0.1", "127.0.0.2")) as sending:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(guard, "_descriptors", few)
            assert LACKING == await sending.send(request_to("http://two.example:9/"))
        found = await sending.send(request_to("http://two.example:9/"))

    assert isinstance(found, Failure)
    assert FailureKind.CONNECTION is found.kind
    assert 2 == asked


async def test_no_thread_for_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name for which the system gives no thread is not one that is unknown."""

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with transport(AddressRules(LOOPBACK), lambda _host: ("127.0.0.1",)) as sending:
        monkeypatch.setattr(threading.Thread, "start", refused)
        assert NotBegun(lack="ENOMEM") == await sending.send(request_to("http://some.example:9/"))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_what_is_ours(code: int) -> None:
    """These codes say that this machine lacks something; those of a connection, and of names, do not."""
    assert errno.errorcode[code] == lack(OSError(code, ""))
    others = [OSError(), ConnectionRefusedError(errno.ECONNREFUSED, ""), ValueError(), socket.gaierror(-2, "")]
    assert [None] * 4 == [lack(error) for error in others]


def test_whether_one_is_left(course: Course) -> None:
    """It is asked for by making a socket; without a limit all of them are for requests."""
    assert lacking() is None
    with none_left():
        found = lacking()
        with pytest.raises(OSError, match="open files"):
            begun_socket(HERE)
    assert found is not None
    assert (errno.EMFILE, "EMFILE") == (found.errno, course.lack)
