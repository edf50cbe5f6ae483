"""Requests through an egress proxy: where the tunnel leads, which names TLS checks, and which side a failure blames."""

import socket
from ipaddress import ip_network
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http.egress_guard import LookUps
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.tunnel import EgressProxy
from tests.cli.listeners import closed_port
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.certificates import authority, issued, trusting
from tests.doubles.egress_proxy import proxying
from tests.doubles.receivers import listening, status

QUICK = Limits(connect_seconds=0.3)


@pytest.mark.req("DEL-11", part="proxy")
async def test_a_request_goes_through_a_tunnel() -> None:
    """The tunnel leads to the checked address and is used again; the receiver gets the request as without a proxy."""
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings()) as transport,
    ):
        answers = [
            await transport.send(request_to(f"http://localhost:{listener.port}/a?b=c", body=b"{}")) for _ in range(2)
        ]

    assert [Reply(status=204, snippet="")] * 2 == answers
    assert [f"127.0.0.1:{listener.port}"] == proxy.targets
    for raw in listener.requests:
        assert raw.startswith(b"POST /a?b=c HTTP/1.1\r\nHost: localhost:")
        assert b"proxy" not in raw.lower()


@pytest.mark.req("DEL-11", part="proxy")
@pytest.mark.parametrize("names", [("localhost",), ("other.example", "127.0.0.1")])
async def test_tls_in_the_tunnel_checks_the_host_name(names: tuple[str, ...], tmp_path: Path) -> None:
    """In the tunnel, the certificate must be for the host name of the URL: one for the tunnel's address is refused."""
    vouching = authority()
    server = issued(*names, by=vouching).server(tmp_path)
    shown: list[str | None] = []
    server.sni_callback = lambda _object, name, _context: shown.append(name)
    async with (
        listening(status(204), tls=server) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), trust=trusting(vouching), proxy=proxy.settings()) as transport,
    ):
        answer = await transport.send(request_to(listener.url))

    wrong = Failure(kind=FailureKind.TLS, detail="the certificate is for another name")
    assert (Reply(status=204, snippet="") if "localhost" in names else wrong) == answer
    assert ["localhost"] == shown
    assert [f"127.0.0.1:{listener.port}"] == proxy.targets


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]"])
async def test_a_forbidden_address_is_not_requested_from_the_proxy(host: str) -> None:
    """An address that may not be dialled, such as the proxy's own, is not requested from the proxy either."""
    async with (
        proxying() as proxy,
        HttpTransport(AddressRules(), proxy=proxy.settings()) as transport,
    ):
        answer = await transport.send(request_to(f"http://{host}:{proxy.port}/"))

    assert isinstance(answer, Failure)
    assert FailureKind.FORBIDDEN_ADDRESS is answer.kind
    assert [] == proxy.heads


@pytest.mark.req("DEL-12")
async def test_only_the_proxys_address_is_exempt() -> None:
    """The proxy is dialled although loopback is not allowed; public addresses are requested from it."""
    async with proxying() as proxy, HttpTransport(AddressRules(), proxy=proxy.settings()) as transport:
        proxy.answer = b"HTTP/1.1 403 no\r\n\r\n"
        for url in ("http://1.1.1.1/", "https://[2606:4700::1111]:8443/"):
            await transport.send(request_to(url))

    assert ["1.1.1.1:80", "[2606:4700::1111]:8443"] == proxy.targets


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (b"HTTP/1.1 403 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy refused the connection (403)"),
        (
            b"HTTP/1.1 407 canary\r\nx: y\r\n\r\n",
            FailureKind.PROXY,
            "the egress proxy refused the credentials of HOOKSEAL_EGRESS_PROXY",
        ),
        (b"HTTP/1.0 500 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy refused the connection (500)"),
        (b"HTTP/1.1 302 canary\r\nlocation: http://127.0.0.1/\r\n\r\n", FailureKind.PROXY, "the egress proxy refused "),
        (
            b"HTTP/1.1 502 canary\r\n\r\n",
            FailureKind.CONNECTION,
            "the egress proxy could not connect to the receiver (502)",
        ),
        (b"HTTP/1.1 503\r\n\r\n", FailureKind.CONNECTION, "the egress proxy could not connect to the receiver (503)"),
        (b"HTTP/1.1 504 canary\r\n\r\n", FailureKind.CONNECTION, "the egress proxy could not connect to the receiver "),
        (b"HTTP/1.1 200 OK\r\n\r\ncanary", FailureKind.PROXY, "the egress proxy sent more than the head of its answer"),
        (b"canary\r\n\r\n", FailureKind.PROXY, "the egress proxy did not answer in valid HTTP"),
        (b"HTTP/1.1 2000 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy did not answer in valid HTTP"),
        (b"HTTP/1.1 200 canary", FailureKind.PROXY, "the egress proxy closed the connection"),
        (b"", FailureKind.PROXY, "the egress proxy closed the connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, FailureKind.PROXY, "the egress proxy answered with too much"),
    ],
)
async def test_a_refused_tunnel_blames_proxy_or_receiver(answer: bytes, kind: FailureKind, detail: str) -> None:
    """Without a tunnel, the proxy or the receiver is blamed, by status; the text of the answer is not repeated."""
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(b"user:canary")) as transport,
    ):
        proxy.answer = answer
        found = await transport.send(request_to(listener.url))

    assert isinstance(found, Failure)
    assert kind is found.kind
    assert found.detail.startswith(detail)
    assert "canary" not in repr(found)
    assert 0 == listener.connections


async def test_an_unreachable_proxy_is_a_proxy_failure() -> None:
    """A proxy that is down, hangs or has no address is a proxy failure, within the time for connecting."""

    def look_up(host: str) -> tuple[str, ...]:
        if host == "proxy.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return (host,)

    found = []
    async with proxying() as silent:
        silent.silent = True
        for settings, limits in (
            (EgressProxy(host="127.0.0.1", port=closed_port()), Limits()),
            (EgressProxy(host="proxy.invalid", port=1), Limits()),
            (silent.settings(), QUICK),
        ):
            look_ups = LookUps(limits, look_up)
            async with HttpTransport(
                AddressRules(LOOPBACK), proxy=settings, limits=limits, look_ups=look_ups
            ) as transport:
                found.append(await transport.send(request_to("http://1.1.1.1/")))

    assert [
        Failure(kind=FailureKind.PROXY, detail=f"the {detail}")
        for detail in (
            "connection to the egress proxy failed (ConnectionRefusedError)",
            "connection to the egress proxy failed (gaierror)",
            "egress proxy gave no connection within 0.3 s",
        )
    ] == found


async def test_only_the_proxy_gets_credentials() -> None:
    """The proxy gets its credentials; the receiver does not."""
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(b"user:p\xc3\xab:x")) as transport,
    ):
        await transport.send(request_to(listener.url))

    assert b"\r\nProxy-Authorization: Basic dXNlcjpww6s6eA==\r\n" in proxy.heads[0]
    assert b"dXNlcjpww6s6eA==" not in listener.requests[0]
    assert b"webhook-id" not in proxy.heads[0].lower()


async def test_the_next_address_is_tried() -> None:
    """If the proxy cannot reach one address of a name, the next address is requested."""
    limits = Limits()
    both = AddressRules((AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),))
    look_ups = LookUps(limits, lambda host: ("127.0.0.2", "127.0.0.1") if host == "two.example" else ("127.0.0.1",))
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(both, proxy=proxy.settings(), look_ups=look_ups) as transport,
    ):
        answer = await transport.send(request_to(f"http://two.example:{listener.port}/"))

    assert Reply(status=204, snippet="") == answer
    assert [f"127.0.0.2:{listener.port}", f"127.0.0.1:{listener.port}"] == proxy.targets
