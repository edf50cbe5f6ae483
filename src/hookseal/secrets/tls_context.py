"""TLS contexts for endpoints with an identity of their own: made when one is needed, held for a while, few of them."""

import base64
import hashlib
import hmac
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from hookseal.ground.clock import Clock
from hookseal.secrets import pem, tls_identity
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.tls_identity import ClientCertificate, TlsIdentity

MOST_CONTEXTS: Final = 128  # one that trusts what the system does takes 0.9 MB
_PASSPHRASE_BYTES: Final = 32
_REFUSED: Final = "OpenSSL refuses the TLS identity of the endpoint ({reason}): set it anew"

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


def system_trust(alone: str | None) -> ssl.SSLContext:
    """Return a context that trusts these certificates alone, or what the system trusts."""
    return ssl.create_default_context(cadata=alone)


class TlsContexts:
    """Makes contexts, and holds each for as long as a secret may be cached, at most `most` of them.

    With a TTL of 0 none is held.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ttl_seconds: int,
        trust: Trust,
        random_bytes: Callable[[int], bytes] = os.urandom,
        most: int = MOST_CONTEXTS,
    ) -> None:
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._trust = trust
        self._random_bytes = random_bytes
        self._most = most
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def of(self, ref: str, sealed: SecretMaterial) -> EndpointTls:
        """Return the context of the identity that this version holds; the same one while it is held.

        Raises `SecretUnusable` if it is not such as may be used.
        """
        now, digest = self._clock.monotonic(), hashlib.sha256(sealed.reveal()).digest()
        self._shed(now)
        held = self._held.get(ref)
        if held is not None and hmac.compare_digest(held.digest, digest):
            self._held.move_to_end(ref)
            return held.tls
        context = context_of(tls_identity.read(sealed), self._trust, self._random_bytes)
        made = EndpointTls(key=ref, context=context, expires_at=now + self._ttl_seconds)
        if self._ttl_seconds > 0:
            self._held[ref] = _Held(made, digest)
            self._held.move_to_end(ref)
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        return made

    def clear(self) -> None:
        """Hold none."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

    def _shed(self, now: float) -> None:
        for ref in [ref for ref, held in self._held.items() if now >= held.tls.expires_at]:
            del self._held[ref]


def context_of(
    identity: TlsIdentity, trust: Trust = system_trust, random_bytes: Callable[[int], bytes] = os.urandom
) -> ssl.SSLContext:
    """Return a context that proves who we are, and trusts the identity's own authorities, if it has any, alone.

    Raises `SecretUnusable` if OpenSSL takes something of it for unfit.
    """
    try:
        context = trust("".join(map(ssl.DER_cert_to_PEM_cert, identity.authorities)) or None)
        if identity.client is not None:
            _prove(context, identity.client, random_bytes)
    except ssl.SSLError as error:
        raise SecretUnusable(_REFUSED.format(reason=error.reason)) from None
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
