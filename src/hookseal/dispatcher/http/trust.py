"""Decides which certificates of receivers are trusted, and which TLS sessions are resumed.

A resumed session needs no certificate: it proves that the receiver is the one whose certificate was verified in the
handshake with which the session began. So it is resumed only where that handshake would have had the same result.
"""

import asyncio
import ssl
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from hookseal.dispatcher.http.egress_guard import exhaustion_error
from hookseal.dispatcher.http.observation import PROGRESS, Limits, certificate_of
from hookseal.errors import Exhausted, Unavailable
from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId

# A session contains a ticket and the certificates of the receiver, and a connection has them, too. OpenSSL takes 100 KB
# of certificates, and a byte of them needs up to 60 bytes of memory, because each name in a certificate becomes several
# objects, however short it is.
HANDSHAKE_BYTES: Final = 32_768
SESSION_BYTES: Final = 8_192
REFUSAL_BYTES: Final = 1_024
# SSL_OP_NO_RX_CERTIFICATE_COMPRESSION, for which Python has no name. OpenSSL before 3.2 ignores it: it knows no
# compressed certificates.
_NO_COMPRESSED_CERTIFICATES: Final = 1 << 33
_MINIMUM: Final = ssl.TLSVersion.TLSv1_2


class LargeHandshakeError(ssl.SSLError):
    """The receiver sent more in the handshake than `HANDSHAKE_BYTES`."""


class ReceiverTls(ssl.SSLObject):
    """The TLS of one connection. It counts the bytes that the receiver sent for the handshake and for tickets."""

    incoming: ssl.MemoryBIO
    session_bytes = 0

    def do_handshake(self) -> None:
        """Continue the handshake, as far as possible.

        Raises `LargeHandshakeError` before certificates that are too large are decoded.
        """
        waiting = self.incoming.pending
        if self.session_bytes + waiting > HANDSHAKE_BYTES:
            raise LargeHandshakeError
        try:
            super().do_handshake()
        finally:
            self.session_bytes += waiting - self.incoming.pending

    def read(self, *args: Any) -> Any:
        """Return content, or the number of its bytes if `args` contain a buffer. Tickets arrive before the content."""
        waiting, content_bytes = self.incoming.pending, 0
        try:
            content: Any = super().read(*args)
            content_bytes = content if isinstance(content, int) else len(content)
            return content
        finally:
            self.session_bytes += waiting - self.incoming.pending - content_bytes

    def getpeercert(self, *_: Any, **__: Any) -> None:
        """Return nothing to the event loop, which would keep the certificate in a dict as long as the connection.

        Such a dict needs even more memory than the certificate in OpenSSL; `certificate_of` makes one when it is used.
        """


class ReceiverContext(ssl.SSLContext):
    """A context that offers the TLS session of the current request to the receiver: the event loop passes none on."""

    sslobject_class = ReceiverTls

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        """Return the TLS of a new connection."""
        progress = PROGRESS.get(None)
        if progress is not None:
            options["session"], progress.tls_session = progress.tls_session, None
        tls = super().wrap_bio(incoming, *args, **options)
        if isinstance(tls, ReceiverTls):
            tls.incoming = incoming
        return tls


class SessionKey(NamedTuple):
    """Who may resume a session, and where.

    `owner` is the connector: its requests have the same egress rights, proxy and TLS context.
    """

    owner: object
    tenant: TenantId
    place: tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class KeptSession:
    """A session that may be resumed before the monotonic time `until`. Without a session, none is kept until then.

    `size` is what counts towards the limits: the bytes that the receiver sent for it.
    """

    session: ssl.SSLSession | None = field(repr=False)
    until: float
    size: int


def size_of(tls: ReceiverTls, offered: KeptSession | None) -> int:
    """Return how many bytes the receiver sent for what is kept of a handshake that offered it the session `offered`."""
    if offered is None or not tls.session_reused:
        return tls.session_bytes
    return max(offered.size, tls.session_bytes)  # it contains the certificates of the offered session


class TlsSessions:
    """The TLS sessions that may be resumed, each of them once: several for each key, because requests come in bursts.

    If they are too large together, the oldest goes first. Only sessions of TLS 1.3 are kept. When one of TLS 1.2 is
    resumed, no new keys are negotiated, so a person who learns the receiver's ticket key later can read what was sent.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        # All of them, those of each tenant and those of each key, the oldest first.
        self._all: dict[KeptSession, SessionKey] = {}
        self._size = 0
        self._size_of: Counter[TenantId] = Counter()
        self._of: defaultdict[TenantId, dict[KeptSession, None]] = defaultdict(dict)
        self._at: defaultdict[SessionKey, dict[KeptSession, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._all)

    def take(self, key: SessionKey) -> KeptSession | None:
        """Return the session that a new connection offers, and forget it: a ticket is used once (RFC 8446, C.4)."""
        kept = self._newest(key)
        if kept is None or kept.session is None:
            return None
        self._forget(kept)
        return kept

    def keep(
        self, key: SessionKey, offered: KeptSession | None, began: float, connection: asyncio.BaseTransport
    ) -> None:
        """Keep the session of a connection on which the receiver has answered: its tickets have arrived by then.

        The handshake began at the monotonic time `began`, and offered the session `offered`. If that was resumed, the
        new session ends when it would have ended: its certificate was verified then.
        """
        tls = connection.get_extra_info("ssl_object")
        if not isinstance(tls, ReceiverTls) or tls.version() != "TLSv1.3":
            return
        known = self._newest(key)
        is_refused = known is not None and known.session is None
        if is_refused or tls.session_bytes > SESSION_BYTES:
            return
        try:
            session = tls.session
        except ValueError:  # Python before 3.13 cannot copy a large one
            return
        if session is None or not session.has_ticket:
            return
        until = offered.until if offered is not None and tls.session_reused else self._until(began, certificate_of(tls))
        self._store(key, KeptSession(session, until, size_of(tls, offered)))

    def refuse(self, key: SessionKey) -> None:
        """Keep no session of this place for an hour: a handshake that offered one has failed."""
        self._forget_all(key)
        until = self._clock.monotonic() + self._limits.tls_session_seconds
        self._store(key, KeptSession(None, until, REFUSAL_BYTES))

    def drop(self, owner: object) -> None:
        """Forget every session of this connector."""
        for key in [key for key in self._at if key.owner is owner]:
            self._forget_all(key)

    def _newest(self, key: SessionKey) -> KeptSession | None:
        for kept in [*reversed(self._at.get(key, {}))]:
            if self._clock.monotonic() < kept.until:
                return kept
            self._forget(kept)
        return None

    def _until(self, began: float, certificate: Mapping[str, Any]) -> float:
        valid_seconds = ssl.cert_time_to_seconds(certificate["notAfter"]) - self._clock.now().timestamp()
        return min(began + self._limits.tls_session_seconds, self._clock.monotonic() + valid_seconds)

    def _store(self, key: SessionKey, kept: KeptSession) -> None:
        at_place, of_tenant = self._at[key], self._of[key.tenant]
        self._all[kept] = key
        at_place[kept] = of_tenant[kept] = None
        self._size += kept.size
        self._size_of[key.tenant] += kept.size
        if len(at_place) > self._limits.tls_sessions_at_place:
            self._forget(next(iter(at_place)))
        while self._size_of[key.tenant] > self._limits.tls_session_bytes_of_tenant:
            self._forget(next(iter(of_tenant)))
        while self._size > self._limits.tls_session_bytes:
            self._forget(next(iter(self._all)))

    def _forget_all(self, key: SessionKey) -> None:
        for kept in [*self._at.get(key, {})]:
            self._forget(kept)

    def _forget(self, kept: KeptSession) -> None:
        key = self._all.pop(kept)
        self._size -= kept.size
        self._size_of[key.tenant] -= kept.size
        del self._at[key][kept]
        del self._of[key.tenant][kept]
        if not self._at[key]:
            del self._at[key]
        if not self._of[key.tenant]:
            del self._of[key.tenant], self._size_of[key.tenant]


def client_context(*, extra: str | None = None, only: bool = False) -> ssl.SSLContext:
    """Return a context that verifies the receiver's certificate and name, from TLS 1.2 on.

    It trusts the authorities of the system and the certificates in `extra`, which is PEM; with `only`, just those in
    `extra`. Reading the authorities of the system takes tens of milliseconds. Raises `ssl.SSLError` if `extra` contains
    no certificate, and `ValueError` if it is not PEM. Raises `Unavailable` if the authorities of the system cannot be
    read (OpenSSL would silently trust nothing), and `Exhausted` if no file descriptor is left for that.
    """
    context = ReceiverContext(ssl.PROTOCOL_TLS_CLIENT)  # this protocol verifies the certificate and the name
    context.minimum_version = _MINIMUM
    context.options |= _NO_COMPRESSED_CERTIFICATES
    context.options |= ssl.OP_NO_RENEGOTIATION  # in TLS 1.2 it would bring further certificates, of any size
    context.set_alpn_protocols(("http/1.1",))
    if not only:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        _require_read(context, ssl.get_default_verify_paths().cafile)
    if extra is not None:
        context.load_verify_locations(cadata=extra)
    return context


def _require_read(context: ssl.SSLContext, path: str | None) -> None:
    """Raise `Exhausted` or `Unavailable` if the system has a file of authorities and none was read from it."""
    if path is not None and not context.cert_store_stats()["x509"] and Path(path).stat().st_size:
        kind = Exhausted if exhaustion_error() else Unavailable
        raise kind(
            f"no certificate was read from {path}, where the system keeps the authorities that it trusts: "
            "make the file readable, and leave this process a file descriptor for it"
        )
