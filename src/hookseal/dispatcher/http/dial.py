"""Makes connections: name, address check, TCP, proxy and TLS handshake, each within its own time limit.

aiohttp's own connector has no time limit for each part, lets the proxy choose the address, and does not distinguish a
failure of the receiver from one of the proxy.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final, TypeVar

import aiohappyeyeballs
import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from hookseal.dispatcher.core.model import Failure, FailureKind, NotBegun
from hookseal.dispatcher.http import failures
from hookseal.dispatcher.http.connection import HttpConnection, IdleConnections, Place, Turns
from hookseal.dispatcher.http.egress_guard import Addresses, AddressInfo, Guard, Names, begun_socket
from hookseal.dispatcher.http.failures import NotConnectedError
from hookseal.dispatcher.http.observation import PROGRESS, Limits, Phase, Progress
from hookseal.dispatcher.http.trust import (
    KeptSession,
    LargeHandshakeError,
    ReceiverTls,
    SessionKey,
    TlsSessions,
    size_of,
)
from hookseal.dispatcher.http.tunnel import EgressProxy, tunnel

_NEXT_ADDRESS_SECONDS: Final = 0.25  # RFC 8305, 5: the connection attempt delay
_ADDRESSES_BY_PROXY: Final = 3
_SHUTDOWN_SECONDS: Final = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOptions:
    """What a connector needs; `idle`, `turns` and `tls_sessions` are shared by all connectors of a process."""

    limits: Limits
    idle: IdleConnections
    turns: Turns
    tls_sessions: TlsSessions
    proxy: EgressProxy | None


class Connector(aiohttp.BaseConnector):
    """Makes and reuses the connections of requests with the same egress rights and the same TLS context."""

    def __init__(self, guard: Guard, names: Names, context: ssl.SSLContext, options: DialOptions) -> None:
        super().__init__(limit=0, keepalive_timeout=options.limits.idle_seconds)
        self._guard = guard
        self._names = names
        self._context = context
        self._options = options

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp calls it
    ) -> Connection:
        """Return a new connection, or an idle one that is still open. Raises `NotConnectedError`.

        It is also raised if it is too late for the request to begin, even when an idle connection is available.
        """
        progress = PROGRESS.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            if progress.begun:
                return connection
            protocol = connection.protocol
            if isinstance(protocol, HttpConnection) and protocol.is_stale():
                connection.close()
                continue
            if not progress.begin():
                connection.release()
                raise NotConnectedError(NotBegun())
            return connection

    def close(self, *, abort_ssl: bool = True) -> Awaitable[None]:
        """Close every connection without waiting for the receivers, and resume no TLS session of them."""
        self._options.tls_sessions.drop(self)
        return super().close(abort_ssl=abort_ssl)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp calls it
    ) -> ResponseHandler:
        del traces, timeout
        progress = PROGRESS.get()
        host, port = req.url.raw_host, req.url.port
        if host is None or port is None:
            raise NotConnectedError(failures.not_connected(ValueError(), progress))
        try:
            return await self._open(progress, (host, port), secure=req.is_ssl())
        except NotConnectedError as error:
            is_exhausted = isinstance(error.answer, NotBegun) and error.answer.missing_resource is not None
            if not is_exhausted or not await self._options.idle.close_all():
                raise
        progress.missing_resource = None  # the idle connections that were closed have freed it
        return await self._open(progress, (host, port), secure=req.is_ssl())

    async def _open(self, progress: Progress, place: Place, *, secure: bool) -> ResponseHandler:
        host, port = place
        addresses = self._require_permitted(await self._resolve(progress, host), host)
        infos = [_info(address, port) for address in addresses]
        sock = await self._dialled(progress, infos)
        if not secure:
            factory = partial(HttpConnection, self._loop, place, self._options.idle, self._options.turns)
            return (await self._loop.create_connection(factory, sock=sock))[1]
        key = SessionKey(self, progress.tenant, place)
        kept = self._options.tls_sessions.take(key)
        try:
            return await self._handshake(sock, progress, key, kept)
        except NotConnectedError as error:
            reason = error.__cause__
            was_full = isinstance(reason, ssl.SSLCertVerificationError | LargeHandshakeError)
            if kept is None or was_full:
                raise
            self._options.tls_sessions.refuse(key)
            if reason is None:  # it took too long
                raise
        except asyncio.CancelledError:  # the whole request took too long
            if kept is not None:
                self._options.tls_sessions.refuse(key)
            raise
        return await self._handshake(await self._dialled(progress, infos), progress, key, None)

    async def _resolve(self, progress: Progress, host: str) -> Addresses:
        progress.phase = Phase.NAME
        try:
            ip_address(host)
        except ValueError:
            limit = self._options.limits.name_seconds
            return await _within(limit, progress, self._names.addresses(progress.tenant, host))
        return (host,)

    def _require_permitted(self, addresses: Addresses, host: str) -> Addresses:
        """Return the addresses that may be dialled, at least one. Raises `NotConnectedError`."""
        try:
            refusals = {address: self._guard.refusal_of(address) for address in addresses}
        except OSError as error:  # the check whether an address is of this machine needs a socket
            raise NotConnectedError(failures.not_connected(error, PROGRESS.get())) from error
        permitted = tuple(address for address, reason in refusals.items() if reason is None)
        if permitted:
            return permitted
        reason = refusals.get(host)
        detail = (
            "the name resolves only to addresses that may not be dialled"
            if reason is None
            else f"the address may not be dialled ({reason})"
        )
        raise NotConnectedError(Failure(kind=FailureKind.FORBIDDEN_ADDRESS, detail=detail))

    async def _dialled(self, progress: Progress, infos: Sequence[AddressInfo]) -> socket.socket:
        progress.phase = Phase.CONNECTION
        dialling = self._dial(infos) if self._options.proxy is None else self._dial_through_proxy(infos)
        return await _within(self._options.limits.connect_seconds, progress, dialling)

    async def _handshake(
        self, sock: socket.socket, progress: Progress, key: SessionKey, kept: KeptSession | None
    ) -> ResponseHandler:
        """Return the connection on a socket after the TLS handshake, which offers the kept session if there is one.

        The connection then owns the socket.
        """
        progress.phase = Phase.HANDSHAKE
        progress.tls_session = None if kept is None else kept.session
        limit = self._options.limits.handshake_seconds
        keep = partial(self._options.tls_sessions.keep, key, kept, progress.clock.monotonic())
        factory = partial(HttpConnection, self._loop, key.place, self._options.idle, self._options.turns, keep)
        try:
            async with asyncio.timeout(limit):
                transport, connection = await self._loop.create_connection(
                    factory,
                    sock=sock,
                    ssl=self._context,
                    server_hostname=key.place[0].rstrip("."),
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
        except TimeoutError:
            raise NotConnectedError(failures.late(progress, limit)) from None
        except OSError as error:
            raise NotConnectedError(failures.handshake(error)) from error
        if isinstance(tls := transport.get_extra_info("ssl_object"), ReceiverTls):
            connection.handshake_bytes = size_of(tls, kept)
        return connection

    async def _dial(self, infos: Sequence[AddressInfo]) -> socket.socket:
        return await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, socket_factory=self._guard.socket
        )

    async def _dial_through_proxy(self, infos: Sequence[AddressInfo]) -> socket.socket:
        """Return a socket through the proxy to one of these addresses. The address of the proxy is not checked."""
        proxy, progress = self._options.proxy, PROGRESS.get()
        assert proxy is not None  # noqa: S101 -- the caller has checked it
        progress.phase = Phase.PROXY
        failure: Failure | None = None
        for info in infos[:_ADDRESSES_BY_PROXY]:
            address, port = info[4][:2]
            sock = await self._dial_proxy(proxy)
            try:
                failure = await tunnel(proxy, sock, address, port)
            except BaseException:
                sock.close()
                raise
            if failure is None:
                return sock
            sock.close()
        raise NotConnectedError(failure or Failure(kind=FailureKind.PROXY, detail="the egress proxy was not asked"))

    async def _dial_proxy(self, proxy: EgressProxy) -> socket.socket:
        addresses = await self._names.addresses(None, proxy.host)
        return await aiohappyeyeballs.start_connection(
            [_info(address, proxy.port) for address in addresses],
            happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
            socket_factory=begun_socket,
        )


def _info(address: str, port: int) -> AddressInfo:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


async def _within(seconds: float, progress: Progress, work: Awaitable[T]) -> T:
    """Return what the work returns. Raises `NotConnectedError` if it fails or takes more than `seconds`."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except (OSError, ValueError, RuntimeError) as error:
        answer = failures.late(progress, seconds) if limit.expired() else failures.not_connected(error, progress)
        raise NotConnectedError(answer) from error
