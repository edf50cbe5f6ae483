"""Sends one request over aiohttp, only to addresses that may be dialled.

`sessions` decides which requests share connections, DNS answers and a TLS context. `egress_guard` checks each address
where its socket is made.
"""

import asyncio
import re
import ssl
import traceback
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Request, TlsIdentity
from hookseal.dispatcher.core.url import AddressRules, Networks
from hookseal.dispatcher.http import failures
from hookseal.dispatcher.http.connection import HttpConnection, IdleConnections, Turns
from hookseal.dispatcher.http.dial import Connector, DialOptions
from hookseal.dispatcher.http.egress_guard import Guard, LookUps, Names
from hookseal.dispatcher.http.exchange import Deadlines, exchange, head
from hookseal.dispatcher.http.observation import (
    PROGRESS,
    Limits,
    Observed,
    Progress,
    SeenTls,
    resolved,
    seen_connection,
)
from hookseal.dispatcher.http.sessions import Sessions
from hookseal.dispatcher.http.trust import TlsSessions, client_context
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import Defect, Malformed
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.wire import require_headers

_MOMENT_SECONDS: Final = 0.1
_LINE: Final = re.compile(r"[!-~]+")


class HttpTransport:
    """A `Transport` on aiohttp; an async context manager that owns its sessions.

    `trust` is the TLS context for endpoints without a TLS identity; by default it trusts what the system trusts. With a
    `proxy` every request goes through it. `clock` is the clock of `start_by`. It is not the clock of the event loop,
    which is read once in each turn of the loop: the process may have been stopped since.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        trust: ssl.SSLContext | None = None,
        proxy: EgressProxy | None = None,
        limits: Limits | None = None,
        look_ups: LookUps | None = None,
        clock: Clock | None = None,
    ) -> None:
        limits = limits or Limits()
        self._rules = rules
        self._clock = clock or SystemClock()
        self._trust = trust or client_context()
        idle = IdleConnections(most=limits.idle, most_each=limits.idle_each, most_bytes=limits.idle_bytes)
        self._options = DialOptions(
            limits=limits, idle=idle, turns=Turns(), tls_sessions=TlsSessions(limits, self._clock), proxy=proxy
        )
        self._look_ups = look_ups or LookUps(limits)
        self._sessions = Sessions(self._opened)
        self._deadlines = Deadlines()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sessions.close()
        self._look_ups.close()

    async def send(self, request: Request) -> Answer:
        """Return the answer to the request, within its time-out.

        Redirects are not followed. A status counts once its headers have arrived, even if the body fails. Values of the
        endpoint's own headers that the answer repeats are masked. Raises `Defect`, and connects to nothing, if the url
        or a header must not be sent.
        """
        if self._clock.monotonic() >= request.start_by:
            return NotBegun()
        return await self._send_in_session(self._progress(request), request)

    async def observed(self, request: Request) -> tuple[Answer, Observed]:
        """Do the same as `send`, and also return the addresses and the connection of the request."""
        allowed = self._rules.networks_for(request.tenant_id)
        addresses, error = await resolved(
            urlsplit(request.url).hostname or "",
            Guard(allowed).refusal_of,
            self._look_ups.look_up,
            seconds=self._options.limits.name_seconds,
        )
        connections: list[tuple[str | None, SeenTls | None]] = []
        progress = replace(self._progress(request), watch=lambda used: connections.append(seen_connection(used)))
        is_late = self._clock.monotonic() >= request.start_by
        answer: Answer = NotBegun() if is_late else await self._send_in_session(progress, request)
        dialled, tls = connections[-1] if connections else (None, None)
        return answer, Observed(addresses=addresses, error=error, dialled=dialled, tls=tls)

    def _progress(self, request: Request) -> Progress:
        return Progress(tenant=request.tenant_id, begin_by=request.start_by, clock=self._clock)

    async def _send_in_session(self, progress: Progress, request: Request) -> Answer:
        before = PROGRESS.set(progress)
        shared = self._sessions.take(self._rules.networks_for(request.tenant_id), request.tls)
        try:
            return await self._exchange(shared.connector, request, progress)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if isinstance(progress.connection, HttpConnection):
                await progress.connection.ended(within=_MOMENT_SECONDS)  # the reason is known only then
            return failures.unanswered(error, progress, request.timeout_seconds)
        except BaseException as error:
            _clear_frames(error)
            raise
        finally:
            self._sessions.give_back(shared)
            PROGRESS.reset(before)

    async def _exchange(self, connector: aiohttp.BaseConnector, request: Request, progress: Progress) -> Answer:
        deadline = asyncio.get_running_loop().time() + request.timeout_seconds
        if _LINE.fullmatch(request.url) is None:
            return Failure(kind=FailureKind.INVALID_URL, detail="the url contains a character that must not be sent")
        own = _revealed(request)
        reply = await exchange(
            connector,
            request.url,
            head(request.url, _headers(request, own), len(request.body)) + request.body,
            own=own.values(),
            deadline=self._deadlines.at(deadline),
            body_seconds=self._options.limits.body_seconds,
        )
        if isinstance(progress.connection, HttpConnection):
            progress.connection.rest(progress)
        return reply

    def _opened(self, allowed: Networks, identity: TlsIdentity | None) -> Connector:
        context = self._trust if identity is None else identity.context
        return Connector(Guard(allowed), Names(self._look_ups), context, self._options)


def _headers(request: Request, own: Mapping[str, str]) -> Mapping[str, str]:
    """Return every header of the request in plain text. Raises `Defect` if one of the endpoint's must not be sent."""
    if not own:
        return request.headers
    try:
        require_headers(own)
    except Malformed as error:
        raise Defect(f"the headers of an endpoint must not be sent: {error}") from None
    return {**own, **request.headers}


def _revealed(request: Request) -> dict[str, str]:
    if not request.sealed_headers:
        return {}
    return {name: value.reveal().decode("latin-1") for name, value in request.sealed_headers.items()}


def _clear_frames(error: BaseException | None) -> None:
    """Clear the local variables in the frames of the error: they contain header values in plain text."""
    if error is not None:
        traceback.clear_frames(error.__traceback__)
        _clear_frames(error.__cause__)
        _clear_frames(error.__context__)
