"""From a pointer to what signs, what headers say, and who we are in TLS: checked first, and whole or not at all."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeVar

from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import Malformed
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets import header_values
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import (
    IntegrityKeyUnknown,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnusable,
)
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.pointer import require_own, require_own_headers, require_own_tls
from hookseal.secrets.reader import SecretReader, Statistics
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.seen import GenerationsSeen
from hookseal.secrets.signer import Signer
from hookseal.secrets.store import require_provider
from hookseal.secrets.tls_context import EndpointTls, TlsContexts, system_trust

_SCHEMES: Final = {scheme.value: scheme for scheme in Scheme}
_ALGORITHMS: Final = {algorithm.value: algorithm for algorithm in Algorithm}
_OWN: Final = {Purpose.ENDPOINT_HEADERS: require_own_headers, Purpose.ENDPOINT_TLS: require_own_tls}
_REFS_REMEMBERED: Final = 16_384  # as text they come with every claim, and reading one costs ten times as much

_NO_EPOCHS: Final = (
    "hookseal.control lacks its row `cache` or `restore`, or an epoch there is below zero: put the row back, with an "
    "epoch above the one that it had (docs/threat-model.md)"
)

Learn = Callable[[str], Awaitable[None]]
ReadAgain = Callable[[], Awaitable[None]]
Report = Callable[[Pointer, SecretError], None]
_Read = TypeVar("_Read")


async def knows_all(_key_id: str) -> None:
    """Learn no version of the integrity key: those that are known are all."""


async def stays() -> None:
    """Read no version of the integrity key again: they are as they were."""


class _Due(NamedTuple):
    """A version that must sign, as the row spells it and as it was read, and how it was made to."""

    text: str
    ref: SecretRef
    scheme: Scheme
    algorithm: Algorithm


class _Refusals:
    """Counts the secret errors that leave its block."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, SecretError):
            self.count += 1


class _Lent:
    """Signers for one block. A class, since a generator would cost a delivery two microseconds more."""

    __slots__ = ("_resolving", "_signers")

    def __init__(self, resolving: Callable[[], Awaitable[tuple[Signer, ...]]]) -> None:
        self._resolving = resolving
        self._signers: tuple[Signer, ...] = ()

    async def __aenter__(self) -> tuple[Signer, ...]:
        self._signers = await self._resolving()
        return self._signers

    async def __aexit__(self, *_: object) -> None:
        for signer in self._signers:
            signer.forget()


class SecretService:
    """Hands out signers, header values and TLS identities for endpoints. It fails closed: all that is due, or an error.

    `learn` is told the id of a version of the integrity key that a row names and that is not known yet; it may
    have the key adopt it. `read_again` is called for another database and under a new epoch of restores, which may
    have another key under a version that is known; it may have the key adopt that.
    """

    def __init__(
        self,
        reader: SecretReader,
        integrity: IntegrityKey,
        *,
        learn: Learn = knows_all,
        read_again: ReadAgain = stays,
        contexts: TlsContexts | None = None,
    ) -> None:
        self._reader = reader
        if contexts is None:
            contexts = TlsContexts(clock=SystemClock(), ttl_seconds=0, trust=system_trust)
        self._contexts = contexts
        self._integrity = integrity
        self._learn = learn
        self._read_again = read_again
        self._read_under: tuple[int, int] | None = None  # database and epoch of restores of the integrity key
        self._seen = GenerationsSeen()
        self._report: Report | None = None
        self._refusals = _Refusals()

    def report_to(self, report: Report) -> None:
        """Tell it of every pointer whose secrets are refused for good, and why. It must neither wait nor raise."""
        self._report = report

    def signers(self, pointer: Pointer) -> AbstractAsyncContextManager[tuple[Signer, ...]]:
        """Give the signer of the current secret, then of the previous one while it is due, for the block.

        After the block they sign nothing. What was read from another database or under an older cache epoch than the
        pointer's is forgotten first. Raises on entry, before anything is read: `SecretTampered` (MAC, a row that was
        put back, a ref that is not of its form, a previous secret without its scheme), `SecretDenied` (a ref of
        another tenant, endpoint or provider), `SecretUnusable` (a scheme or algorithm that no secret of ours can
        sign for), `SecretNotFound` (no secret yet); and then, for any one of them, what the store raises, within
        two seconds for all.
        """
        return _Lent(partial(self._resolved, pointer))

    @asynccontextmanager
    async def headers(self, pointer: Pointer) -> AsyncIterator[Mapping[str, SecretMaterial]]:
        """Give the values of the endpoint's own headers, masked, by name in lower case, for the block.

        There are none without a ref. After the block the mapping is empty. Raises as `signers` does, and
        `SecretUnusable` if what was sealed may not be sent.
        """
        if pointer.headers_ref is None:
            yield {}
            return
        values = await self._beside(pointer, pointer.headers_ref, Purpose.ENDPOINT_HEADERS, _header_values)
        try:
            yield values
        finally:
            values.clear()

    @asynccontextmanager
    async def tls(self, pointer: Pointer) -> AsyncIterator[EndpointTls | None]:
        """Give the context to dial the endpoint with, None if it has no TLS identity of its own, for the block.

        It is held for as long as a secret is cached, and no longer than the epoch. Raises as `signers` does,
        `SecretUnusable` if what was sealed may not be used, and `LocalFailure` or `Exhausted` if this process or
        this machine cannot make the context now.
        """
        text = pointer.tls_ref
        if text is None:
            yield None
            return
        yield await self._beside(pointer, text, Purpose.ENDPOINT_TLS, lambda sealed: self._contexts.of(text, sealed))

    def statistics(self) -> Statistics:
        """Return what was read since the start, and what is cached now.

        Who was refused before the store was asked, or got a secret that cannot sign, is a definitive failure too.
        """
        read = self._reader.statistics()
        return replace(read, definitive_failures=read.definitive_failures + self._refusals.count)

    async def _resolved(self, pointer: Pointer) -> tuple[Signer, ...]:
        self._obey(pointer)
        try:
            with self._refusals:
                if pointer.secret_ref is None and pointer.mac is None:
                    raise SecretNotFound("the endpoint has no secret yet")
                await self._require_trusted(pointer)
                due = self._due(pointer)
            secrets = await self._reader.read([version.ref for version in due], purpose=Purpose.WEBHOOK_SIGNING)
            with self._refusals:
                return tuple(
                    [
                        Signer(version.text, secret, version.scheme, version.algorithm)
                        for version, secret in zip(due, secrets, strict=True)
                    ]
                )
        except SecretError as error:
            self._tell(pointer, error)
            raise

    async def _beside(
        self,
        pointer: Pointer,
        text: str,
        purpose: Purpose,
        read: Callable[[SecretMaterial], Awaitable[_Read]],
    ) -> _Read:
        """Return what the one version holds that the pointer names for that purpose, beside those that sign."""
        self._obey(pointer)
        try:
            with self._refusals:
                await self._require_trusted(pointer)
                ref = _parsed(text)
                _OWN[purpose](ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id)
                require_provider(ref, self._reader.provider)
            [sealed] = await self._reader.read([ref], purpose=purpose)
            with self._refusals:
                return await read(sealed)
        except SecretError as error:
            self._tell(pointer, error)
            raise

    def _tell(self, pointer: Pointer, error: SecretError) -> None:
        if self._report is not None:
            self._report(pointer, error)

    def _obey(self, pointer: Pointer) -> None:
        forgotten = self._reader.forgotten
        self._reader.stand_on(pointer.database)
        self._reader.obey((pointer.restore_epoch, pointer.cache_epoch), pointer.read_at)
        if self._reader.forgotten != forgotten:
            self._contexts.clear()

    async def _require_trusted(self, pointer: Pointer) -> None:
        """Return only if the row is genuine and the newest that anybody knows."""
        if pointer.cache_epoch < 0 or pointer.restore_epoch < 0:
            raise SecretTampered(_NO_EPOCHS)
        if (under := (pointer.database, pointer.restore_epoch)) != self._read_under:
            await self._read_again()
            self._read_under = under
        try:
            self._integrity.verify(pointer)
        except IntegrityKeyUnknown:
            if pointer.mac_key_id is None:
                raise
            await self._learn(pointer.mac_key_id)
            self._integrity.verify(pointer)
        self._seen.require_newest(pointer)

    def _due(self, pointer: Pointer) -> tuple[_Due, ...]:
        how = _usable(pointer.scheme, pointer.algorithm)
        current = self._checked(pointer, pointer.secret_ref)
        previous = self._checked(pointer, pointer.previous_secret_ref)
        if current is None or (pointer.previous_due and previous is None):
            raise SecretNotFound("the endpoint lacks a secret that is due")
        first = _Due(*current, *how)
        if previous is None or not pointer.previous_due:
            return (first,)
        if pointer.previous_scheme is None or pointer.previous_algorithm is None:
            raise SecretTampered("the endpoint row lacks the scheme or the algorithm of its previous secret")
        how = _usable(pointer.previous_scheme, pointer.previous_algorithm)
        return first, _Due(*previous, *how)

    def _checked(self, pointer: Pointer, text: str | None) -> tuple[str, SecretRef] | None:
        """Return the reference, as text and read, once it is known to be the endpoint's own and in our store."""
        if text is None:
            return None
        ref = _parsed(text)
        require_own(ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id)
        require_provider(ref, self._reader.provider)
        return text, ref


async def _header_values(sealed: SecretMaterial) -> dict[str, SecretMaterial]:
    return header_values.read(sealed)


@lru_cache(maxsize=_REFS_REMEMBERED)
def _parsed(text: str) -> SecretRef:
    try:
        return SecretRef.parse(text)
    except Malformed as error:
        raise SecretTampered(str(error)) from None


def _usable(scheme: str, algorithm: str) -> tuple[Scheme, Algorithm]:
    """Return both if secrets of ours can sign in that scheme with that algorithm. Raises `SecretUnusable`."""
    found = _SCHEMES.get(scheme), _ALGORITHMS.get(algorithm)
    if found[0] is None or found[1] is None:
        raise SecretUnusable
    return found[0], found[1]
