"""The laws of a transport: the scripted one and the real one keep them."""

import pytest

from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.model import Answer, Failure, FailureKind, Reply, Request
from hookseal.dispatcher.transport import HttpTransport
from hookseal.ground.ids import TenantId
from tests.dispatcher.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import Script, hang, listening, reset, status
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
    """Whatever the receiver does, `send` returns it as a value."""
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
    """The same request can be sent again: a transport changes nothing in it."""
    async with listening(status(204)) as listener:
        request = request_to(listener.url)
        before = Request(
            tenant_id=TenantId("acme"),
            url=listener.url,
            headers=dict(request.headers),
            body=request.body,
            start_within_seconds=request.start_within_seconds,
            timeout_seconds=request.timeout_seconds,
        )
        if kind == "scripted":
            await ScriptedTransport(Reply(status=204, snippet="")).send(request)
        else:
            async with HttpTransport(AddressRules(LOOPBACK)) as transport:
                await transport.send(request)

    assert before == request
