"""Describes how a test request reached an endpoint: the addresses of the host name, and the connection."""

import asyncio
import ssl
from asyncio import BaseTransport
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from hookseal.dispatcher.core.model import Answer, Request
from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAddress:
    """An address of a host name, and why it must not be dialled; `refusal` is None if it may be."""

    address: str
    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTls:
    """The result of a TLS handshake, and the certificate of the receiver."""

    version: str | None
    cipher: str | None
    subject: str
    issuer: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """How one request reached its receiver.

    If the host name could not be resolved, there are no addresses and `error` says why. `dialled` is the peer of the
    connection (with an egress proxy, the proxy); None if the request was never written.
    """

    addresses: tuple[SeenAddress, ...]
    error: str | None
    dialled: str | None
    tls: SeenTls | None


class Observing(Protocol):
    """A transport that also reports how a request reached its receiver."""

    async def observed(self, request: Request) -> tuple[Answer, Observed]:
        """Send the request as `Transport.send` does; return the answer, and how the request reached the receiver."""
        ...


async def resolved(
    host: str, refusal_of: Callable[[str], str | None], look_up: Callable[[str], tuple[str, ...]], *, seconds: float
) -> tuple[tuple[SeenAddress, ...], str | None]:
    """Return every address of the host name with its refusal; or none, with the reason."""
    try:
        async with asyncio.timeout(seconds):
            addresses = await asyncio.to_thread(look_up, host)
    except TimeoutError:
        return (), f"the host name was not resolved within {seconds:g} s"
    except (OSError, ValueError):
        return (), "the host name could not be resolved"
    return tuple(SeenAddress(address=each, refusal=refusal_of(each)) for each in addresses), None


def seen_connection(transport: asyncio.BaseTransport) -> tuple[str | None, SeenTls | None]:
    """Return the peer of a connection, and the result of its TLS handshake if it has one."""
    peer = transport.get_extra_info("peername")
    tls = transport.get_extra_info("ssl_object")
    dialled = None if not peer else f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    return dialled, None if tls is None else _seen_tls(tls)


def certificate_of(tls: ssl.SSLObject) -> Mapping[str, Any]:
    """Return the certificate that the receiver sent, as `ssl.SSLObject.getpeercert` describes it; empty if none."""
    return ssl.SSLObject.getpeercert(tls) or {}  # `ReceiverTls` returns none to the event loop


def _seen_tls(tls: ssl.SSLObject) -> SeenTls:
    certificate = certificate_of(tls)
    cipher = tls.cipher()
    until = certificate.get("notAfter")
    return SeenTls(
        version=tls.version(),
        cipher=None if cipher is None else cipher[0],
        subject=_name(certificate.get("subject", ())),
        issuer=_name(certificate.get("issuer", ())),
        expires_at=None if until is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC),
    )


def _name(parts: Any) -> str:
    return ", ".join(f"{name}={value}" for part in parts for name, value in part)


class Phase(StrEnum):
    """What a request waits for."""

    NAME = "name"
    CONNECTION = "connection"
    PROXY = "proxy"
    HANDSHAKE = "handshake"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each part of a request may take, within the request's own time-out, and how many connections stay open.

    `name_seconds` is less than the two seconds within which a request must begin. So with a name server that is always
    slow, attempts are spent; otherwise the deliveries would be given back again and again. A look-up occupies its
    thread until the system gives up, which may be long after the request has ended. `idle_each` is at least the number
    of requests that may be in flight to one place: with fewer, requests that end together would close connections that
    the next ones open again. A TLS session may be resumed for `tls_session_seconds` after the handshake that verified
    the certificate. The bytes that receivers sent for the handshakes of the kept connections, and for the kept
    sessions, are limited; they need up to 60 times as much memory.
    """

    name_seconds: float = 1.5
    connect_seconds: float = 3.0
    handshake_seconds: float = 3.0
    body_seconds: float = 2.0
    look_ups_each: int = 4
    look_ups: int = 256
    idle_each: int = 500
    idle: int = 1_000
    idle_bytes: int = 8_388_608
    idle_seconds: float = 30.0
    tls_session_bytes: int = 8_388_608
    tls_session_bytes_of_tenant: int = 1_048_576
    tls_sessions_at_place: int = 32
    tls_session_seconds: float = 3_600.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """One request: its tenant, how far it has come, and the monotonic time by which it must have begun.

    After it has begun it may still connect to the next address of its name. `missing_resource` names what this machine
    had none left of when a socket was needed, if anything. `tls_session` is the TLS session that its next handshake
    offers to the receiver, if any. `connection` is the connection on which it is written,
    `lost_by` the error that ended that connection, and `cut_off` the reason if hookseal ended it. `watch`, if it is
    set, is called with the connection just before the request is written.
    """

    tenant: TenantId
    begin_by: float
    clock: Clock
    begun: bool = False
    missing_resource: str | None = None
    phase: Phase = Phase.NAME
    tls_session: ssl.SSLSession | None = field(default=None, repr=False)
    connection: Any = field(default=None, repr=False)
    lost_by: BaseException | None = field(default=None, repr=False)
    cut_off: str | None = None
    watch: Callable[[BaseTransport], None] | None = None

    def begin(self) -> bool:
        """Begin the request if its time is not over; return whether it has begun, now or before."""
        self.begun = self.begun or self.clock.monotonic() < self.begin_by
        return self.begun


PROGRESS: Final[ContextVar[Progress]] = ContextVar("progress")
