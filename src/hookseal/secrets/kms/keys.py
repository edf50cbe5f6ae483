"""Wraps and unwraps master keys, within a bounded time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar, assert_never

from hookseal.errors import SecretUnavailable, Unavailable, with_advice
from hookseal.ground.clock import Clock
from hookseal.ground.log import logger
from hookseal.secrets.core.keyring import KEY_BYTES, MasterKey
from hookseal.secrets.kms.wrapped import (
    Binding,
    Kms,
    KmsKey,
    KmsKind,
    KmsRefused,
    KmsSettings,
    WrappedKey,
    wrong_binding,
)

CALL_SECONDS: Final = 3.0


def opened(settings: KmsSettings) -> AbstractAsyncContextManager[Kms]:
    """Give the KMS until the end of the block. Raises `KmsRefused` without its package or its credentials."""
    match settings.key.kind:
        case KmsKind.AWS:
            try:
                from hookseal.secrets.kms import aws  # noqa: PLC0415 -- an extra, which takes a second to load
            except ModuleNotFoundError as error:
                raise _not_installed(settings.key, error) from None
            return aws.opened(settings.key, seconds=CALL_SECONDS, may_be_plain=settings.may_be_plain)
        case KmsKind.GCP:
            try:
                from hookseal.secrets.kms import gcp  # noqa: PLC0415 -- an extra, which takes a second to load
            except ModuleNotFoundError as error:
                raise _not_installed(settings.key, error) from None
            return gcp.opened(settings.key, seconds=CALL_SECONDS, may_be_plain=settings.may_be_plain)
        case KmsKind.OPENBAO:
            from hookseal.secrets.kms import transit  # noqa: PLC0415 -- most commands need no HTTP client

            return transit.opened(settings.key, settings.openbao, seconds=CALL_SECONDS)
        case _:
            assert_never(settings.key.kind)


def _not_installed(key: KmsKey, error: ModuleNotFoundError) -> KmsRefused:
    return KmsRefused(
        f"{key} needs the module {error.name}: install hookseal with the extra {key.kind}, as in "
        f"pip install 'hookseal[{key.kind}]'",
        field="SECRETS_KMS",
    )


T = TypeVar("T")

PATIENCE_SECONDS: Final = 12.0
_FIRST_DELAY_SECONDS: Final = 0.25
_LONGEST_DELAY_SECONDS: Final = 2.0


class KeyWrapper:
    """Wraps and unwraps by one KMS. It asks a KMS that is away again until `PATIENCE_SECONDS` after it was made.

    A call that takes longer than `call_seconds` counts as no answer, whatever the client of the KMS does meanwhile.
    """

    def __init__(self, kms: Kms, settings: KmsSettings, *, clock: Clock, call_seconds: float = CALL_SECONDS) -> None:
        self._kms = kms
        self._call_seconds = call_seconds
        self._settings = settings
        self._clock = clock
        self._deadline = clock.monotonic() + PATIENCE_SECONDS
        self._log: Any = logger()

    async def wrap(self, key: MasterKey) -> WrappedKey:
        """Return the master key, wrapped; it was unwrapped once, to prove it. Raises as `unwrap` does."""
        binding = self._binding(key.key_id)
        wrapped = WrappedKey(
            key_id=key.key_id, ciphertext=await self._patiently(lambda: self._kms.wrap(key.material, binding))
        )
        await self.unwrap(wrapped)
        return wrapped

    async def unwrap(self, wrapped: WrappedKey) -> MasterKey:
        """Return the master key.

        Raises `Unavailable` if the KMS never answered in time, and `KmsRefused` if it denies, or if the key was wrapped
        for another installation or is not the key that its id says.
        """
        binding = self._binding(wrapped.key_id)
        material = await self._patiently(lambda: self._kms.unwrap(wrapped.ciphertext, binding))
        key = MasterKey(material) if len(material) == KEY_BYTES else None
        if key is None or key.key_id != wrapped.key_id:
            raise wrong_binding(str(self._settings.key), binding)
        return key

    def _binding(self, key_id: str) -> Binding:
        return Binding(installation=self._settings.installation, key_id=key_id)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                return await self._in_time(ask)
            except SecretUnavailable as error:
                if self._clock.monotonic() + delay >= self._deadline:
                    raise away(self._settings, str(error)) from None
                self._log.warning(
                    "kms.away", kms=str(self._settings.key), reason=with_advice(error), again_in_seconds=delay
                )
            await self._clock.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await ask()
        except TimeoutError:
            raise SecretUnavailable(f"{self._settings.key} does not answer within {self._call_seconds:g} s") from None


@asynccontextmanager
async def key_wrapper(
    settings: KmsSettings, *, clock: Clock, seconds: float = PATIENCE_SECONDS + CALL_SECONDS
) -> AsyncIterator[KeyWrapper]:
    """Give what wraps and unwraps by the KMS of the settings, for a block that ends within so many seconds.

    Raises `Unavailable` if it has not ended by then, and `KmsRefused`.
    """
    try:
        async with asyncio.timeout(seconds), opened(settings) as kms:
            yield KeyWrapper(kms, settings, clock=clock)
    except TimeoutError:
        raise away(settings, f"{settings.key} does not answer") from None


def away(settings: KmsSettings, reason: str) -> Unavailable:
    """Return the error for a KMS that did not answer in time."""
    return Unavailable(
        f"{reason}; {settings.key.kind} was asked for {PATIENCE_SECONDS:.0f} seconds. Nothing starts without the "
        "master key; what runs is not affected. Restore the KMS, or the way to it, and start again",
        field="SECRETS_KMS",
    )
