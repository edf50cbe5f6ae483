"""Rotation under traffic: a secret is rotated with an overlap, then revoked, while events are published."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.receiver import Arrival
from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import AddedEndpoint, Stage, side_by_side, time_limit
from hookseal.dispatcher.core.model import State
from hookseal.operations.endpoint.rotation import rotate_secret, wait_until_complete
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult

NAME: Final = "rotation"
ENOUGH: Final = 20  # requests in each phase
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
    """The number of requests by the secrets that verify them, each secret tried separately.

    `old`: the first only; `both`: the first and the second; `new`: only the third, which came with the revocation;
    `other`: any other set; `refused`: none. `complete` says whether the revocation was completed; `after` counts the
    requests after that, and `older_after` those of them that an older secret verified.
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


async def run(stage: Stage) -> Chapter:
    """Rotate with an overlap, then revoke, under traffic; return what the receiver saw. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE)
    traffic = _Traffic(stage, endpoint)
    async with time_limit():
        await side_by_side(traffic.flow(), traffic.turn())
        await stage.wait_until_done(endpoint)
    arrivals = stage.receiver.arrivals(_PATH)
    return judge(summarise(arrivals, traffic.complete_after, await stage.states(endpoint)))


class _Traffic:
    """Publishes events for one endpoint while it changes the secret."""

    def __init__(self, stage: Stage, endpoint: AddedEndpoint) -> None:
        self._stage = stage
        self._endpoint = endpoint
        self._over = asyncio.Event()
        self._published = 0
        self.complete_after: int | None = None  # the number of requests when the revocation was complete

    async def flow(self) -> None:
        """Publish until the secret has changed twice, with up to ten deliveries on their way at any moment."""
        while self._published < _MOST_EVENTS and not self._over.is_set():
            rings = await self._stage.publish(self._endpoint.tenant_id, _EVENT_TYPE, self._published)
            self._published += len(rings)
            await self._stage.receiver.wait_until(lambda: self._arrived() >= self._published - _ON_THEIR_WAY)

    async def turn(self) -> None:
        """Rotate after requests with the old secret, revoke after requests with both, wait for those with the new."""
        await self._seen(_OLD)
        await self._rotated(_OVERLAP_SECONDS)
        await self._seen(_BOTH)
        revoked = await self._rotated(0)
        async with self._stage.operator() as operator:
            await wait_until_complete(
                operator.connection,
                tenant=self._endpoint.tenant_id,
                endpoint_id=self._endpoint.endpoint_id,
                generation=revoked.generation,
                clock=self._stage.clock,
                report=lambda _left: None,
            )
        mark = self.complete_after = self._arrived()
        await self._stage.receiver.wait_until(lambda: self._arrived() >= mark + ENOUGH)
        self._over.set()

    async def _rotated(self, overlap_seconds: int) -> RotationResult:
        secret = generate_signing_secret()
        self._stage.receiver.expect(_PATH, secret.reveal().decode("ascii"))
        wanted = RotationRequest(
            tenant_id=self._endpoint.tenant_id,
            endpoint_id=self._endpoint.endpoint_id,
            overlap_seconds=overlap_seconds,
            secret=secret,
        )
        async with self._stage.operator() as operator:
            return await rotate_secret(operator, wanted)

    async def _seen(self, secrets: frozenset[int]) -> None:
        arrivals = self._stage.receiver.arrivals
        await self._stage.receiver.wait_until(
            lambda: sum(arrival.verified_by == secrets for arrival in arrivals(_PATH)) >= ENOUGH
        )

    def _arrived(self) -> int:
        return len(self._stage.receiver.arrivals(_PATH))


def summarise(arrivals: Sequence[Arrival], complete_after: int | None, states: Mapping[str, int]) -> Seen:
    """Return the counts of these requests and of the states of their deliveries.

    `complete_after` is the number of requests before the revocation was complete, None if it was not completed.
    """
    kinds = Counter(arrival.verified_by for arrival in arrivals)
    after = arrivals[len(arrivals) if complete_after is None else complete_after :]
    expected = kinds[_OLD] + kinds[_BOTH] + kinds[_NEW] + kinds[frozenset()]
    return Seen(
        deliveries=sum(states.values()),
        delivered=states.get(State.DELIVERED, 0),
        old=kinds[_OLD],
        both=kinds[_BOTH],
        new=kinds[_NEW],
        other=len(arrivals) - expected,
        refused=kinds[frozenset()],
        complete=complete_after is not None,
        after=len(after),
        older_after=sum(not arrival.verified_by <= _NEW for arrival in after),
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it passes if both secrets were seen together, nothing failed, and the revocation ended."""
    return Chapter(
        name=NAME,
        detail=f"{seen.old} requests with the old secret, {seen.both} with both, {seen.new} after revoking",
        seen=asdict(seen),
        missing=failed_checks(
            (seen.old >= ENOUGH, "requests with the old secret before the rotation"),
            (seen.both >= ENOUGH, "requests that verify with the old and with the new secret"),
            (seen.complete, "the completion of the revocation"),
            (seen.after >= ENOUGH, "requests after the revocation"),
            (seen.older_after == 0, f"no request with an older secret after the revocation: {seen.older_after} came"),
            nothing_refused(seen.refused),
            (seen.other == 0, f"the expected secrets in each request: {seen.other} had others"),
            (seen.deliveries == seen.delivered, f"{seen.deliveries - seen.delivered} deliveries on record"),
        ),
    )
