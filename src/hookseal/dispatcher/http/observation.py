"""Describes how a test request reached an endpoint: the addresses of the host name, and the connection."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from hookseal.dispatcher.core.model import Answer, Request


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


def _seen_tls(tls: ssl.SSLObject) -> SeenTls:
    certificate: Mapping[str, Any] = tls.getpeercert() or {}
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
