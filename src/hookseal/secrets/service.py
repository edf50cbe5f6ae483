"""From a pointer to what signs: checked first, resolved whole or not at all, gone with the block."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from hookseal.ground.errors import Malformed
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretError, SecretNotFound, SecretTampered, SecretUnusable
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.pointer import require_own
from hookseal.secrets.reader import SecretReader, Statistics
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.signer import Signer
from hookseal.secrets.store import require_provider

_SCHEMES: Final = frozenset(Scheme)
_ALGORITHMS: Final = frozenset(Algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A version that must sign, and the scheme that it was made for."""

    ref: SecretRef
    scheme: Scheme


class SecretService:
    """Hands out signers for endpoints. It fails closed: every signer that is due, or an error."""

    def __init__(self, reader: SecretReader, integrity: IntegrityKey) -> None:
        self._reader = reader
        self._integrity = integrity
        self._refused = 0

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        """Give the signer of the current secret, then of the previous one while it is due, for the block.

        After the block they sign nothing. What was read under an older cache epoch than the pointer's is
        forgotten first. Raises on entry, before anything is read: `SecretTampered` (MAC, a ref that is not of
        its form, a previous secret without its scheme), `SecretDenied` (a ref of another tenant, endpoint or
        provider), `SecretUnusable` (a scheme or algorithm that no secret of ours can sign for),
        `SecretNotFound` (no secret yet); and then, for any one of them, what the store raises, within two
        seconds for all.
        """
        self._reader.obey(pointer.cache_epoch)
        with self._refusals_counted():
            due = self._due(pointer)
        secrets = await self._reader.read([version.ref for version in due], purpose=Purpose.WEBHOOK_SIGNING)
        signers: list[Signer] = []
        try:
            with self._refusals_counted():
                for version, secret in zip(due, secrets, strict=True):
                    signers.append(Signer(str(version.ref), secret, version.scheme))
            yield tuple(signers)
        finally:
            for signer in signers:
                signer.forget()

    def statistics(self) -> Statistics:
        """Return what was read since the start, and what is cached now.

        Who was refused before the store was asked, or got a secret that cannot sign, is a definitive failure too.
        """
        read = self._reader.statistics()
        return replace(read, definitive_failures=read.definitive_failures + self._refused)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except SecretError:
            self._refused += 1
            raise

    def _due(self, pointer: Pointer) -> tuple[_Due, ...]:
        if pointer.secret_ref is None and pointer.mac is None:
            raise SecretNotFound("the endpoint has no secret yet")
        self._integrity.verify(pointer)
        scheme = _usable(pointer.scheme, pointer.algorithm)
        current = self._checked(pointer, pointer.secret_ref)
        previous = self._checked(pointer, pointer.previous_secret_ref)
        if current is None or (pointer.previous_due and previous is None):
            raise SecretNotFound("the endpoint lacks a secret that is due")
        first = _Due(ref=current, scheme=scheme)
        if previous is None or not pointer.previous_due:
            return (first,)
        if pointer.previous_scheme is None or pointer.previous_algorithm is None:
            raise SecretTampered("the endpoint row lacks the scheme or the algorithm of its previous secret")
        return first, _Due(ref=previous, scheme=_usable(pointer.previous_scheme, pointer.previous_algorithm))

    def _checked(self, pointer: Pointer, text: str | None) -> SecretRef | None:
        """Return the reference once it is known to be this endpoint's own, kept by the store that we have."""
        if text is None:
            return None
        try:
            ref = SecretRef.parse(text)
        except Malformed as error:
            raise SecretTampered(str(error)) from None
        require_own(ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id)
        require_provider(ref, self._reader.provider)
        return ref


def _usable(scheme: str, algorithm: str) -> Scheme:
    """Return the scheme if a secret of ours can sign in it with that algorithm. Raises `SecretUnusable`."""
    if scheme not in _SCHEMES or algorithm not in _ALGORITHMS:
        raise SecretUnusable
    return Scheme(scheme)
