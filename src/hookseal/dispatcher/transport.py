"""Sends one request over aiohttp, to addresses that may be dialled only.

Sessions, with their connections, DNS answers and TLS contexts, are shared only between requests with the same egress
rights and the same TLS identity (`sessions`); what is dialled is checked where the socket is made (`guard`).
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

from hookseal.dispatcher import failures
from hookseal.dispatcher.address import AddressRules, Networks
from hookseal.dispatcher.connection import HttpConnection, Kept
from hookseal.dispatcher.course import COURSE, Course, Limits
from hookseal.dispatcher.dial import Connector, Means
from hookseal.dispatcher.exchange import exchange, head
from hookseal.dispatcher.guard import Guard
from hookseal.dispatcher.model import Answer, Failure, FailureKind, NotBegun, Request, TlsIdentity
from hookseal.dispatcher.names import LookUps, Names
from hookseal.dispatcher.observation import Observed, SeenTls, resolved, seen_connection
from hookseal.dispatcher.sessions import Sessions
from hookseal.dispatcher.trust import client_context
from hookseal.dispatcher.tunnel import EgressProxy
from hookseal.dispatcher.turns import Turns
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.headers import require_headers

_MOMENT_SECONDS: Final = 0.1
_LINE: Final = re.compile(r"[!-~]+")


class HttpTransport:
    """A `Transport` on aiohttp; an async context manager that owns its sessions.

    `trust` says which receivers are trusted that have no identity of their own, by default those that the system
    trusts. With a `proxy` every request leaves by it. Its clock is the one by which requests say when they must begin,
    not that of the loop, which tells the time at which its present turn began: a process may have stood still since.
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
        kept = Kept(most=limits.kept, most_each=limits.kept_each)
        self._means = Means(limits=limits, kept=kept, turns=Turns(), proxy=proxy)
        self._look_ups = look_ups or LookUps(limits)
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
        repeats of the endpoint's own headers is masked. Raises `Defect`, with nothing dialled, if the url or a header
        is not such as may be sent.
        """
        if self._clock.monotonic() >= request.start_by:
            return NotBegun()
        return await self._on(self._course(request), request)

    async def observed(self, request: Request) -> tuple[Answer, Observed]:
        """Return what `send` does, and the way that the request took."""
        allowed = self._rules.networks_for(request.tenant_id)
        addresses, error = await resolved(
            urlsplit(request.url).hostname or "",
            Guard(allowed).refusal_of,
            self._look_ups.look_up,
            seconds=self._means.limits.name_seconds,
        )
        ways: list[tuple[str | None, SeenTls | None]] = []
        course = replace(self._course(request), watch=lambda found: ways.append(seen_connection(found)))
        is_late = self._clock.monotonic() >= request.start_by
        answer: Answer = NotBegun() if is_late else await self._on(course, request)
        dialled, tls = ways[-1] if ways else (None, None)
        return answer, Observed(addresses=addresses, error=error, dialled=dialled, tls=tls)

    def _course(self, request: Request) -> Course:
        return Course(tenant=request.tenant_id, begin_by=request.start_by, clock=self._clock)

    async def _on(self, course: Course, request: Request) -> Answer:
        before = COURSE.set(course)
        shared = self._sessions.take(self._rules.networks_for(request.tenant_id), request.tls)
        try:
            return await self._sent(shared.connector, request, course)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if isinstance(course.connection, HttpConnection):
                await course.connection.ended(within=_MOMENT_SECONDS)  # only then is it known by what
            return failures.unanswered(error, course, request.timeout_seconds)
        except BaseException as error:
            _let_go(error)
            raise
        finally:
            self._sessions.give_back(shared)
            COURSE.reset(before)

    async def _sent(self, connector: aiohttp.BaseConnector, request: Request, course: Course) -> Answer:
        deadline = asyncio.get_running_loop().time() + request.timeout_seconds
        if _LINE.fullmatch(request.url) is None:
            return Failure(kind=FailureKind.INVALID_URL, detail="the url holds a character that is not sent")
        own = _revealed(request)
        reply = await exchange(
            connector,
            request.url,
            head(request.url, _headers(request, own), len(request.body)) + request.body,
            own=own.values(),
            deadline=deadline,
            body_seconds=self._means.limits.body_seconds,
        )
        if isinstance(course.connection, HttpConnection):
            course.connection.rest(course)
        return reply

    def _opened(self, allowed: Networks, identity: TlsIdentity | None) -> Connector:
        context = self._trust if identity is None else identity.context
        return Connector(Guard(allowed), Names(self._look_ups), context, self._means)


def _headers(request: Request, own: Mapping[str, str]) -> Mapping[str, str]:
    """Return every header of the request, in the clear. Raises `Defect` if one of the endpoint's may not be sent."""
    if not own:
        return request.headers
    try:
        require_headers(own)
    except Malformed as error:
        raise Defect(f"the headers of an endpoint were to be sent although they may not: {error}") from None
    return {**own, **request.headers}


def _revealed(request: Request) -> dict[str, str]:
    return {name: value.reveal().decode("latin-1") for name, value in request.sealed_headers.items()}


def _let_go(error: BaseException | None) -> None:
    """Leave no local variable in the frames that the error came through: header values stand there in the clear."""
    if error is not None:
        traceback.clear_frames(error.__traceback__)
        _let_go(error.__cause__)
        _let_go(error.__context__)
