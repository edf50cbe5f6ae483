"""Rotation under traffic: a secret is rotated with an overlap, then revoked, while events keep being published."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.receiver import Arrival
from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Added, Stage, patience, side_by_side
from hookseal.dispatcher.model import State
from hookseal.operations.rotation import completed, rotate
from hookseal.secrets.rotation import Rotated, Wanted
from hookseal.secrets.signer import generate_signing_secret

NAME: Final = "rotation"
ENOUGH: Final = 20  # requests that each stretch of the traffic must show
_PATH: Final = "/initech/rotated"
_EVENT_TYPE: Final = "report.filed"
_OVERLAP_SECONDS: Final = 3600
_ON_THEIR_WAY: Final = 10
_MOST_EVENTS: Final = 1000  # if the secret never changes
_OLD: Final = frozenset({1})
_BOTH: Final = frozenset({1, 2})
_NEW: Final = frozenset({3})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How many requests verified with which secrets, each secret tried alone.

    `old` with the first one only, `both` with the first and the second, `new` with the third only, which
    came with the revocation, `other` with any other set; `refused` with none. `complete` tells whether the
    revocation became complete; `after` and `older_after` count what came after that, the latter what an
    older secret still verified.
    """

    deliveries: int
    delivered: int
    old: int
    both: int
    new: int
    other: int
    refused: int
    complete: bool
    after: int
    older_after: int


async def tell(stage: Stage) -> Chapter:
    """Rotate with an overlap, then revoke, under traffic; return what the receiver saw of it. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE)
    traffic = _Traffic(stage, endpoint)
    async with patience():
        await side_by_side(traffic.flow(), traffic.turn())
        await stage.settled(endpoint)
    arrivals = stage.receiver.arrivals(_PATH)
    return judge(counted(arrivals, traffic.complete_after, await stage.states(endpoint)))


class _Traffic:
    """Events for one endpoint that keep coming while its secret changes."""

    def __init__(self, stage: Stage, endpoint: Added) -> None:
        self._stage = stage
        self._endpoint = endpoint
        self._over = asyncio.Event()
        self._published = 0
        self.complete_after: int | None = None  # how many requests had come when the revocation was complete

    async def flow(self) -> None:
        """Publish until the secret has changed twice; up to ten deliveries are on their way at any moment."""
        while self._published < _MOST_EVENTS and not self._over.is_set():
            rings = await self._stage.publish(self._endpoint.tenant_id, _EVENT_TYPE, self._published)
            self._published += len(rings)
            await self._stage.receiver.wait_until(lambda: self._arrived() >= self._published - _ON_THEIR_WAY)

    async def turn(self) -> None:
        """Rotate once the old secret was seen, revoke once both were, and return once that was seen too."""
        await self._seen(_OLD)
        await self._rotated(_OVERLAP_SECONDS)
        await self._seen(_BOTH)
        revoked = await self._rotated(0)
        async with self._stage.operator() as operator:
            await completed(
                operator,
                tenant=self._endpoint.tenant_id,
                endpoint_id=self._endpoint.endpoint_id,
                generation=revoked.generation,
                clock=self._stage.clock,
                tell=lambda _left: None,
            )
        mark = self.complete_after = self._arrived()
        await self._stage.receiver.wait_until(lambda: self._arrived() >= mark + ENOUGH)
        self._over.set()

    async def _rotated(self, overlap_seconds: int) -> Rotated:
        secret = generate_signing_secret()
        self._stage.receiver.expect(_PATH, secret.reveal().decode("ascii"))
        wanted = Wanted(
            tenant_id=self._endpoint.tenant_id,
            endpoint_id=self._endpoint.endpoint_id,
            overlap_seconds=overlap_seconds,
            secret=secret,
        )
        async with self._stage.operator() as operator:
            return await rotate(operator, wanted)

    async def _seen(self, secrets: frozenset[int]) -> None:
        arrivals = self._stage.receiver.arrivals
        await self._stage.receiver.wait_until(
            lambda: sum(arrival.verified_by == secrets for arrival in arrivals(_PATH)) >= ENOUGH
        )

    def _arrived(self) -> int:
        return len(self._stage.receiver.arrivals(_PATH))


def counted(arrivals: Sequence[Arrival], complete_after: int | None, states: Mapping[str, int]) -> Seen:
    """Return what the requests and the states of their deliveries say.

    `complete_after` is how many requests had come when the revocation was complete, None if it never was.
    """
    kinds = Counter(arrival.verified_by for arrival in arrivals)
    after = arrivals[len(arrivals) if complete_after is None else complete_after :]
    told = kinds[_OLD] + kinds[_BOTH] + kinds[_NEW] + kinds[frozenset()]
    return Seen(
        deliveries=sum(states.values()),
        delivered=states.get(State.DELIVERED, 0),
        old=kinds[_OLD],
        both=kinds[_BOTH],
        new=kinds[_NEW],
        other=len(arrivals) - told,
        refused=kinds[frozenset()],
        complete=complete_after is not None,
        after=len(after),
        older_after=sum(not arrival.verified_by <= _NEW for arrival in after),
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if both secrets were seen together, none failed, and the revocation was one."""
    return Chapter(
        name=NAME,
        detail=f"{seen.old} requests with the old secret, {seen.both} with both, {seen.new} after revoking",
        seen=asdict(seen),
        missing=lacking(
            (seen.old >= ENOUGH, "requests with the old secret before the rotation"),
            (seen.both >= ENOUGH, "requests that verify with the old and with the new secret"),
            (seen.complete, "the end of the revocation"),
            (seen.after >= ENOUGH, "requests after the revocation"),
            (seen.older_after == 0, f"silence of the older secrets: {seen.older_after} came after the revocation"),
            none_refused(seen.refused),
            (seen.other == 0, f"the secrets that were due in each request: {seen.other} had others"),
            (seen.deliveries == seen.delivered, f"{seen.deliveries - seen.delivered} deliveries on record"),
        ),
    )
