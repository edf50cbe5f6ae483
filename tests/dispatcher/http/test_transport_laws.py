"""The laws of a transport, for the scripted one and the real one."""

from collections.abc import Mapping

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, Reply, Request
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.errors import Defect
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.material import SecretMaterial
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import Script, hang, listening, reset, status
from tests.doubles.replaced import replace
from tests.doubles.transport import ScriptedTransport

CASES: list[tuple[Answer, Script]] = [
    (Reply(status=204, snippet=""), status(204)),
    (Reply(status=200, snippet="thanks"), status(200, b"thanks")),
    (Reply(status=302, snippet=""), status(302, headers=b"location: /elsewhere\r\n")),
    (Reply(status=503, snippet="later"), status(503, b"later")),
    (Reply(status=429, snippet="", retry_after=("120",)), status(429, headers=b"retry-after: 120\r\n")),
    (Failure(kind=FailureKind.TIMEOUT, detail="no answer within 0.3 s"), hang),
    (Failure(kind=FailureKind.CONNECTION, detail="the connection failed (ServerDisconnectedError)"), reset),
]


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
    """A transport does not change the request, so it can be sent again."""
    async with listening(status(204)) as listener:
        request = request_to(listener.url)
        before = Request(
            tenant_id=TenantId("acme"),
            url=listener.url,
            headers=dict(request.headers),
            body=request.body,
            start_by=request.start_by,
            timeout_seconds=request.timeout_seconds,
        )
        if kind == "scripted":
            await ScriptedTransport(Reply(status=204, snippet="")).send(request)
        else:
            async with HttpTransport(AddressRules(LOOPBACK)) as transport:
                await transport.send(request)

    assert before == request


def sealed(headers: Mapping[str, bytes]) -> dict[str, SecretMaterial]:
    """Return the endpoint's own headers in the form that a request has them."""
    return {name: SecretMaterial(value) for name, value in headers.items()}


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize("kind", ["scripted", "http"])
async def test_own_headers_are_not_changed(kind: str) -> None:
    """A request with the endpoint's own headers is sent, and its headers are unchanged afterwards."""
    own = {"x-api-key": b"k", "x-inside": b"a b"}
    async with listening(status(204)) as listener:
        request = replace(request_to(listener.url), sealed_headers=sealed(own))
        if kind == "scripted":
            answer = await ScriptedTransport(Reply(status=204, snippet="")).send(request)
        else:
            async with HttpTransport(AddressRules(LOOPBACK)) as transport:
                answer = await transport.send(request)

    assert Reply(status=204, snippet="") == answer
    assert sealed(own) == request.sealed_headers


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize("kind", ["scripted", "http"])
@pytest.mark.parametrize(
    "own", [{"webhook-id": b"v"}, {"X-Api-Key": b"v"}, {"x-api-key": b"v\r\nx-admin: 1"}, {"x-api-key": b"v\x00"}]
)
async def test_a_forbidden_header_is_a_defect(kind: str, own: dict[str, bytes]) -> None:
    """A forbidden own header raises `Defect`, and no request is begun."""
    scripted = ScriptedTransport()
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as http:
        request = replace(request_to(listener.url), sealed_headers=sealed(own))
        with pytest.raises(Defect):
            await (scripted if kind == "scripted" else http).send(request)

    assert ([], 0) == (scripted.sent, listener.connections)
