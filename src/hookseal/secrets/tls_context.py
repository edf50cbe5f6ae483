"""TLS contexts for endpoints with an identity of their own: made beside the event loop, and held for a while."""

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

from hookseal.ground.clock import Clock
from hookseal.ground.errors import Exhausted, LocalFailure, Unavailable
from hookseal.ground.lack import lack
from hookseal.secrets import pem, tls_identity
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.single_flight import SingleFlight
from hookseal.secrets.tls_identity import ClientCertificate, TlsIdentity

MOST_BYTES: Final = 134_217_728
# What OpenSSL takes for a context and for each certificate that it trusts, rounded up from what was measured: with
# the 146 that Debian trusts 711 KB, with one of its own 23 KB.
CONTEXT_BYTES: Final = 32_768
CERTIFICATE_BYTES: Final = 6_144
MOST_AT_ONCE: Final = 64  # so many take about a second, and an attempt must begin within two
WAIT_SECONDS: Final = 2.0
_PASSPHRASE_BYTES: Final = 32
_REFUSED: Final = "OpenSSL refuses the TLS identity of the endpoint ({reason}): set it anew"
_NOT_MADE: Final = "the TLS context of the endpoint cannot be made on this machine now ({reason})"
_TOO_MANY: Final = (
    "the TLS context of the endpoint was not made in time: this worker is asked for more of them than it can make or "
    "hold, so run more workers"
)

# Given certificates, as PEM, a context that trusts these alone; given none, what the installation trusts.
Trust = Callable[[str | None], ssl.SSLContext]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndpointTls:
    """A context that is ready to dial with, until the monotonic time `expires_at`; `key` is the ref that it is of."""

    key: str
    context: ssl.SSLContext = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Held:
    tls: EndpointTls
    digest: bytes
    bytes: int


def system_trust(alone: str | None) -> ssl.SSLContext:
    """Return a context that trusts these certificates alone, or what the system trusts."""
    return ssl.create_default_context(cadata=alone)


class TlsContexts:
    """Makes contexts, and holds each for as long as a secret may be cached, as many as fit into `most_bytes`.

    They are made in one thread, one after the other, since that takes milliseconds of computing. With a TTL of 0 none
    is held.
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
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._bytes = 0
        self._clears = 0
        self._flights: SingleFlight[tuple[str, bytes], EndpointTls] = SingleFlight()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tls-context")

    async def of(self, ref: str, sealed: SecretMaterial) -> EndpointTls:
        """Return the context of the identity that this version holds; the same one while it is held.

        Those who ask for the same one at the same time share it. Raises `SecretUnusable` if it is not such as may be
        used, `LocalFailure` if this process cannot make it now or not within two seconds, and `Exhausted` if it is a
        file descriptor or memory that this machine lacks for it.
        """
        digest = hashlib.sha256(sealed.reveal()).digest()
        self._shed(self._clock.monotonic())
        held = self._held.get(ref)
        if held is not None and hmac.compare_digest(held.digest, digest):
            self._held.move_to_end(ref)
            return held.tls
        if self._flights.under_way >= MOST_AT_ONCE and not self._flights.has((ref, digest)):
            raise LocalFailure(_TOO_MANY)
        flight, _ = self._flights.join((ref, digest), lambda: self._made(ref, digest, sealed))
        await asyncio.wait({flight}, timeout=WAIT_SECONDS)
        if not flight.done():
            raise LocalFailure(_TOO_MANY)
        return flight.result()

    def clear(self) -> None:
        """Hold none, nor one that is being made now."""
        self._held.clear()
        self._bytes = 0
        self._clears += 1
        self._flights.forget()

    def __len__(self) -> int:
        return len(self._held)

    async def _made(self, ref: str, digest: bytes, sealed: SecretMaterial) -> EndpointTls:
        clears, expires_at = self._clears, self._clock.monotonic() + self._ttl_seconds
        context = await asyncio.get_running_loop().run_in_executor(self._thread, self._context, sealed)
        tls = EndpointTls(key=ref, context=context, expires_at=expires_at)
        if clears == self._clears and self._clock.monotonic() < expires_at:
            self._hold(ref, _Held(tls, digest, _bytes_of(context)))
        return tls

    def _context(self, sealed: SecretMaterial) -> ssl.SSLContext:
        return context_of(tls_identity.read(sealed), self._trust, self._random_bytes)

    def _hold(self, ref: str, held: _Held) -> None:
        self._leave(ref)
        self._held[ref] = held
        self._bytes += held.bytes
        while self._bytes > self._most_bytes:
            self._leave(next(iter(self._held)))

    def _leave(self, ref: str) -> None:
        held = self._held.pop(ref, None)
        if held is not None:
            self._bytes -= held.bytes

    def _shed(self, now: float) -> None:
        for ref in [ref for ref, held in self._held.items() if now >= held.tls.expires_at]:
            self._leave(ref)


def _bytes_of(context: ssl.SSLContext) -> int:
    return CONTEXT_BYTES + CERTIFICATE_BYTES * context.cert_store_stats()["x509"]


def context_of(
    identity: TlsIdentity, trust: Trust = system_trust, random_bytes: Callable[[int], bytes] = os.urandom
) -> ssl.SSLContext:
    """Return a context that proves who we are, and trusts the identity's own authorities, if it has any, alone.

    Raises `SecretUnusable` if OpenSSL takes something of it for unfit, `Exhausted` if this machine has no file
    descriptor or memory for it, and `LocalFailure` for any other failure of this machine.
    """
    try:
        context = trust("".join(map(ssl.DER_cert_to_PEM_cert, identity.authorities)) or None)
        if identity.client is not None:
            _prove(context, identity.client, random_bytes)
    except ssl.SSLError as error:
        raise SecretUnusable(_REFUSED.format(reason=error.reason)) from None
    except OSError as error:
        kind = LocalFailure if lack(error) is None else Exhausted
        raise kind(_NOT_MADE.format(reason=errno.errorcode.get(error.errno or 0))) from None
    except Unavailable as error:
        raise LocalFailure(_NOT_MADE.format(reason=error)) from None
    return context


def _prove(context: ssl.SSLContext, client: ClientCertificate, random_bytes: Callable[[int], bytes]) -> None:
    """Give the context the certificate and its key. OpenSSL reads files only: this one holds the key encrypted."""
    passphrase = base64.b64encode(random_bytes(_PASSPHRASE_BYTES))
    key = pem.key_of(client.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, client.chain))
    with _file(chain.encode("ascii") + key) as path:
        context.load_cert_chain(path, password=passphrase)


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Give the path of a file of ours alone for the block: in memory where there is such a thing."""
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
