"""Dead letter: a receiver fails until all attempts are used up; after its repair, a replay delivers."""

from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Final

from hookseal.demo.chapters.attempts import Attempt, parse_attempts, statuses_and_outcomes
from hookseal.demo.receiver import Answer
from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import Stage, time_limit
from hookseal.dispatcher.core.model import Outcome, Ring, State
from hookseal.operations.replay import replay_delivery

NAME: Final = "dead letter"
_PATH: Final = "/initech/broken"
_EVENT_TYPE: Final = "stapler.lost"
_BROKEN: Final = (500, Outcome.SERVER_ERROR)
_EXPECTED: Final = (_BROKEN, _BROKEN, (204, Outcome.DELIVERED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The states before and after the replay, the attempts, and the number of different delivery ids."""

    before_replay: str
    after_replay: str
    attempt_log: tuple[Attempt, ...]
    delivery_ids: int
    refused: int


async def run(stage: Stage) -> Chapter:
    """Make a delivery a dead letter, repair the receiver, replay, and return what was seen. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, retry_schedule=(1,))
    stage.receiver.answer(_PATH, repeat(Answer(status=500)))
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with time_limit():
        await stage.wait_for_state(ring, State.DEAD_LETTER)
    before = (await stage.show(ring))["state"]
    if before == State.DEAD_LETTER:
        await _repair_and_replay(stage, ring)
    shown = await stage.show(ring)
    return judge(
        Seen(
            before_replay=before,
            after_replay=shown["state"],
            attempt_log=parse_attempts(shown["attempt_log"]),
            delivery_ids=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
        )
    )


async def _repair_and_replay(stage: Stage, ring: Ring) -> None:
    stage.receiver.answer(_PATH, ())
    async with stage.operator() as operator:
        await replay_delivery(operator, ring.delivery_id, new_id=False)
    async with time_limit():
        await stage.wait_for_state(ring, State.DELIVERED)


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it passes if the delivery became a dead letter, and its replay delivered it."""
    return Chapter(
        name=NAME,
        detail=f"{seen.before_replay} before its replay, {seen.after_replay} after it",
        seen=asdict(seen),
        missing=failed_checks(
            (
                seen.before_replay == State.DEAD_LETTER,
                f"state dead_letter before the replay: it was {seen.before_replay}",
            ),
            (seen.after_replay == State.DELIVERED, f"state delivered after the replay: it is {seen.after_replay}"),
            (statuses_and_outcomes(seen.attempt_log) == _EXPECTED, "attempts with the answers 500, 500 and 204"),
            (seen.delivery_ids == 1, f"one delivery id in all requests: there were {seen.delivery_ids}"),
            nothing_refused(seen.refused),
        ),
    )
