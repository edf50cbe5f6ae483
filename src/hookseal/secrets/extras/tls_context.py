"""Makes TLS contexts for endpoints that have a TLS identity, in a thread, and caches them."""

import asyncio
import base64
import errno
import hashlib
import hmac
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from hookseal.errors import Exhausted, LocalFailure, SecretUnusable, Unavailable, exhausted_resource
from hookseal.ground.clock import Clock
from hookseal.ground.single_flight import SingleFlight
from hookseal.ground.tls import verifying_context
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras import tls_identity
from hookseal.secrets.extras.tls_identity import ClientCertificate, TlsIdentity

MOST_BYTES: Final = 134_217_728
# The memory of a context in OpenSSL and of each certificate that it trusts, rounded up. Measured: 711 KB with the 146
# certificates of Debian, 23 KB with one certificate.
CONTEXT_BYTES: Final = 32_768
CERTIFICATE_BYTES: Final = 6_144
MOST_AT_ONCE: Final = 64  # they take about a second, and an attempt must begin within two
WAIT_SECONDS: Final = 2.0
_PASSPHRASE_BYTES: Final = 32
_REFUSED: Final = "OpenSSL refuses the TLS identity of the endpoint ({reason}): set it again"
_NOT_MADE: Final = "the TLS context of the endpoint cannot be made on this machine now ({reason})"
_TOO_MANY: Final = (
    "the TLS context of the endpoint was not made in time: this worker is asked for more of them than it can make or "
    "hold, so run more workers"
)

# Makes a context. It trusts only the PEM certificates that are passed; without any, those that the installation trusts.
Trust = Callable[[str | None], ssl.SSLContext]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndpointTls:
    """A context for connections, valid until the monotonic time `expires_at`. `key` is the ref of the TLS identity."""

    key: str
    context: ssl.SSLContext = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Cached:
    tls: EndpointTls
    digest: bytes
    bytes: int


class TlsContexts:
    """Makes contexts, and caches each as long as a secret may be cached, as many as fit into `most_bytes`.

    One thread makes them one after the other, because each takes milliseconds of computing. A TTL of 0 caches none.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ttl_seconds: int,
        trust: Trust,
        random_bytes: Callable[[int], bytes] = os.urandom,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._trust = trust
        self._random_bytes = random_bytes
        self._most_bytes = most_bytes
        self._cached: OrderedDict[str, _Cached] = OrderedDict()
        self._bytes = 0
        self._clears = 0
        self._flights: SingleFlight[tuple[str, bytes], EndpointTls] = SingleFlight()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tls-context")

    async def of(self, ref: str, sealed: SecretMaterial) -> EndpointTls:
        """Return the context of the TLS identity in this version, from the cache if it is there.

        Concurrent calls for the same version share one context. Raises `SecretUnusable` if the identity must not be
        used, `LocalFailure` if this process cannot make the context within two seconds, and `Exhausted` if this machine
        lacks a file descriptor or memory for it.
        """
        digest = hashlib.sha256(sealed.reveal()).digest()
        self._remove_expired(self._clock.monotonic())
        cached = self._cached.get(ref)
        if cached is not None and hmac.compare_digest(cached.digest, digest):
            self._cached.move_to_end(ref)
            return cached.tls
        if self._flights.under_way >= MOST_AT_ONCE and not self._flights.has((ref, digest)):
            raise LocalFailure(_TOO_MANY)
        flight, _ = self._flights.join((ref, digest), lambda: self._make(ref, digest, sealed))
        await asyncio.wait({flight}, timeout=WAIT_SECONDS)
        if not flight.done():
            raise LocalFailure(_TOO_MANY)
        return flight.result()

    def clear(self) -> None:
        """Empty the cache. Contexts that are being made now are not cached either."""
        self._cached.clear()
        self._bytes = 0
        self._clears += 1
        self._flights.forget()

    def __len__(self) -> int:
        return len(self._cached)

    async def _make(self, ref: str, digest: bytes, sealed: SecretMaterial) -> EndpointTls:
        clears, expires_at = self._clears, self._clock.monotonic() + self._ttl_seconds
        context = await asyncio.get_running_loop().run_in_executor(self._thread, self._context, sealed)
        tls = EndpointTls(key=ref, context=context, expires_at=expires_at)
        if clears == self._clears and self._clock.monotonic() < expires_at:
            self._store(ref, _Cached(tls, digest, _bytes_of(context)))
        return tls

    def _context(self, sealed: SecretMaterial) -> ssl.SSLContext:
        return context_of(tls_identity.read(sealed), self._trust, self._random_bytes)

    def _store(self, ref: str, cached: _Cached) -> None:
        self._remove(ref)
        self._cached[ref] = cached
        self._bytes += cached.bytes
        while self._bytes > self._most_bytes:
            self._remove(next(iter(self._cached)))

    def _remove(self, ref: str) -> None:
        cached = self._cached.pop(ref, None)
        if cached is not None:
            self._bytes -= cached.bytes

    def _remove_expired(self, now: float) -> None:
        for ref in [ref for ref, cached in self._cached.items() if now >= cached.tls.expires_at]:
            self._remove(ref)


def _bytes_of(context: ssl.SSLContext) -> int:
    return CONTEXT_BYTES + CERTIFICATE_BYTES * context.cert_store_stats()["x509"]


def context_of(
    identity: TlsIdentity, trust: Trust = verifying_context, random_bytes: Callable[[int], bytes] = os.urandom
) -> ssl.SSLContext:
    """Return a context with the client certificate of the identity; if it has authorities, it trusts only them.

    Raises `SecretUnusable` if OpenSSL refuses the identity, `Exhausted` if this machine lacks a file descriptor or
    memory for the context, and `LocalFailure` for any other failure of this machine.
    """
    try:
        context = trust("".join(map(ssl.DER_cert_to_PEM_cert, identity.authorities)) or None)
        if identity.client is not None:
            _load_certificate(context, identity.client, random_bytes)
    except ssl.SSLError as error:
        raise SecretUnusable(_REFUSED.format(reason=error.reason)) from None
    except OSError as error:
        kind = LocalFailure if exhausted_resource(error) is None else Exhausted
        raise kind(_NOT_MADE.format(reason=errno.errorcode.get(error.errno or 0))) from None
    except Unavailable as error:
        raise LocalFailure(_NOT_MADE.format(reason=error)) from None
    return context


def _load_certificate(context: ssl.SSLContext, client: ClientCertificate, random_bytes: Callable[[int], bytes]) -> None:
    """Load certificate and key into the context. OpenSSL reads only files, so the key in the file is encrypted."""
    passphrase = base64.b64encode(random_bytes(_PASSPHRASE_BYTES))
    key = tls_identity.key_of(client.key).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)
    )
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, client.chain))
    with _file(chain.encode("ascii") + key) as path:
        context.load_cert_chain(path, password=passphrase)


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Yield the path of a private file with this content, which is deleted after the block; in memory on Linux."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    with os.fdopen(os.memfd_create("hookseal-tls"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
