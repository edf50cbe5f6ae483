"""Signers that need no key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookseal.dispatcher.ports import Signer
from hookseal.ground.pointer import Pointer


class EchoSigner:
    """Signs with the length of what it was given."""

    def __init__(self, ref: str) -> None:
        self.ref = ref

    def sign(self, content: bytes) -> str:
        """Return a signature that tells who signed and how much."""
        return f"v1,{self.ref}/{len(content)}"


class FixedSigners:
    """Hands out the same signers for every pointer, or raises the error it was given."""

    def __init__(self, *refs: str, error: Exception | None = None) -> None:
        self._refs = refs
        self._error = error
        self.open = 0

    @asynccontextmanager
    async def signers(self, _pointer: Pointer) -> AsyncIterator[tuple[Signer, ...]]:
        """Give the signers for the length of the block."""
        if self._error is not None:
            raise self._error
        self.open += 1
        try:
            yield tuple(EchoSigner(ref) for ref in self._refs)
        finally:
            self.open -= 1
