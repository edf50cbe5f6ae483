"""Sends one request over aiohttp, to addresses that may be dialled only.

The check sits where the socket is made, so it holds for literals, which never reach a resolver, and
for a name that resolves to something else the second time. The resolver drops forbidden addresses
early, so that a name with a public one is still reached by it. Sessions, with their connections, DNS
answers and TLS sessions, are shared only between tenants with the same egress rights.
"""

import asyncio
import socket
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from hookseal.dispatcher.address import AddressRules, refusal
from hookseal.dispatcher.model import Answer, Failure, FailureKind, NotBegun, Reply, Request, TlsIdentity
from hookseal.dispatcher.sessions import Networks, Sessions
from hookseal.dispatcher.trust import client_context
from hookseal.ground.echo import without_echo
from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.headers import require_headers
from hookseal.ground.log import masked_text

RESPONSE_BYTES_READ: Final = 65_536
SNIPPET_BYTES: Final = 2_048
RETRY_AFTER_VALUES: Final = 4
RETRY_AFTER_CHARACTERS: Final = 64  # the longest HTTP date has 33
_ANSWER_BYTES_TAKEN: Final = 524_288  # with headers and what one read of the socket brings beyond the body's limit
_IDLE_SECONDS: Final = 30.0


class ForbiddenAddressError(OSError):
    """The address may not be dialled."""


class TooLateError(OSError):
    """The request may not begin any more."""


@dataclass(slots=True)
class _Start:
    """When a request must have begun; once it has dialled, it may dial the next address of its name later."""

    deadline: float
    begun: bool = False


_START: Final[ContextVar[_Start]] = ContextVar("start")


class _Bounded(ResponseHandler):
    """Ends a connection whose answer grows beyond all reason: a flood of interim replies has no other bound."""

    _answer_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        self._answer_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        if self._answer_bytes > _ANSWER_BYTES_TAKEN and self.transport is not None:
            self.transport.abort()
            return
        super().data_received(data)


class GuardedResolver(AbstractResolver):
    """Resolves names and drops every address that may not be dialled."""

    def __init__(self, allowed: Networks) -> None:
        self._allowed = allowed
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses that may be dialled. Raises `ForbiddenAddressError` if none of them may."""
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if refusal(result["host"], self._allowed) is None]
        if found and not public:
            raise ForbiddenAddressError("the name resolves only to addresses that may not be dialled")
        return public

    async def close(self) -> None:
        """Release the resolver."""
        await self._resolver.close()


def guarded_socket(address: tuple[object, ...], allowed: Networks) -> socket.socket:
    """Return a socket for a resolved address.

    Raises `ForbiddenAddressError` if it may not be dialled, `TooLateError` if the request may not begin any more.
    """
    family, kind, protocol, _, target = address
    reason = refusal(str(target[0]), allowed)  # type: ignore[index]
    if reason is not None:
        raise ForbiddenAddressError(f"the address may not be dialled ({reason})")
    start = _START.get()
    if not start.begun and asyncio.get_running_loop().time() > start.deadline:
        raise TooLateError
    start.begun = True
    return socket.socket(family=family, type=kind, proto=protocol)  # type: ignore[arg-type]


class HttpTransport:
    """A `Transport` on aiohttp; an async context manager that owns its sessions."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules = rules
        self._trust = client_context()
        self._sessions = Sessions(self._opened)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sessions.close()

    async def send(self, request: Request) -> Answer:
        """Return what became of the request, within its time-out.

        Redirects are not followed. A status counts once its headers came, whatever becomes of the body; what it
        repeats of the endpoint's own headers is masked. Raises `Defect`, with nothing dialled, if these are not such
        as may be sent.
        """
        if request.start_within_seconds <= 0:
            return NotBegun()
        _START.set(_Start(asyncio.get_running_loop().time() + request.start_within_seconds))
        shared = self._sessions.take(self._rules.networks_for(request.tenant_id), request.tls)
        try:
            async with shared.session.post(
                URL(request.url, encoded=True),  # the path as it is stored: receivers route and sign on it
                data=request.body,
                headers=_headers(request),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=request.timeout_seconds),
            ) as response:
                snippet = _storable(await _snippet(response), request)
                return Reply(status=response.status, snippet=snippet, retry_after=_retry_after(response))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return _failure(error, request)
        except BaseException as error:
            _let_go(error)
            raise
        finally:
            self._sessions.give_back(shared)

    def _opened(self, allowed: Networks, identity: TlsIdentity | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=self._trust if identity is None else identity.context,
            resolver=GuardedResolver(allowed),
            socket_factory=lambda address: guarded_socket(address, allowed),
            keepalive_timeout=_IDLE_SECONDS,
        )
        bounded = partial(_Bounded, loop=asyncio.get_running_loop())
        connector._factory = cast("partial[ResponseHandler]", bounded)  # noqa: SLF001 -- aiohttp has no public way; a test would miss it
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=RESPONSE_BYTES_READ,
        )


def _headers(request: Request) -> Mapping[str, str]:
    """Return every header of the request, in the clear. Raises `Defect` if one may not be sent."""
    if not request.sealed_headers:
        return request.headers
    own = _revealed(request)
    try:
        require_headers(own)
    except Malformed as error:
        raise Defect(f"the headers of an endpoint were to be sent although they may not: {error}") from None
    return own | request.headers


def _revealed(request: Request) -> dict[str, str]:
    return {name: value.reveal().decode("latin-1") for name, value in request.sealed_headers.items()}


def _storable(snippet: str, request: Request) -> str:
    """Return the snippet as it may be stored in the clear.

    What it repeats of the endpoint's own headers is masked, and signing secrets: some receivers show theirs on an
    error page.
    """
    own = _revealed(request).values() if request.sealed_headers else ()
    return _short(without_echo(masked_text(snippet), own))


def _let_go(error: BaseException | None) -> None:
    """Leave no local variable in the frames that the error came through: header values stand there in the clear."""
    if error is not None:
        traceback.clear_frames(error.__traceback__)
        _let_go(error.__cause__)
        _let_go(error.__context__)


def _retry_after(response: aiohttp.ClientResponse) -> tuple[str, ...]:
    """Return the first values of the header that are not too long; a longer one says nothing that is waited for."""
    values = response.headers.getall("retry-after", ())
    return tuple(value for value in values if len(value) <= RETRY_AFTER_CHARACTERS)[:RETRY_AFTER_VALUES]


async def _snippet(response: aiohttp.ClientResponse) -> str:
    """Read at most 64 KiB, so that a short answer leaves its connection reusable; return the first 2 KiB."""
    kept = bytearray()
    read = 0
    try:
        async for chunk in response.content.iter_any():
            read += len(chunk)
            kept += chunk[: SNIPPET_BYTES - len(kept)]
            if read >= RESPONSE_BYTES_READ:
                response.close()
                break
    except (aiohttp.ClientError, OSError, TimeoutError):
        response.close()
    return _text(bytes(kept))


def _text(raw: bytes) -> str:
    """Return text that PostgreSQL takes and that is at most 2 KiB as UTF-8."""
    return _short(raw.decode("utf-8", errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}"))


def _short(text: str) -> str:
    return text.encode("utf-8")[:SNIPPET_BYTES].decode("utf-8", errors="ignore")


# The first class that fits decides, so a subclass stands before its base. Details are our words, never the receiver's.
_FAILURES: Final[tuple[tuple[type[Exception], FailureKind, str], ...]] = (
    (ForbiddenAddressError, FailureKind.FORBIDDEN_ADDRESS, "{cause}"),
    (TimeoutError, FailureKind.TIMEOUT, "no answer within {seconds:g} s"),
    (aiohttp.ClientSSLError, FailureKind.TLS, "the TLS handshake failed or the certificate is not trusted"),
    (aiohttp.ClientConnectorDNSError, FailureKind.DNS, "the host name could not be resolved"),
    (aiohttp.ClientResponseError, FailureKind.PROTOCOL, "the receiver did not answer in valid HTTP"),
    (ValueError, FailureKind.INVALID_URL, "the url names no host that can be dialled"),
)


def _failure(error: Exception, request: Request) -> Failure | NotBegun:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, TooLateError):
        return NotBegun()
    for kind, failure, detail in _FAILURES:
        if isinstance(cause, kind) or isinstance(error, kind):
            text = detail.format(cause=cause, seconds=request.timeout_seconds)
            return Failure(kind=failure, detail=text)
    return Failure(kind=FailureKind.CONNECTION, detail=f"the connection failed ({type(cause).__name__})")
