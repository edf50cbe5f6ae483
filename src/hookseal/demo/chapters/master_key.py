"""Master key: every secret is sealed under another one while events keep being published, and the old one is closed."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Added, Stage, patience, side_by_side
from hookseal.dispatcher.model import State
from hookseal.ground.errors import Defect
from hookseal.operations.keys import promote_key, retire_key
from hookseal.operations.rewrap import finish_rewrap, rewrap_batch
from hookseal.secrets.key_rules import KeyState
from hookseal.secrets.rewrap import BEGINNING, Place

NAME: Final = "master key"
ENOUGH: Final = 10  # requests that are seen before each step, and after the last one
_PATH: Final = "/initech/sealed"
_EVENT_TYPE: Final = "vault.moved"
_ON_THEIR_WAY: Final = 5
_MOST_EVENTS: Final = 1000  # if the key never changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of the deliveries, how many records moved and were left, and how the old key stands.

    `meanwhile` are the requests that came between the first step and the last, `after` those that came later.
    """

    deliveries: int
    delivered: int
    verified: int
    refused: int
    meanwhile: int
    after: int
    moved: int
    left: int
    old_key: str | None


async def tell(stage: Stage) -> Chapter:
    """Promote the next master key, re-wrap and retire the old one, under traffic; return what was seen of it.

    Raises `Unavailable`.
    """
    change = _Change(stage, await stage.add(_PATH, _EVENT_TYPE))
    async with patience():
        await side_by_side(change.flow(), change.turn())
        await stage.settled(change.endpoint)
    states = await stage.states(change.endpoint)
    arrived = change.arrived()
    return judge(
        Seen(
            deliveries=sum(states.values()),
            delivered=states.get(State.DELIVERED, 0),
            verified=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
            meanwhile=(change.ended_at or arrived) - (change.began_at or arrived),
            after=arrived - (change.ended_at or arrived),
            moved=change.moved,
            left=change.left,
            old_key=change.old_key,
        )
    )


class _Change:
    """Events for one endpoint that keep coming while the master key changes."""

    def __init__(self, stage: Stage, endpoint: Added) -> None:
        self._stage = stage
        self._over = asyncio.Event()
        self.endpoint = endpoint
        self.began_at: int | None = None  # how many requests had come by then
        self.ended_at: int | None = None
        self.moved = self.left = 0
        self.old_key: str | None = None

    async def flow(self) -> None:
        """Publish until the key has changed."""
        published = 0
        while published < _MOST_EVENTS and not self._over.is_set():
            published += len(await self._stage.publish(self.endpoint.tenant_id, _EVENT_TYPE, published))
            await self._reached(published - _ON_THEIR_WAY)

    async def turn(self) -> None:
        """Promote, re-wrap and retire, each once more requests have come; return once more came after it."""
        ring = self._stage.unlocked.keyring
        if ring is None:
            raise Defect("an installation of the demo has master keys")
        old, new = [key.key_id for key in ring.keys]
        await self._more()
        self.began_at = self.arrived()
        async with self._stage.operator() as operator:
            await promote_key(operator, new)
        await self._more()
        await self._rewrap(old)
        if not self.left:
            async with self._stage.operator() as operator:
                self.old_key = (await retire_key(operator, old)).life.state
        self.ended_at = self.arrived()
        await self._more()
        self._over.set()

    async def _rewrap(self, key_id: str) -> None:
        after: Place | None = BEGINNING
        async with self._stage.operator() as operator:
            while after is not None:
                batch = await rewrap_batch(operator, key_id, after, wait=True)
                self.moved += 0 if batch is None else batch.moved
                after = None if batch is None else batch.last
            self.left = (await finish_rewrap(operator, key_id)).records

    async def _more(self) -> None:
        await self._reached(self.arrived() + ENOUGH)

    async def _reached(self, requests: int) -> None:
        await self._stage.receiver.wait_until(lambda: self.arrived() >= requests)

    def arrived(self) -> int:
        """Return how many requests have come."""
        return len(self._stage.receiver.arrivals(_PATH))


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if all records moved, the old key is closed, and no delivery failed for it."""
    return Chapter(
        name=NAME,
        detail=f"{seen.moved} secrets sealed under a new one, {seen.meanwhile} requests meanwhile",
        seen=asdict(seen),
        missing=lacking(
            (seen.moved > 0, "secrets that were sealed anew"),
            (seen.left == 0, f"all secrets under the new key: {seen.left} are left"),
            (seen.old_key == KeyState.RETIRED, f"the end of the old key: it is {seen.old_key}"),
            (seen.meanwhile >= ENOUGH, f"{ENOUGH} requests meanwhile: there were {seen.meanwhile}"),
            (seen.after >= ENOUGH, f"{ENOUGH} requests after it: there were {seen.after}"),
            none_refused(seen.refused),
            (seen.verified == seen.deliveries, f"{seen.deliveries - seen.verified} deliveries that verify"),
            (seen.delivered == seen.deliveries, f"{seen.deliveries - seen.delivered} deliveries on record"),
        ),
    )
