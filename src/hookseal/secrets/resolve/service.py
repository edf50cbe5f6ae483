"""Gives signers, header values and TLS identities for a pointer: it checks the pointer first, and gives all or none."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from hookseal.errors import IntegrityKeyUnknown, SecretError
from hookseal.ground.clock import SystemClock
from hookseal.ground.pointer import Pointer
from hookseal.ground.tls import verifying_context
from hookseal.secrets.core import header_values
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.core.signing import Signer
from hookseal.secrets.core.trust import (
    GenerationsSeen,
    IntegrityKey,
    require_epochs,
    require_secret,
    require_trusted,
    require_trusted_extra,
)
from hookseal.secrets.extras.tls_context import EndpointTls, TlsContexts
from hookseal.secrets.resolve.reader import SecretReader, Statistics

Learn = Callable[[str], Awaitable[None]]
ReadAgain = Callable[[], Awaitable[None]]
Report = Callable[[Pointer, SecretError], None]
_Read = TypeVar("_Read")


async def learn_nothing(_key_id: str) -> None:
    """Learn no version of the integrity key."""


async def read_nothing() -> None:
    """Read no version of the integrity key again."""


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


class _SignersBlock:
    """The signers of one block. It is a class because a generator would take two microseconds more per delivery."""

    __slots__ = ("_resolve", "_signers")

    def __init__(self, resolve: Callable[[], Awaitable[tuple[Signer, ...]]]) -> None:
        self._resolve = resolve
        self._signers: tuple[Signer, ...] = ()

    async def __aenter__(self) -> tuple[Signer, ...]:
        self._signers = await self._resolve()
        return self._signers

    async def __aexit__(self, *_: object) -> None:
        for signer in self._signers:
            signer.forget()


class SecretService:
    """Gives signers, header values and TLS identities for endpoints. It fails closed: everything due, or an error.

    `learn` is called with the id of a version of the integrity key that a row names and that is not known yet, so that
    the key may adopt it. `read_again` is called for another database and under a new restore epoch, where a known
    version may have another value, so that the key may adopt that.
    """

    def __init__(
        self,
        reader: SecretReader,
        integrity: IntegrityKey,
        *,
        learn: Learn = learn_nothing,
        read_again: ReadAgain = read_nothing,
        contexts: TlsContexts | None = None,
    ) -> None:
        self._reader = reader
        if contexts is None:
            contexts = TlsContexts(clock=SystemClock(), ttl_seconds=0, trust=verifying_context)
        self._contexts = contexts
        self._integrity = integrity
        self._learn = learn
        self._read_again = read_again
        self._read_under: tuple[int, int] | None = (
            None  # the database and restore epoch that the integrity key was read under
        )
        self._seen = GenerationsSeen()
        self._report: Report | None = None
        self._refusals = _Refusals()

    def report_to(self, report: Report) -> None:
        """Call `report` for each refusal, with the pointer and the `SecretError`. It must not block or raise."""
        self._report = report

    def signers(self, pointer: Pointer) -> AbstractAsyncContextManager[tuple[Signer, ...]]:
        """Give the signer of the current secret, then of the previous one while it is due, for the block.

        After the block they sign nothing. Secrets that were read from another database or under an older epoch than the
        pointer's are discarded first. On entry it raises, before it reads a secret: `SecretTampered` (MAC, a stale row,
        a malformed ref, a previous secret without its scheme), `SecretDenied` (a ref of another tenant, endpoint or
        provider), `SecretUnusable` (an unknown scheme or algorithm), `SecretNotFound` (no secret yet); and then what
        the store raises for any of the secrets, within two seconds for all.
        """
        return _SignersBlock(partial(self._resolved, pointer))

    @asynccontextmanager
    async def headers(self, pointer: Pointer) -> AsyncIterator[Mapping[str, SecretMaterial]]:
        """Give the masked values of the endpoint's own headers, by name in lower case, for the block.

        Without a ref there are none. After the block the mapping is empty. Raises as `signers` does, and
        `SecretUnusable` if the sealed headers must not be sent.
        """
        if pointer.headers_ref is None:
            yield {}
            return
        values = await self._read_extra(pointer, pointer.headers_ref, Purpose.ENDPOINT_HEADERS, _header_values)
        try:
            yield values
        finally:
            values.clear()

    @asynccontextmanager
    async def tls(self, pointer: Pointer) -> AsyncIterator[EndpointTls | None]:
        """Give the TLS context for connections to the endpoint, None if it has no TLS identity, for the block.

        Contexts are cached for as long as secrets are, within one epoch. Raises as `signers` does, `SecretUnusable` if
        the sealed identity cannot be used, and `LocalFailure` or `Exhausted` if this process or this machine cannot
        make the context now.
        """
        text = pointer.tls_ref
        if text is None:
            yield None
            return
        yield await self._read_extra(
            pointer, text, Purpose.ENDPOINT_TLS, lambda sealed: self._contexts.of(text, sealed)
        )

    def statistics(self) -> Statistics:
        """Return the reads since the start, and what is cached now.

        A refusal before the store was read, and a secret that cannot sign, count as definitive failures, too.
        """
        read = self._reader.statistics()
        return replace(read, definitive_failures=read.definitive_failures + self._refusals.count)

    async def _resolved(self, pointer: Pointer) -> tuple[Signer, ...]:
        self._use_epoch_of(pointer)
        try:
            with self._refusals:
                require_secret(pointer)
                due = await self._trusted(pointer, require_trusted)
            secrets = await self._reader.read([version.ref for version in due], purpose=Purpose.WEBHOOK_SIGNING)
            with self._refusals:
                return tuple(
                    [
                        Signer(version.text, secret, version.scheme, version.algorithm)
                        for version, secret in zip(due, secrets, strict=True)
                    ]
                )
        except SecretError as error:
            self._report_refusal(pointer, error)
            raise

    async def _read_extra(
        self,
        pointer: Pointer,
        text: str,
        purpose: Purpose,
        read: Callable[[SecretMaterial], Awaitable[_Read]],
    ) -> _Read:
        """Read the extra of that purpose, whose ref is `text`, from the store or the cache."""
        self._use_epoch_of(pointer)
        try:
            with self._refusals:
                ref = await self._trusted(pointer, partial(require_trusted_extra, ref=text, purpose=purpose))
            [sealed] = await self._reader.read([ref], purpose=purpose)
            with self._refusals:
                return await read(sealed)
        except SecretError as error:
            self._report_refusal(pointer, error)
            raise

    def _report_refusal(self, pointer: Pointer, error: SecretError) -> None:
        if self._report is not None:
            self._report(pointer, error)

    def _use_epoch_of(self, pointer: Pointer) -> None:
        forgotten = self._reader.forgotten
        self._reader.use_database(pointer.database)
        self._reader.use_epoch((pointer.restore_epoch, pointer.cache_epoch), pointer.read_at)
        if self._reader.forgotten != forgotten:
            self._contexts.clear()

    async def _trusted(self, pointer: Pointer, decide: Callable[..., _Read]) -> _Read:
        """Return what `decide` returns for the row, once the integrity key has the version that the row names."""
        if (under := (pointer.database, pointer.restore_epoch)) != self._read_under:
            require_epochs(pointer)
            await self._read_again()
            self._read_under = under
        ask = partial(decide, pointer, key=self._integrity, seen=self._seen, providers=self._reader.providers)
        try:
            return ask()
        except IntegrityKeyUnknown:
            if pointer.mac_key_id is None:
                raise
            await self._learn(pointer.mac_key_id)
            return ask()


async def _header_values(sealed: SecretMaterial) -> dict[str, SecretMaterial]:
    return header_values.read(sealed)
