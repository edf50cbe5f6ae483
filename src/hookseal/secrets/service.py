"""From a pointer to what signs: checked first, resolved whole or not at all, gone with the block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookseal.ground.errors import Malformed
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretNotFound, SecretTampered, SecretUnusable
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.pointer import require_own
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.signer import Signer
from hookseal.secrets.store import SecretStore, require_provider


class SecretService:
    """Hands out signers for endpoints. It fails closed: every signer that is due, or an error."""

    def __init__(self, store: SecretStore, integrity: IntegrityKey) -> None:
        self._store = store
        self._integrity = integrity

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        """Give the signer of the current secret, then of the previous one while it is due, for the block.

        After the block they sign nothing. Raises on entry, before any store is asked: `SecretTampered`
        (MAC, or a ref that is not of its form), `SecretDenied` (a ref of another tenant, endpoint or
        provider), `SecretUnusable` (a scheme or algorithm that no secret of ours can sign for),
        `SecretNotFound` (no secret yet); and then what the store raises for any one of them.
        """
        due = self._due(pointer)
        signers: list[Signer] = []
        try:
            for ref in due:
                secret = await self._store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
                signers.append(Signer(str(ref), secret))
            yield tuple(signers)
        finally:
            for signer in signers:
                signer.forget()

    def _due(self, pointer: Pointer) -> tuple[SecretRef, ...]:
        if pointer.secret_ref is None and pointer.mac is None:
            raise SecretNotFound("the endpoint has no secret yet")
        self._integrity.verify(pointer)
        if pointer.scheme != Scheme.STANDARD or pointer.algorithm != Algorithm.HMAC:
            raise SecretUnusable
        current = self._checked(pointer, pointer.secret_ref)
        previous = self._checked(pointer, pointer.previous_secret_ref)
        if current is None or (pointer.previous_due and previous is None):
            raise SecretNotFound("the endpoint lacks a secret that is due")
        return (current, previous) if previous is not None and pointer.previous_due else (current,)

    def _checked(self, pointer: Pointer, text: str | None) -> SecretRef | None:
        """Return the reference once it is known to be this endpoint's own, kept by the store that we have."""
        if text is None:
            return None
        try:
            ref = SecretRef.parse(text)
        except Malformed as error:
            raise SecretTampered(str(error)) from None
        require_own(ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id)
        require_provider(ref, self._store.provider)
        return ref
