"""The ring after a publish: it saves the outbox a moment, so it may take little time and may fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from hookseal.config.settings import Settings
from hookseal.dispatcher.model import Ring
from hookseal.queue.bell import Bell, bell

RING_SECONDS: Final = 2.0  # nobody waits longer for a ring that is forgiven
_ANSWER_SECONDS: Final = 1.0  # up to Python 3.11 wait_for, in the client of Redis, can miss that its time is over


class Doorbell:
    """Rings through a bell, and is patient with it for no longer than a ring is worth."""

    def __init__(self, bell: Bell | None, on_lost: Callable[[str], None]) -> None:
        """Without a bell nothing is rung; `on_lost` is told why a ring was lost."""
        self._bell = bell
        self._on_lost = on_lost

    async def ring(self, rings: Sequence[Ring]) -> None:
        """Return once all are rung, or lost, at most two seconds later. Never raises: what was published stands."""
        if self._bell is None or not rings:
            return
        try:
            async with asyncio.timeout(RING_SECONDS):
                await self._bell.ring(rings)
        except TimeoutError:
            self._on_lost(f"Redis does not answer within {RING_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 -- whatever it is, the event is stored and the outbox finds it
            self._on_lost(str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close every connection; from now on nothing is rung."""
        ringing, self._bell = self._bell, None
        if ringing is not None:
            await ringing.close()


@asynccontextmanager
async def doorbell(settings: Settings, on_lost: Callable[[str], None]) -> AsyncIterator[Doorbell]:
    """Hold the doorbell of the settings, which connects when it first rings; without Redis it rings nothing."""
    redis = settings.loaded_redis
    rung_through = None if redis is None else bell(redis.url, settings.worker.queue, answer_seconds=_ANSWER_SECONDS)
    ringing = Doorbell(rung_through, on_lost)
    try:
        yield ringing
    finally:
        await ringing.close()
