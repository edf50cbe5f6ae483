"""Dead letter: a receiver is broken until the attempts are spent; once it is mended, a replay delivers."""

from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Final

from hookseal.demo.chapters.attempts import Tried, answered, tried
from hookseal.demo.receiver import Answer
from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Stage, patience
from hookseal.dispatcher.model import Outcome, Ring, State
from hookseal.operations.replay import replay_delivery

NAME: Final = "dead letter"
_PATH: Final = "/initech/broken"
_EVENT_TYPE: Final = "stapler.lost"
_BROKEN: Final = (500, Outcome.SERVER_ERROR)
_EXPECTED: Final = (_BROKEN, _BROKEN, (204, Outcome.DELIVERED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Where the delivery stood before and after its replay, what was tried, and under how many delivery ids."""

    before_replay: str
    after_replay: str
    attempt_log: tuple[Tried, ...]
    delivery_ids: int
    refused: int


async def tell(stage: Stage) -> Chapter:
    """Let a delivery become a dead letter, mend the receiver, replay it; return what was seen. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, retry_schedule=(1,))
    stage.receiver.answer(_PATH, repeat(Answer(status=500)))
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with patience():
        await stage.reached(ring, State.DEAD_LETTER)
    before = (await stage.shown(ring))["state"]
    if before == State.DEAD_LETTER:
        await _mended_and_replayed(stage, ring)
    shown = await stage.shown(ring)
    return judge(
        Seen(
            before_replay=before,
            after_replay=shown["state"],
            attempt_log=tried(shown["attempt_log"]),
            delivery_ids=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
        )
    )


async def _mended_and_replayed(stage: Stage, ring: Ring) -> None:
    stage.receiver.answer(_PATH, ())
    async with stage.operator() as operator:
        await replay_delivery(operator, ring.delivery_id, new_id=False)
    async with patience():
        await stage.reached(ring, State.DELIVERED)


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if the spent delivery was a dead letter, and its replay delivered it."""
    return Chapter(
        name=NAME,
        detail=f"{seen.before_replay} before its replay, {seen.after_replay} after it",
        seen=asdict(seen),
        missing=lacking(
            (seen.before_replay == State.DEAD_LETTER, f"the dead letter: the delivery was {seen.before_replay}"),
            (seen.after_replay == State.DELIVERED, f"the replay: the delivery is {seen.after_replay}"),
            (answered(seen.attempt_log) == _EXPECTED, "attempts that were answered 500, 500 and 204"),
            (seen.delivery_ids == 1, f"one delivery id in all requests: there were {seen.delivery_ids}"),
            none_refused(seen.refused),
        ),
    )
