"""Makes connections: resolves, checks, dials, goes through the proxy, shakes hands. Each within its own time.

aiohttp's own connector would resolve and dial as well, but it knows no limits for each part, leaves what a proxy dials
to the proxy, and cannot tell a receiver's failure from the proxy's.
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

from hookseal.dispatcher import failures
from hookseal.dispatcher.connection import HttpConnection, Kept, Place
from hookseal.dispatcher.course import COURSE, Course, Limits, Phase
from hookseal.dispatcher.failures import NotConnectedError
from hookseal.dispatcher.guard import AddressInfo, Guard, begun_socket
from hookseal.dispatcher.model import Failure, FailureKind, NotBegun
from hookseal.dispatcher.names import Addresses, Names
from hookseal.dispatcher.tunnel import EgressProxy, tunnel
from hookseal.dispatcher.turns import Turns

_NEXT_ADDRESS_SECONDS: Final = 0.25  # RFC 8305, 5: the connection attempt delay
_ADDRESSES_BY_PROXY: Final = 3
_SHUTDOWN_SECONDS: Final = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a connector dials with; `kept` and `turns` are shared by all connectors of a process."""

    limits: Limits
    kept: Kept
    turns: Turns
    proxy: EgressProxy | None


class Connector(aiohttp.BaseConnector):
    """Connections of requests with the same rights and the same TLS context, made and kept."""

    def __init__(self, guard: Guard, names: Names, context: ssl.SSLContext, means: Means) -> None:
        super().__init__(limit=0, keepalive_timeout=means.limits.kept_seconds)
        self._guard = guard
        self._names = names
        self._context = context
        self._means = means

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp calls it
    ) -> Connection:
        """Return a connection that is made now, or was kept and is open still. Raises `NotConnectedError`.

        A request is not written on a kept one either once it is too late for it to begin.
        """
        course = COURSE.get()
        while True:
            found = await super().connect(req, traces, timeout)
            if course.begun:
                return found
            protocol = found.protocol
            if isinstance(protocol, HttpConnection) and protocol.is_stale():
                found.close()
                continue
            if not course.begin():
                found.release()
                raise NotConnectedError(NotBegun())
            return found

    def close(self, *, abort_ssl: bool = True) -> Awaitable[None]:
        """Close every connection, without waiting for what receivers say to it."""
        return super().close(abort_ssl=abort_ssl)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp calls it
    ) -> ResponseHandler:
        del traces, timeout
        course = COURSE.get()
        host, port = req.url.raw_host, req.url.port
        if host is None or port is None:
            raise NotConnectedError(failures.not_connected(ValueError(), course))
        try:
            return await self._made(course, (host, port), secure=req.is_ssl())
        except NotConnectedError as error:
            is_lacking = isinstance(error.answer, NotBegun) and error.answer.lack is not None
            if not is_lacking or not await self._means.kept.cleared():
                raise
        course.lack = None  # those that waited for a next request had what this one lacked
        return await self._made(course, (host, port), secure=req.is_ssl())

    async def _made(self, course: Course, place: Place, *, secure: bool) -> ResponseHandler:
        host, port = place
        addresses = self._permitted(await self._resolved(course, host), host)
        infos = [_info(address, port) for address in addresses]
        course.phase = Phase.CONNECTION
        limit = self._means.limits.connect_seconds
        sock = await _within(
            limit, course, self._dialled(infos) if self._means.proxy is None else self._by_proxy(infos)
        )
        return await self._spoken(sock, course, place, secure=secure)

    async def _resolved(self, course: Course, host: str) -> Addresses:
        course.phase = Phase.NAME
        try:
            ip_address(host)
        except ValueError:
            limit = self._means.limits.name_seconds
            return await _within(limit, course, self._names.addresses(course.tenant, host))
        return (host,)

    def _permitted(self, addresses: Addresses, host: str) -> Addresses:
        """Return the addresses that may be dialled, so that a name with a public one is reached by it."""
        try:
            refusals = {address: self._guard.refusal_of(address) for address in addresses}
        except OSError as error:  # it takes a socket to know whether an address is of this machine
            raise NotConnectedError(failures.not_connected(error, COURSE.get())) from error
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

    async def _spoken(self, sock: socket.socket, course: Course, place: Place, *, secure: bool) -> ResponseHandler:
        """Return the connection on a socket, which is the connection's from here on."""
        factory = partial(HttpConnection, self._loop, place, self._means.kept, self._means.turns)
        if not secure:
            return (await self._loop.create_connection(factory, sock=sock))[1]
        course.phase = Phase.HANDSHAKE
        limit = self._means.limits.handshake_seconds
        try:
            async with asyncio.timeout(limit):
                _, connection = await self._loop.create_connection(
                    factory,
                    sock=sock,
                    ssl=self._context,
                    server_hostname=place[0].rstrip("."),
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
        except TimeoutError:
            raise NotConnectedError(failures.late(course, limit)) from None
        except OSError as error:
            raise NotConnectedError(failures.handshake(error)) from error
        return connection

    async def _dialled(self, infos: Sequence[AddressInfo]) -> socket.socket:
        return await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, socket_factory=self._guard.socket
        )

    async def _by_proxy(self, infos: Sequence[AddressInfo]) -> socket.socket:
        """Return a socket whose other end is one of these addresses. Only the proxy's own is not asked about."""
        proxy, course = self._means.proxy, COURSE.get()
        assert proxy is not None  # noqa: S101 -- whoever calls knows
        course.phase = Phase.PROXY
        failure: Failure | None = None
        for info in infos[:_ADDRESSES_BY_PROXY]:
            address, port = info[4][:2]
            sock = await self._proxy_dialled(proxy)
            try:
                failure = await tunnel(proxy, sock, address, port)
            except BaseException:
                sock.close()
                raise
            if failure is None:
                return sock
            sock.close()
        raise NotConnectedError(failure or Failure(kind=FailureKind.PROXY, detail="the egress proxy was not asked"))

    async def _proxy_dialled(self, proxy: EgressProxy) -> socket.socket:
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


async def _within(seconds: float, course: Course, work: Awaitable[T]) -> T:
    """Return what the work returns. Raises `NotConnectedError` if it fails, or takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except (OSError, ValueError, RuntimeError) as error:
        answer = failures.late(course, seconds) if limit.expired() else failures.not_connected(error, course)
        raise NotConnectedError(answer) from error
