"""Exactly one request is sent: no character of the URL or of a header can end a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import AddressRules, url_problem
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.errors import Defect
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import listening, status
from tests.doubles.replaced import replace

ENDINGS = [
    "\r\nx-admin: 1",
    "\n",
    "\r",
    "\x00",
    "\r\n\r\nPOST / HTTP/1.1",
    "\N{LATIN SMALL LETTER C WITH CARON}\n",
    "\x7f",
]


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
    """A URL with a line break is refused when it is stored and when it is sent, and nothing is dialled."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for url in (f"{listener.url}{ending}", f"http://127.0.0.1:{listener.port}{ending}/"):
            answer = await transport.send(request_to(url))
            assert isinstance(answer, Failure)
            assert FailureKind.INVALID_URL is answer.kind
            assert url_problem(url, allow_http=True)

    assert 0 == listener.connections


NOBODY = client_context(only=True)  # reading the certificates of the system is slow
PATHS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30).filter(
    lambda path: not path.endswith("?") or path.count("?") > 1  # an empty query is not sent
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30)


@pytest.mark.req("DEL-13", part="injection")
@given(path=PATHS, value=VALUES, body=st.binary(max_size=50))
async def test_exactly_one_request_arrives_or_none(path: str, value: str, body: bytes) -> None:
    """For any path, header value and body, exactly one request arrives, or none."""
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
