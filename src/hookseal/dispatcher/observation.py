"""What a test of an endpoint sees on its way: the addresses of its name, and the connection that its request took."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from hookseal.dispatcher.model import Answer, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAddress:
    """An address of a name, and why it may not be dialled, None if it may."""

    address: str
    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTls:
    """What was agreed on in a handshake, and whose certificate the receiver showed."""

    version: str | None
    cipher: str | None
    subject: str
    issuer: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The way of one request. No address says that its name was not resolved: `error` says why.

    `dialled` is the other end of its connection, None if it was never written; that is the proxy's where there is one.
    """

    addresses: tuple[SeenAddress, ...]
    error: str | None
    dialled: str | None
    tls: SeenTls | None


class Observing(Protocol):
    """A transport that tells of the way."""

    async def observed(self, request: Request) -> tuple[Answer, Observed]:
        """Return what became of the request, as `Transport.send` does, and the way that it took."""
        ...


async def resolved(
    host: str, refusal_of: Callable[[str], str | None], look_up: Callable[[str], tuple[str, ...]], *, seconds: float
) -> tuple[tuple[SeenAddress, ...], str | None]:
    """Return every address of the name with whether it may be dialled, or why there is none."""
    try:
        async with asyncio.timeout(seconds):
            addresses = await asyncio.to_thread(look_up, host)
    except TimeoutError:
        return (), f"the host name was not resolved within {seconds:g} s"
    except (OSError, ValueError):
        return (), "the host name could not be resolved"
    return tuple(SeenAddress(address=each, refusal=refusal_of(each)) for each in addresses), None


def seen_connection(transport: asyncio.BaseTransport) -> tuple[str | None, SeenTls | None]:
    """Return where a connection leads, and what its handshake agreed on."""
    peer = transport.get_extra_info("peername")
    spoken = transport.get_extra_info("ssl_object")
    dialled = None if not peer else f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    return dialled, None if spoken is None else _tls(spoken)


def _tls(spoken: ssl.SSLObject) -> SeenTls:
    shown: Mapping[str, Any] = spoken.getpeercert() or {}
    cipher = spoken.cipher()
    until = shown.get("notAfter")
    return SeenTls(
        version=spoken.version(),
        cipher=None if cipher is None else cipher[0],
        subject=_name(shown.get("subject", ())),
        issuer=_name(shown.get("issuer", ())),
        expires_at=None if until is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC),
    )


def _name(parts: Any) -> str:
    return ", ".join(f"{name}={value}" for part in parts for name, value in part)
