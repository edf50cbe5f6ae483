"""The scheme `x-webhook`: an endpoint whose requests verify in the way of the system before hookseal."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Stage, patience
from hookseal.dispatcher.model import State
from hookseal.ground.wire import Scheme

NAME: Final = "x-webhook"
EVENTS: Final = 5
_PATH: Final = "/initech/x-webhook"
_EVENT_TYPE: Final = "memo.sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How many deliveries there were, how many are on record, verified at the receiver, and were refused there."""

    deliveries: int
    delivered: int
    verified: int
    refused: int


async def tell(stage: Stage) -> Chapter:
    """Publish five events to an endpoint of the scheme; return what the receiver saw. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, scheme=Scheme.X_WEBHOOK)
    for number in range(EVENTS):
        await stage.publish(endpoint.tenant_id, _EVENT_TYPE, number)
    async with patience():
        await stage.settled(endpoint)
    states = await stage.states(endpoint)
    return judge(
        Seen(
            deliveries=sum(states.values()),
            delivered=states.get(State.DELIVERED, 0),
            verified=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
        )
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if every request verified and is on record."""
    return Chapter(
        name=NAME,
        detail=f"{seen.verified} requests verified by hookseal.receiver",
        seen=asdict(seen),
        missing=lacking(
            (seen.deliveries == EVENTS, f"{EVENTS} deliveries: there were {seen.deliveries}"),
            (seen.verified == EVENTS, f"{EVENTS} requests that verify: there were {seen.verified}"),
            (seen.delivered == EVENTS, f"{EVENTS} deliveries on record: there were {seen.delivered}"),
            none_refused(seen.refused),
        ),
    )
