"""A receiver that repeats the request, on real sockets: its answer shows no value of the endpoint's own headers."""

import asyncio
import zlib

import pytest

from hookseal.dispatcher.core.model import Reply
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.exchange import SNIPPET_BYTES
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.secrets.core.material import SecretMaterial
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import listening, status
from tests.doubles.replaced import replace

TOKEN = "kQ7-canary-4f1d-Zr2"
OWN = {"authorization": f"Bearer {TOKEN}".encode(), "x-short": b"k9Qx7"}
SAID = f"you sent: Bearer {TOKEN} and k9Qx7, which nobody knows"


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
    """The answer to an endpoint without headers of its own is kept unchanged."""

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
