"""The scheme `x-webhook`: an endpoint whose requests verify as those of the system before hookseal."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import Stage, time_limit
from hookseal.dispatcher.core.model import State
from hookseal.ground.wire import Scheme

NAME: Final = "x-webhook"
EVENTS: Final = 5
_PATH: Final = "/initech/x-webhook"
_EVENT_TYPE: Final = "memo.sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The number of deliveries, and of those recorded as delivered, verified and refused."""

    deliveries: int
    delivered: int
    verified: int
    refused: int


async def run(stage: Stage) -> Chapter:
    """Publish five events to an endpoint with the scheme, and return what the receiver saw. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, scheme=Scheme.X_WEBHOOK)
    for number in range(EVENTS):
        await stage.publish(endpoint.tenant_id, _EVENT_TYPE, number)
    async with time_limit():
        await stage.wait_until_done(endpoint)
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
    """Return the chapter: it passes if every request was verified and recorded."""
    return Chapter(
        name=NAME,
        detail=f"{seen.verified} requests verified by hookseal.receiver",
        seen=asdict(seen),
        missing=failed_checks(
            (seen.deliveries == EVENTS, f"{EVENTS} deliveries: there were {seen.deliveries}"),
            (seen.verified == EVENTS, f"{EVENTS} requests that verify: there were {seen.verified}"),
            (seen.delivered == EVENTS, f"{EVENTS} deliveries on record: there were {seen.delivered}"),
            nothing_refused(seen.refused),
        ),
    )
