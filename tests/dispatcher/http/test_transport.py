"""The transport: a request as it is sent, and the answer as it is read."""

import ast
import asyncio
import inspect
import re
import ssl
import tomllib
import zlib
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import HttpProcessingError, RawResponseMessage
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from hookseal.dispatcher.core import endpoint_rules, prepare
from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Reply, Request, TlsIdentity
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork, Networks, url_problem
from hookseal.dispatcher.http import connection, dial, egress_guard, exchange, trust
from hookseal.dispatcher.http import sessions as rules
from hookseal.dispatcher.http.exchange import MOMENT_SECONDS, RESPONSE_BYTES_READ, SNIPPET_BYTES, Deadlines
from hookseal.dispatcher.http.observation import Limits
from hookseal.dispatcher.http.sessions import Sessions
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.errors import Defect
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras import tls_context
from hookseal.worker import health, ring_handler
from tests.cli.listeners import closed_port
from tests.doubles.clock import StallingClock
from tests.doubles.egress_proxy import proxying
from tests.doubles.receivers import Listener, Script, answers, hang, listening, reset, stalls_after, status
from tests.doubles.replaced import replace
from tests.doubles.transport import ScriptedTransport
from tests.worker.waiting import eventually

LOOPBACK = (AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),)
ACME_ONLY = (AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=TenantId("acme")),)
TOKEN = "kQ7-canary-4f1d-Zr2"
OWN = {"authorization": f"Bearer {TOKEN}".encode(), "x-short": b"k9Qx7"}
SAID = f"you sent: Bearer {TOKEN} and k9Qx7, which nobody knows"
ENDINGS = [
    "\r\nx-admin: 1",
    "\n",
    "\r",
    "\x00",
    "\r\n\r\nPOST / HTTP/1.1",
    "\N{LATIN SMALL LETTER C WITH CARON}\n",
    "\x7f",
]
NOBODY = client_context(only=True)  # reading the certificates of the system is slow
PATHS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30).filter(
    lambda path: not path.endswith("?") or path.count("?") > 1  # an empty query is not sent
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30)
CASES: list[tuple[Answer, Script]] = [
    (Reply(status=204, snippet=""), status(204)),
    (Reply(status=200, snippet="thanks"), status(200, b"thanks")),
    (Reply(status=302, snippet=""), status(302, headers=b"location: /elsewhere\r\n")),
    (Reply(status=503, snippet="later"), status(503, b"later")),
    (Reply(status=429, snippet="", retry_after=("120",)), status(429, headers=b"retry-after: 120\r\n")),
    (Failure(kind=FailureKind.TIMEOUT, detail="no answer within 0.3 s"), hang),
    (Failure(kind=FailureKind.CONNECTION, detail="the connection failed (ServerDisconnectedError)"), reset),
]
PAGE = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "docs" / "transport.md").read_text(encoding="utf-8"))
NOWHERE: Networks = frozenset()
_LOOPBACK_ONLY: Networks = frozenset({ip_network("127.0.0.0/8")})
ROOT = Path(__file__).parents[3]
# For each class of ours: its base class, and each private name of it that we call, read or override.
PRIVATE: dict[str, tuple[Any, type, set[str]]] = {
    # `_create_connection` is what `BaseConnector.connect` calls for a new connection; we override it.
    "Connector": (dial, aiohttp.BaseConnector, {"_create_connection", "_loop"}),
    # `_reading_paused` says whether aiohttp waits until its reader has caught up.
    "HttpConnection": (connection, ResponseHandler, {"_reading_paused"}),
}
# Public names of undocumented classes of aiohttp that we call or override.
UNDOCUMENTED: dict[type, set[str]] = {
    ResponseHandler: {
        *("abort", "close", "closed", "connection_lost", "data_received", "exception", "feed_data", "force_close"),
        *("is_connected", "read", "set_response_params", "should_close", "transport"),
    },
    HttpProcessingError: {"message"},
    RawResponseMessage: {"code", "headers"},
    aiohttp.StreamReader: {"at_eof", "iter_any", "total_bytes"},
}
PARAMETERS: dict[str, tuple[Any, list[str]]] = {
    "BaseConnector.connect": (aiohttp.BaseConnector.connect, ["self", "req", "traces", "timeout"]),
    "BaseConnector._create_connection": (
        aiohttp.BaseConnector._create_connection,
        ["self", "req", "traces", "timeout"],
    ),
    "ResponseHandler.feed_data": (ResponseHandler.feed_data, ["self", "data", "size"]),
}


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
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        if kept:
            await transport.send(request_to(listener.url))
        late = await transport.send(request_to(listener.url, start_by=SystemClock().monotonic()))

    assert NotBegun() == late
    assert int(kept) == len(listener.requests) == listener.connections


async def test_resolving_counts_against_the_time_to_begin() -> None:
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
    async with (
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(), clock=StallingClock()) as transport,
    ):
        late = await transport.send(request_to("http://localhost/", start_by=2))

    assert NotBegun() == late
    assert [] == proxy.heads


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
    answer, _ = await sent(stalls_after(b"HTTP/1.1 200 OK\r\nx: "))

    assert Failure(kind=FailureKind.TIMEOUT, detail="no answer within 1 s") == answer


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"SSH-2.0-x\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_protocol_failure(raw: bytes) -> None:
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
    async with HttpTransport(AddressRules(LOOPBACK)) as transport:
        refused = await transport.send(request_to(f"http://127.0.0.1:{closed_port()}/"))
        unknown = await transport.send(request_to("http://no-such-name.invalid/"))

    assert isinstance(refused, Failure)
    assert isinstance(unknown, Failure)
    assert (FailureKind.CONNECTION, FailureKind.DNS) == (refused.kind, unknown.kind)


async def test_a_body_below_the_limit_keeps_the_connection() -> None:
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


@pytest.mark.req("SEC-15")
async def test_an_echo_is_masked() -> None:
    """A repeated header value is masked in the snippet, also where the snippet ends in the middle of it."""
    fillers = [0, *range(SNIPPET_BYTES - len(SAID), SNIPPET_BYTES + 1)]
    bodies = iter([b"." * filler + SAID.encode() for filler in fillers])

    async def repeat(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = next(bodies)
        writer.write(b"HTTP/1.1 500 no\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    sealed = {name: SecretMaterial(value) for name, value in OWN.items()}
    snippets = []
    async with listening(repeat) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for _ in fillers:
            answer = await transport.send(replace(request_to(listener.url), sealed_headers=sealed))
            assert isinstance(answer, Reply)
            snippets.append(answer.snippet)

    assert "you sent: [masked] and [masked], which nobody knows" == snippets[0]
    assert SNIPPET_BYTES >= max(map(len, snippets))
    runs = [TOKEN[start : start + 4] for start in range(len(TOKEN) - 3)]
    assert [] == [run for run in (*runs, "Bearer", "k9Qx") for snippet in snippets if run in snippet]
    assert all(raw.count(TOKEN.encode()) == 1 for raw in listener.requests)


@pytest.mark.req("SEC-15")
async def test_a_secret_on_an_error_page_is_masked() -> None:
    """A signing secret or a password in a URL on a receiver's error page is masked for every endpoint."""
    page = b"WEBHOOK_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw DATABASE_URL=postgresql://u:hunter2@db/app"

    async def show(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 no\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))

    async with listening(show) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(request_to(listener.url))

    assert isinstance(answer, Reply)
    assert "WEBHOOK_SECRET=[masked] DATABASE_URL=postgresql://[masked]@db/app" == answer.snippet


@pytest.mark.req("SEC-15")
async def test_an_answer_without_own_headers_is_kept() -> None:
    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 yes\r\ncontent-length: %d\r\n\r\n%b" % (len(SAID), SAID.encode()))

    async with listening(say) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(request_to(listener.url))

    assert isinstance(answer, Reply)
    assert SAID == answer.snippet


@pytest.mark.req("SEC-15")
@pytest.mark.parametrize("window", [31, 15])
async def test_a_compressed_echo_is_masked(window: int) -> None:
    """A header value that is repeated in a compressed answer is masked, too."""
    body = zlib.compress(SAID.encode(), wbits=window)
    encoding = b"content-encoding: %b\r\n" % (b"gzip" if window > 15 else b"deflate")
    sealed = {name: SecretMaterial(value) for name, value in OWN.items()}
    async with listening(status(500, body, encoding)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(replace(request_to(listener.url), sealed_headers=sealed))

    assert Reply(status=500, snippet="you sent: [masked] and [masked], which nobody knows") == answer


@pytest.mark.req("DEL-13", part="injection")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("header", ["{}", "x-name{}"])
async def test_a_line_break_in_a_header_is_a_defect(header: str, ending: str) -> None:
    """A line break in one of our headers is a `Defect` that does not repeat the value, and nothing is dialled."""
    own = {header.format(ending): "v"} if "name" in header else {"x-correlation-id": f"canary{ending}"}
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        request = request_to(listener.url)
        with pytest.raises(Defect) as caught:
            await transport.send(replace(request, headers={**request.headers, **own}))

    assert 0 == listener.connections
    assert "canary" not in str(caught.value)


@pytest.mark.req("DEL-13", part="injection")
@pytest.mark.parametrize("ending", [*ENDINGS, " HTTP/1.1\r\nx: y", "\u0100", " "])
async def test_a_line_break_in_a_url_is_refused(ending: str) -> None:
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for url in (f"{listener.url}{ending}", f"http://127.0.0.1:{listener.port}{ending}/"):
            answer = await transport.send(request_to(url))
            assert isinstance(answer, Failure)
            assert FailureKind.INVALID_URL is answer.kind
            assert url_problem(url, allow_http=True)

    assert 0 == listener.connections


@pytest.mark.req("DEL-13", part="injection")
@given(path=PATHS, value=VALUES, body=st.binary(max_size=50))
async def test_exactly_one_request_arrives_or_none(path: str, value: str, body: bytes) -> None:
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK), trust=NOBODY) as transport:
        request = request_to(f"http://127.0.0.1:{listener.port}/{path}", body=body)
        try:
            answer = await transport.send(replace(request, headers={**request.headers, "x-value": value}))
        except Defect:
            assert any(not (0x20 <= ord(character) < 0x7F or ord(character) >= 0x80) for character in value)
            assert 0 == listener.connections
            return

    assert Reply(status=204, snippet="") == answer
    [raw] = listener.requests
    head, _, arrived = raw.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    assert f"POST /{path} HTTP/1.1".encode("ascii") == first
    assert body == arrived
    assert {b"host", b"webhook-id", b"content-type", b"user-agent", b"x-value", b"accept", b"content-length"} == {
        line.partition(b":")[0].lower() for line in rest
    } - {b"accept-encoding"}
    assert len(rest) == len({line.partition(b":")[0].lower() for line in rest})


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize("kind", ["scripted", "http"])
@pytest.mark.parametrize(("answer", "script"), CASES)
async def test_an_answer_is_a_value(kind: str, answer: Answer, script: Script) -> None:
    """Whatever the receiver does, `send` returns it as a value and raises nothing."""
    async with listening(script) as listener:
        request = request_to(listener.url, timeout_seconds=0.3)
        if kind == "scripted":
            found = await ScriptedTransport(answer).send(request)
        else:
            async with HttpTransport(AddressRules(LOOPBACK)) as transport:
                found = await transport.send(request)
    if isinstance(answer, Failure) and answer.kind is FailureKind.CONNECTION:
        assert isinstance(found, Failure)
        assert answer.kind is found.kind
    else:
        assert answer == found


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize("kind", ["scripted", "http"])
async def test_a_request_is_not_changed(kind: str) -> None:
    """Neither its headers, nor the endpoint's own, nor anything else of it."""
    own = {"x-api-key": b"k", "x-inside": b"a b"}
    async with listening(status(204)) as listener:
        request = replace(request_to(listener.url), sealed_headers=sealed(own))
        before = replace(request, headers=dict(request.headers), sealed_headers=sealed(own))
        if kind == "scripted":
            await ScriptedTransport(Reply(status=204, snippet="")).send(request)
        else:
            async with HttpTransport(AddressRules(LOOPBACK)) as transport:
                await transport.send(request)

    assert before == request


def sealed(headers: Mapping[str, bytes]) -> dict[str, SecretMaterial]:
    """Return the endpoint's own headers in the form that a request has them."""
    return {name: SecretMaterial(value) for name, value in headers.items()}


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize("kind", ["scripted", "http"])
@pytest.mark.parametrize(
    "own", [{"webhook-id": b"v"}, {"X-Api-Key": b"v"}, {"x-api-key": b"v\r\nx-admin: 1"}, {"x-api-key": b"v\x00"}]
)
async def test_a_forbidden_header_is_a_defect(kind: str, own: dict[str, bytes]) -> None:
    scripted = ScriptedTransport()
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as http:
        request = replace(request_to(listener.url), sealed_headers=sealed(own))
        with pytest.raises(Defect):
            await (scripted if kind == "scripted" else http).send(request)

    assert ([], 0) == (scripted.sent, listener.connections)


def test_the_page_states_every_limit() -> None:
    limits = Limits()
    shared = limits.look_ups // 2
    sentences = [
        f"or the first byte on a kept connection) | {prepare.START_WITHIN_SECONDS:g} s after the claim |",
        f"| resolve the name | {limits.name_seconds:g} s |",
        f"| connect, with an egress proxy and its tunnel included | {limits.connect_seconds:g} s |",
        f"| TLS handshake | {limits.handshake_seconds:g} s |",
        f"| body, once the status came | {limits.body_seconds:g} s |",
        f"in threads, at most {limits.look_ups} at a time. A tenant may have {limits.look_ups_each} of them",
        f"If fewer than {shared} are busy, it may have as many as are left of these: {shared // 2} if it is alone",
        f"An answer is known for {egress_guard.KNOWN_SECONDS:g} s;",
        f"of a name with many addresses the first {egress_guard.MAX_ADDRESSES} count",
        f"kept for {limits.idle_seconds:g} s, at most {limits.idle_each} to one host and port and {limits.idle:,} in",
        f"sent more than {limits.idle_bytes:,} bytes for their TLS handshakes together",
        f"| TLS handshake, with the certificates of the receiver | {trust.HANDSHAKE_BYTES:,} bytes;",
        f"in which the receiver sends more than {trust.HANDSHAKE_BYTES:,} bytes ends as `tls`",
        f"- less than {limits.tls_session_seconds:,.0f} s after the handshake that verified the certificate,",
        f"at most {limits.tls_sessions_at_place} sessions of one host and port,",
        f"at most {limits.tls_session_bytes:,} bytes in all and {limits.tls_session_bytes_of_tenant:,} for one tenant",
        f"If it sent more than {trust.SESSION_BYTES:,} bytes, the session is not kept",
        f"counts as {trust.REFUSAL_BYTES:,} bytes",
        f"| body read | {exchange.RESPONSE_BYTES_READ:,} bytes;",
        f"| body kept | {exchange.SNIPPET_BYTES:,} bytes,",
        f"| all of an answer, interim ones and what chunks take included | {connection.ANSWER_BYTES:,} bytes |",
        f"| interim replies (1xx) before the answer | {connection.INTERIM_REPLIES} |",
        f"| what chunks take beside what they hold | {connection.CHUNK_BYTES:,} bytes:",
        f"| {connection.TURN_BYTES:,} bytes of all answers together, in slices of {connection.SLICE_BYTES:,} bytes |",
        f"| `Retry-After` | {exchange.RETRY_AFTER_VALUES} values of {exchange.RETRY_AFTER_CHARACTERS} characters |",
        f"It keeps as many as fit into {tls_context.MOST_BYTES >> 20} MiB",
        f"counted as {tls_context.CONTEXT_BYTES >> 10} KiB",
        f"and {tls_context.CERTIFICATE_BYTES >> 10} KiB for each certificate",
        f"waits {tls_context.WAIT_SECONDS:g} s at most for its context,",
        f"and behind at most {tls_context.MOST_AT_ONCE - 1} others",
        f"less than `HOOKSEAL_CONCURRENCY` and {egress_guard.RESERVED_DESCRIPTORS} more.",
        f"Of the limit the last {egress_guard.RESERVED_DESCRIPTORS}, or half of it if it is small, are reserved",
        f"begins nothing for {ring_handler._FIRST_REST_SECONDS:g} s, twice as long each time while it lasts,",
        f"{ring_handler._LONGEST_REST_SECONDS:g} s at most.",
        f"within {health.CONNECTION_SECONDS:g} s, and holds {health.MOST_CONNECTIONS} connections.",
        f"({endpoint_rules.MIN_TIMEOUT_MS} ms to {endpoint_rules.MAX_TIMEOUT_MS // 1000} s)",
    ]

    assert [] == [sentence for sentence in sentences if sentence not in PAGE]


def identity(key: str, *, expires_in: float | None = None) -> TlsIdentity:
    expires_at = None if expires_in is None else asyncio.get_running_loop().time() + expires_in
    return TlsIdentity(key=key, context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), expires_at=expires_at)


def opened(_allowed: Networks, _identity: TlsIdentity | None) -> aiohttp.BaseConnector:
    """Return a connector that dials nothing."""
    return aiohttp.BaseConnector()


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """Yield a pool of sessions, and close it afterwards."""
    pool = Sessions(opened)
    yield pool
    await pool.close()


async def closed(connector: aiohttp.BaseConnector) -> bool:
    """Wait until the session is closed, for ten seconds at most."""

    async def look() -> bool | None:
        return connector.closed or None

    return await eventually(look)


@pytest.mark.req("DEL-12")
async def test_equal_networks_and_identity_share_a_session(sessions: Sessions) -> None:
    acme = identity("acme")
    taken = [
        sessions.take(rights, own).connector
        for rights in (NOWHERE, _LOOPBACK_ONLY)
        for own in (None, acme, identity("globex"), None, acme)
    ]

    assert [0, 1, 2, 0, 1, 5, 6, 7, 5, 6] == [taken.index(session) for session in taken]


async def test_a_new_context_replaces_the_session(sessions: Sessions) -> None:
    """A new context under a known key gets a new session; the old session is closed once no request uses it."""
    old = sessions.take(NOWHERE, identity("acme"))
    new = sessions.take(NOWHERE, identity("acme"))

    assert old.connector is not new.connector
    assert not old.connector.closed
    sessions.give_back(old)
    assert await closed(old.connector)
    assert not new.connector.closed


@pytest.mark.parametrize("used", [False, True])
async def test_an_expired_identitys_session_is_closed(sessions: Sessions, used: bool) -> None:
    shared = sessions.take(NOWHERE, identity("acme", expires_in=0.01))
    if not used:
        sessions.give_back(shared)

    async def is_empty() -> bool | None:
        return len(sessions) == 0 or None

    await eventually(is_empty)
    assert shared.identity is None
    if used:
        assert not shared.connector.closed
        sessions.give_back(shared)
    assert await closed(shared.connector)


async def test_the_least_recently_used_session_is_closed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_SESSIONS", 2)
    used, first, second = (sessions.take(NOWHERE, identity(key)) for key in "abc")
    for shared in (first, second):
        sessions.give_back(shared)
    third = sessions.take(NOWHERE, identity("d"))

    assert await closed(first.connector)
    assert await closed(second.connector)
    assert not used.connector.closed
    assert not third.connector.closed
    assert 2 == len(sessions)


async def test_an_unused_session_is_closed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "UNUSED_SECONDS", 0.01)
    used, unused = sessions.take(NOWHERE, None), sessions.take(_LOOPBACK_ONLY, None)
    sessions.give_back(unused)

    assert await closed(unused.connector)
    assert not used.connector.closed


async def test_close_closes_every_session(sessions: Sessions) -> None:
    retired = sessions.take(NOWHERE, identity("acme"))
    taken = [retired, sessions.take(NOWHERE, identity("acme")), sessions.take(_LOOPBACK_ONLY, None)]
    await sessions.close()

    assert [True] * 3 == [shared.connector.closed for shared in taken]


async def never() -> None:
    """Wait for a future that is never done."""
    await asyncio.get_running_loop().create_future()


def soon() -> float:
    """Return a time of the loop shortly ahead."""
    return asyncio.get_running_loop().time() + MOMENT_SECONDS


@pytest.mark.req("DEL-11", part="bounds")
async def test_a_block_ends_at_its_deadline_and_not_before() -> None:
    loop, when = asyncio.get_running_loop(), soon()
    task = asyncio.current_task()
    assert task is not None

    with pytest.raises(TimeoutError), Deadlines().at(when):
        await never()

    assert when <= loop.time()
    assert not task.cancelling()


async def test_a_passed_deadline_ends_the_block_at_its_first_wait() -> None:
    with pytest.raises(TimeoutError), Deadlines().at(asyncio.get_running_loop().time() - 1):
        await never()


async def test_a_finished_block_is_not_affected() -> None:
    deadlines, when = Deadlines(), soon()

    async def late() -> None:
        with deadlines.at(when):
            await never()

    others = [asyncio.create_task(late()) for _ in range(3)]
    with deadlines.at(when):
        await asyncio.sleep(0)

    ended = await asyncio.gather(*others, return_exceptions=True)
    assert [TimeoutError] * 3 == [type(each) for each in ended]


async def test_an_error_of_the_block_is_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), Deadlines().at(soon()):
        raise ZeroDivisionError


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A cancellation from outside remains a cancellation, even if the deadline passes before it takes effect."""
    begun = asyncio.Event()

    async def work() -> None:
        with Deadlines().at(soon()):
            begun.set()
            try:
                await never()
            finally:
                with pytest.raises(asyncio.CancelledError):
                    await never()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()

    await asyncio.wait({task})
    assert task.cancelled()


async def test_near_deadlines_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """All deadlines within 0.1 s share one timer, which fires before the first of them."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    moment = (loop.time() // MOMENT_SECONDS + 100) * MOMENT_SECONDS
    call_at, timers = loop.call_at, list[float]()

    def counted(when: float, *rest: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *rest)

    monkeypatch.setattr(loop, "call_at", counted)

    for part in range(1, 20):
        with deadlines.at(moment + part * MOMENT_SECONDS / 20):
            await asyncio.sleep(0)

    assert len(timers) == 1
    assert moment - 0.001 < timers[0] < moment + MOMENT_SECONDS / 20


def used(module: Any, name: str) -> set[str]:
    """Return every private name that this class of ours defines, or reads from `self`."""
    tree = ast.parse(inspect.getsource(module))
    (ours,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    read = {
        node.attr
        for node in ast.walk(ours)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    defined = {node.name for node in ours.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {found for found in read | defined if found.startswith("_") and not found.startswith("__")}


async def instance(base: type) -> object:
    """Return an object of a class of aiohttp."""
    if base is ResponseHandler:
        return ResponseHandler(asyncio.get_running_loop())
    return base()


@pytest.mark.parametrize("name", PRIVATE)
async def test_each_private_name_exists(name: str) -> None:
    """Each private name of aiohttp that a class of ours uses is in the list and exists in aiohttp, and no other private
    name of ours overwrites one of aiohttp.
    """
    module, base, listed = PRIVATE[name]
    aiohttps = await instance(base)
    theirs = {private for private in used(module, name) if hasattr(aiohttps, private)}
    if isinstance(aiohttps, aiohttp.BaseConnector):
        await aiohttps.close()

    assert set() == listed - theirs, (
        f"aiohttp {aiohttp.__version__} has no {base.__name__}.{', '.join(sorted(listed - theirs))} any more, or "
        f"{name} does not use it any more: change hookseal.{module.__name__.partition('.')[2]}, or this list"
    )
    assert set() == theirs - listed, (
        f"aiohttp {aiohttp.__version__} has private names in {base.__name__} that {name} has, too: rename ours, or add "
        "them to the list"
    )


@pytest.mark.parametrize("owner", UNDOCUMENTED, ids=lambda owner: owner.__name__)
async def test_each_undocumented_name_exists(owner: type) -> None:
    found = owner if owner in {RawResponseMessage, aiohttp.StreamReader} else await instance(owner)
    names = {*dir(found), *getattr(owner, "__annotations__", {})}

    assert set() == UNDOCUMENTED[owner] - names, f"aiohttp {aiohttp.__version__} has removed these names"


@pytest.mark.parametrize("name", PARAMETERS)
def test_overridden_methods_keep_their_parameters(name: str) -> None:
    method, expected = PARAMETERS[name]

    assert expected == list(inspect.signature(method).parameters), (
        f"aiohttp {aiohttp.__version__} has changed these parameters"
    )


def test_called_functions_have_our_parameters() -> None:
    """The parameters of a request exist, and the key of a kept connection has its fields in this order."""
    parameters = inspect.signature(ResponseHandler.set_response_params).parameters

    assert {"read_until_eof", "auto_decompress", "read_bufsize"} <= parameters.keys()
    assert ("host", "port", "is_ssl", "ssl", "proxy", "proxy_auth", "proxy_headers_hash") == ConnectionKey._fields[:7]


def test_one_minor_version_is_admitted() -> None:
    """pyproject.toml admits only the minor version of aiohttp that these tests ran with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = project["optional-dependencies"]["cli"]
    (admitted,) = (need for need in map(Requirement, commands) if need.name == "aiohttp")
    installed = Version(aiohttp.__version__)

    assert installed in admitted.specifier
    assert f"{installed.major}.{installed.minor}.999" in admitted.specifier
    assert f"{installed.major}.{installed.minor + 1}.0" not in admitted.specifier
    assert f"{installed.major + 1}.0.0" not in admitted.specifier
