"""Rings the workers after a publish, with a short time limit. A failed ring is harmless: workers find the event."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from hookseal.config.settings import Settings
from hookseal.dispatcher.core.model import Ring

RING_SECONDS: Final = 2.0  # a lost ring costs less than a longer wait


class Rings(Protocol):
    """What puts rings into Redis: `hookseal.queue.rings`, which is loaded only if Redis is used."""

    async def ring(self, rings: Iterable[Ring]) -> int:
        """Put every ring into the queue, and return how many. Raises `Unavailable`."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Doorbell:
    """Rings through a bell, and gives up after two seconds."""

    def __init__(self, bell: Rings | None, on_lost: Callable[[str], None]) -> None:
        """Without a bell, nothing is rung. `on_lost` is called with the reason if a ring fails."""
        self._bell = bell
        self._on_lost = on_lost
        self._has_failed = False

    @property
    def rings(self) -> bool:
        """Whether the next ring should reach the workers: there is a bell, and the last ring did not fail."""
        return self._bell is not None and not self._has_failed

    async def ring(self, rings: Sequence[Ring]) -> None:
        """Ring the workers, for at most two seconds. Never raises: what was published stays published."""
        if self._bell is None or not rings:
            return
        try:
            async with asyncio.timeout(RING_SECONDS):
                await self._bell.ring(rings)
        except asyncio.CancelledError:
            self._has_failed = True
            raise
        except TimeoutError:
            self._lost(f"Redis does not answer within {RING_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 -- the event is stored all the same, and workers find it
            self._lost(str(error) or type(error).__name__)
        else:
            self._has_failed = False

    def _lost(self, reason: str) -> None:
        self._has_failed = True
        self._on_lost(reason)

    async def close(self) -> None:
        """Close every connection, within two seconds. Rings after that do nothing."""
        ringing, self._bell = self._bell, None
        if ringing is not None:
            with suppress(Exception):  # a Redis that does not answer must not hold up the end of the caller
                async with asyncio.timeout(RING_SECONDS):
                    await ringing.close()


@asynccontextmanager
async def doorbell(settings: Settings, on_lost: Callable[[str], None]) -> AsyncIterator[Doorbell]:
    """Open a doorbell with these settings, which connects at the first ring.

    Without Redis its rings do nothing; without the package `redis` neither, and `on_lost` is called once.
    """
    ringing = Doorbell(_rings(settings, on_lost), on_lost)
    try:
        yield ringing
    finally:
        await ringing.close()


def _rings(settings: Settings, on_lost: Callable[[str], None]) -> Rings | None:
    redis = settings.loaded_redis
    if redis is None:
        return None
    try:
        from hookseal.queue.rings import rings  # noqa: PLC0415 -- a producer need not have the package redis
    except ModuleNotFoundError as error:
        on_lost(f"the package {error.name} is not installed")
        return None
    return rings(redis.current_url, settings.worker.queue)
