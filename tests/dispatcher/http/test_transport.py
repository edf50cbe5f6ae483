"""The transport on real sockets: what it sends, what it refuses to dial, and how much it reads."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Reply, Request
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http.exchange import RESPONSE_BYTES_READ, SNIPPET_BYTES
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.cli.listeners import closed_port
from tests.doubles.clock import StallingClock
from tests.doubles.egress_proxy import proxying
from tests.doubles.receivers import Listener, Script, answers, endless, listening, stalls_after, status

LOOPBACK = (AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),)
ACME_ONLY = (AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=TenantId("acme")),)


def request_to(
    url: str,
    *,
    tenant: str = "acme",
    body: bytes = b'{"a": 1}',
    start_by: float | None = None,
    timeout_seconds: float = 5,
) -> Request:
    """Return a request to this URL. By default it may begin within 20 seconds, enough even on a busy machine."""
    headers = {"webhook-id": "d1", "content-type": "application/json", "user-agent": "hookseal/test"}
    return Request(
        tenant_id=TenantId(tenant),
        url=url,
        headers=headers,
        body=body,
        start_by=SystemClock().monotonic() + 20 if start_by is None else start_by,
        timeout_seconds=timeout_seconds,
    )


async def sent(script: Script, request_body: bytes = b'{"a": 1}', *, seconds: float = 1.0) -> tuple[Answer, Listener]:
    """Send one request to a receiver with this script."""
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        return await transport.send(request_to(listener.url, body=request_body, timeout_seconds=seconds)), listener


@pytest.mark.req("DEL-03")
async def test_a_request_is_sent_unchanged() -> None:
    """The receiver gets one POST with our headers and the unchanged bytes of the body, without cookie or encoding."""
    body = b'{"z": 1,  "a": "\xc3\xab"}\x00\xff'
    _, listener = await sent(status(204), body)
    [raw] = listener.requests
    head, _, arrived = raw.partition(b"\r\n\r\n")

    assert body == arrived
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert {b"host", b"webhook-id", b"content-type", b"user-agent", b"content-length"} <= names
    assert not names & {b"cookie", b"authorization", b"content-encoding", b"transfer-encoding"}


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost."]
)
async def test_loopback_is_not_dialled(host: str) -> None:
    """Loopback in any spelling is a forbidden address or an invalid host, and no connection is made."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules()) as transport:
        answer = await transport.send(request_to(f"http://{host}:{listener.port}/"))

    assert isinstance(answer, Failure)
    assert answer.kind in {FailureKind.FORBIDDEN_ADDRESS, FailureKind.INVALID_URL, FailureKind.DNS}
    assert 0 == listener.connections


@pytest.mark.req("DEL-12")
async def test_literal_and_name_fail_alike() -> None:
    """A literal, which no resolver sees, and a name both fail as a forbidden address; the detail has the reason."""
    async with HttpTransport(AddressRules()) as transport:
        literal = await transport.send(request_to("http://127.0.0.1:9/"))
        name = await transport.send(request_to("http://localhost:9/"))

    assert (
        Failure(kind=FailureKind.FORBIDDEN_ADDRESS, detail="the address may not be dialled (loopback, RFC 1122)")
        == literal
    )
    assert isinstance(name, Failure)
    assert FailureKind.FORBIDDEN_ADDRESS is name.kind


@pytest.mark.req("DEL-12")
async def test_kept_connections_are_not_shared_between_tenants() -> None:
    """A tenant without the permission cannot use the kept connection of a tenant that may dial the address."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(ACME_ONLY)) as transport:
        allowed = await transport.send(request_to(listener.url, tenant="acme"))
        refused = await transport.send(request_to(listener.url, tenant="globex"))

    assert Reply(status=204, snippet="") == allowed
    assert isinstance(refused, Failure)
    assert FailureKind.FORBIDDEN_ADDRESS is refused.kind
    assert 1 == len(listener.requests)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_late_request_is_not_dialled_or_written(kept: bool) -> None:
    """After its time to begin, a request is neither dialled nor written on a kept connection."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        if kept:
            await transport.send(request_to(listener.url))
        late = await transport.send(request_to(listener.url, start_by=SystemClock().monotonic()))

    assert NotBegun() == late
    assert int(kept) == len(listener.requests) == listener.connections


async def test_resolving_counts_against_the_time_to_begin() -> None:
    """The time for resolving counts: after the time to begin, nothing is dialled."""
    async with (
        listening(status(204)) as listener,
        HttpTransport(AddressRules(LOOPBACK), clock=StallingClock()) as transport,
    ):
        late = await transport.send(request_to(listener.url.replace("127.0.0.1", "localhost"), start_by=2))

    assert NotBegun() == late
    assert 0 == listener.connections


@pytest.mark.req("DUR-07")
async def test_a_blocked_loop_counts_against_the_time_to_begin() -> None:
    """The time in which the event loop was blocked counts, although the loop does not notice it: nothing is dialled."""
    async with (
        listening(status(204)) as listener,
        HttpTransport(AddressRules(LOOPBACK), clock=StallingClock()) as transport,
    ):
        assert NotBegun() == await transport.send(request_to(listener.url, start_by=2))

    assert 0 == listener.connections


@pytest.mark.req("DEL-11", part="reuse")
async def test_nothing_is_written_too_late_on_a_kept_connection() -> None:
    """After its time to begin, a request is not written on a kept connection either; the connection stays usable."""
    clock, answers = StallingClock(stalls=False), []
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK), clock=clock) as transport:
        for clock.stalls in (False, True, False):
            answers.append(await transport.send(request_to(listener.url, start_by=clock.elapsed + 2)))

    assert [Reply(status=204, snippet=""), NotBegun(), Reply(status=204, snippet="")] == answers
    assert (1, 2) == (listener.connections, len(listener.requests))


async def test_a_proxy_is_not_dialled_too_late() -> None:
    """After its time to begin, a request does not dial the proxy either."""
    async with (
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(), clock=StallingClock()) as transport,
    ):
        late = await transport.send(request_to("http://localhost/", start_by=2))

    assert NotBegun() == late
    assert [] == proxy.heads


async def test_successive_requests_share_a_connection() -> None:
    """Two successive requests share a connection."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for _ in range(2):
            await transport.send(request_to(listener.url))

    assert (1, 2) == (listener.connections, len(listener.requests))


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(code: int) -> None:
    """A redirect is returned as a reply; its target is not dialled."""
    async with listening(status(204)) as elsewhere:
        location = b"location: http://127.0.0.1:%d/\r\n" % elsewhere.port
        answer, _ = await sent(status(code, headers=location))

    assert Reply(status=code, snippet="") == answer
    assert 0 == elsewhere.connections


async def test_an_endless_body_is_read_to_the_limit() -> None:
    """An endless body is read up to the limit, then the connection is closed; 2 KiB are kept."""
    answer, _ = await sent(endless())

    assert isinstance(answer, Reply)
    assert (200, SNIPPET_BYTES) == (answer.status, len(answer.snippet))


async def test_a_stalled_body_keeps_its_status() -> None:
    """A status counts once its headers have arrived, even if the body stalls.

    The time-out of the request ends the attempt, although a body alone might take longer.
    """
    stalling = stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    patient = HttpTransport(AddressRules(LOOPBACK), limits=Limits(body_seconds=30))
    async with listening(stalling) as listener, patient as transport, asyncio.timeout(2.5):
        answer = await transport.send(request_to(listener.url, timeout_seconds=1))

    assert Reply(status=200, snippet="abc") == answer


async def test_stalled_headers_time_out() -> None:
    """Headers that never end are a time-out."""
    answer, _ = await sent(stalls_after(b"HTTP/1.1 200 OK\r\nx: "))

    assert Failure(kind=FailureKind.TIMEOUT, detail="no answer within 1 s") == answer


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"SSH-2.0-x\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_protocol_failure(raw: bytes) -> None:
    """An answer that is not HTTP is a protocol failure, and its text is not repeated."""
    answer, _ = await sent(answers(raw))

    assert isinstance(answer, Failure)
    assert FailureKind.PROTOCOL is answer.kind
    assert "nonsense" not in answer.detail


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"", ()),
        (b"retry-after: 120\r\n", ("120",)),
        (b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", ("Wed, 21 Oct 2015 07:28:00 GMT",)),
        (b"retry-after: soon\r\nx: y\r\nRETRY-AFTER: 60\r\n", ("soon", "60")),
        (b"".join(b"retry-after: %d\r\n" % seconds for seconds in range(9)), ("0", "1", "2", "3")),
        (b"retry-after: " + b"1" * 64 + b"\r\n", ("1" * 64,)),
        (b"retry-after: " + b"1" * 65 + b"\r\nretry-after: 60\r\n", ("60",)),
        (b"retry-after: \xff\r\n", ("\udcff",)),
    ],
)
async def test_retry_after_is_returned_unchanged(headers: bytes, expected: tuple[str, ...]) -> None:
    """Values of `Retry-After` are returned unchanged: at most four, each of at most 64 characters."""
    answer, _ = await sent(status(503, b"later", headers))

    assert Reply(status=503, snippet="later", retry_after=expected) == answer


@pytest.mark.parametrize("raw", [b"a\x00b\xff", "\U0001f680".encode() * 600, b"\xe2\x82" * 2000, b"\x00" * 5000])
async def test_snippets_fit_the_table(raw: bytes) -> None:
    """A snippet is text that PostgreSQL accepts, of at most 2 KiB in UTF-8, whatever the receiver sent."""
    answer, _ = await sent(status(200, raw))

    assert isinstance(answer, Reply)
    assert "\x00" not in answer.snippet
    assert SNIPPET_BYTES >= len(answer.snippet.encode())


@pytest.mark.parametrize("path", ["/a/../b?y=%zz", "/%41", "/a%2Fb?x=1+2"])
async def test_the_path_is_sent_as_it_is_stored(path: str) -> None:
    """A path is sent unchanged, neither normalised nor decoded nor encoded: a receiver may route by it or sign it."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        await transport.send(request_to(f"http://127.0.0.1:{listener.port}{path}"))

    assert listener.requests[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())


async def test_refused_connection_and_unknown_name_differ() -> None:
    """A refused connection and an unknown name are failures of two different kinds."""
    async with HttpTransport(AddressRules(LOOPBACK)) as transport:
        refused = await transport.send(request_to(f"http://127.0.0.1:{closed_port()}/"))
        unknown = await transport.send(request_to("http://no-such-name.invalid/"))

    assert isinstance(refused, Failure)
    assert isinstance(unknown, Failure)
    assert (FailureKind.CONNECTION, FailureKind.DNS) == (refused.kind, unknown.kind)


async def test_a_body_below_the_limit_keeps_the_connection() -> None:
    """After a body just below the limit, the connection is used again."""
    async with listening(status(200, b"x" * (RESPONSE_BYTES_READ - 1))) as listener:
        async with HttpTransport(AddressRules(LOOPBACK)) as transport:
            for _ in range(2):
                assert isinstance(await transport.send(request_to(listener.url)), Reply)

        assert 1 == listener.connections


class _Watching(asyncio.SelectorEventLoop):
    """An event loop that records the delay of each scheduled call."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[float] = []

    def call_at(self, when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.ahead.append(when - self.time())
        return super().call_at(when, *args, **options)


@pytest.mark.req("DEL-11", part="bounds")
def test_a_deadline_is_not_rounded_up() -> None:
    """A time-out of five seconds ends after five seconds, not at the next whole second of the clock."""
    with asyncio.Runner(loop_factory=_Watching) as runner:
        answer, _ = runner.run(sent(status(204), seconds=5.0))
        loop = runner.get_loop()
        assert isinstance(loop, _Watching)

    assert Reply(status=204, snippet="") == answer
    assert [] == [ahead for ahead in loop.ahead if 5.0 < ahead < 6.5]
    assert [ahead for ahead in loop.ahead if 4.5 < ahead <= 5.0]
