"""Master key: all secrets are re-wrapped under a new key while events are published, and the old key is retired."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import AddedEndpoint, Stage, side_by_side, time_limit
from hookseal.dispatcher.core.model import State
from hookseal.errors import Defect
from hookseal.operations.key.keys import finish_rewrap, promote_key, retire_key, rewrap_batch
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.key.rewrap import BEGINNING, Cursor

NAME: Final = "master key"
ENOUGH: Final = 10  # requests before each step, and after the last one
_PATH: Final = "/initech/sealed"
_EVENT_TYPE: Final = "vault.moved"
_ON_THEIR_WAY: Final = 5
_MOST_EVENTS: Final = 1000  # if the key never changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The counts of deliveries and requests, the records that moved and that were left, and the old key's state.

    `meanwhile` counts the requests between the first and the last step, `after` those after the last one.
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


async def run(stage: Stage) -> Chapter:
    """Promote the next master key, re-wrap, and retire the old key under traffic; return what was seen.

    Raises `Unavailable`.
    """
    change = _Change(stage, await stage.add(_PATH, _EVENT_TYPE))
    async with time_limit():
        await side_by_side(change.flow(), change.turn())
        await stage.wait_until_done(change.endpoint)
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
    """Publishes events for one endpoint while it changes the master key."""

    def __init__(self, stage: Stage, endpoint: AddedEndpoint) -> None:
        self._stage = stage
        self._over = asyncio.Event()
        self.endpoint = endpoint
        self.began_at: int | None = None  # the number of requests at that moment
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
        """Promote, re-wrap and retire, with more requests before each step, and after the last one."""
        keyring = self._stage.unlocked.keyring
        if keyring is None:
            raise Defect("the installation of the demo must have master keys")
        old, new = [key.key_id for key in keyring.keys]
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
        after: Cursor | None = BEGINNING
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
        """Return the number of requests so far."""
        return len(self._stage.receiver.arrivals(_PATH))


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it passes if all records moved, the old key is retired, and no delivery failed."""
    return Chapter(
        name=NAME,
        detail=f"{seen.moved} secrets sealed under a new one, {seen.meanwhile} requests meanwhile",
        seen=asdict(seen),
        missing=failed_checks(
            (seen.moved > 0, "secrets sealed under the new key"),
            (seen.left == 0, f"all secrets under the new key: {seen.left} are left"),
            (seen.old_key == KeyState.RETIRED, f"state retired of the old key: it is {seen.old_key}"),
            (seen.meanwhile >= ENOUGH, f"{ENOUGH} requests during the change: there were {seen.meanwhile}"),
            (seen.after >= ENOUGH, f"{ENOUGH} requests after it: there were {seen.after}"),
            nothing_refused(seen.refused),
            (seen.verified == seen.deliveries, f"{seen.deliveries - seen.verified} deliveries that verify"),
            (seen.delivered == seen.deliveries, f"{seen.deliveries - seen.delivered} deliveries on record"),
        ),
    )
