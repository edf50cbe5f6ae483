"""Signers that need no key."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from hookseal.dispatcher.core.model import TlsIdentity
from hookseal.dispatcher.core.ports import Signer, Tls
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.material import SecretMaterial

_SPELLED: Final = {Scheme.STANDARD: "v1,", Scheme.SVIX: "v1,", Scheme.X_WEBHOOK: "sha256="}


class EchoSigner:
    """Signs with the length of the content."""

    def __init__(self, ref: str, scheme: Scheme = Scheme.STANDARD) -> None:
        self.ref = ref
        self.scheme = scheme

    def sign(self, content: bytes) -> str:
        """Return a signature that names the signer and the length of the content."""
        return f"{_SPELLED[self.scheme]}{self.ref}/{len(content)}"


class FixedSigners:
    """Yields signers for the same references, whatever the pointer says of them, or raises the given error.

    The first has the pointer's scheme, all others that of the previous secret. If the pointer has a reference to header
    values, these are yielded, or their error is raised.
    """

    def __init__(
        self,
        *refs: str,
        error: Exception | None = None,
        headers: Mapping[str, bytes] | None = None,
        headers_error: Exception | None = None,
        tls: TlsIdentity | None = None,
    ) -> None:
        self._refs = refs
        self._error = error
        self._headers = headers or {}
        self._headers_error = headers_error
        self.open = 0
        self._tls = tls
        self.headers_open = 0

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        if self._error is not None:
            raise self._error
        previous = pointer.previous_scheme or pointer.scheme
        self.open += 1
        try:
            yield tuple(
                EchoSigner(ref, Scheme(previous if earlier else pointer.scheme))
                for earlier, ref in enumerate(self._refs)
            )
        finally:
            self.open -= 1

    @asynccontextmanager
    async def headers(self, pointer: Pointer) -> AsyncIterator[Mapping[str, SecretMaterial]]:
        """Yield the header values during the block."""
        if pointer.headers_ref is None:
            yield {}
            return
        if self._headers_error is not None:
            raise self._headers_error
        values = {name: SecretMaterial(value) for name, value in self._headers.items()}
        self.headers_open += 1
        try:
            yield values
        finally:
            self.headers_open -= 1
            values.clear()

    @asynccontextmanager
    async def tls(self, pointer: Pointer) -> AsyncIterator[Tls | None]:
        """Yield the TLS identity if the pointer has a reference to one; its error is that of the headers."""
        if pointer.tls_ref is None:
            yield None
            return
        if self._headers_error is not None:
            raise self._headers_error
        yield None if self._tls is None else FixedTls(self._tls)


class FixedTls:
    """A TLS identity in the form in which the secrets room yields it."""

    def __init__(self, identity: TlsIdentity) -> None:
        self.key = identity.key
        self.context = identity.context
        self.expires_at = identity.expires_at or 0.0
