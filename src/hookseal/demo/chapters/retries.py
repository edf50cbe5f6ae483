"""Retries: a receiver fails twice, the second time asking for time, and then takes the delivery."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.chapters.attempts import Tried, answered, tried
from hookseal.demo.receiver import Answer
from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Stage, patience
from hookseal.dispatcher.model import Outcome, State

NAME: Final = "retries"
LEAST_BACK_OFF_SECONDS: Final = 0.75  # a second, less the quarter that jitter may take
RETRY_AFTER_SECONDS: Final = 2  # longer than the back-off can be
_PATH: Final = "/initech/shaky"
_EVENT_TYPE: Final = "printer.jammed"
_FAILURES: Final = (Answer(status=500), Answer(status=503, retry_after=RETRY_AFTER_SECONDS))
_EXPECTED: Final = ((500, Outcome.SERVER_ERROR), (503, Outcome.THROTTLED), (204, Outcome.DELIVERED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Where the delivery ended and what was tried, and how many of the requests verified and were refused."""

    state: str
    attempt_log: tuple[Tried, ...]
    verified: int
    refused: int


async def tell(stage: Stage) -> Chapter:
    """Publish one event to a receiver that fails twice; return what became of it. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, retry_schedule=(1, 1))
    stage.receiver.answer(_PATH, _FAILURES)
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with patience():
        await stage.reached(ring, State.DELIVERED)
    shown = await stage.shown(ring)
    refused = stage.receiver.refused(_PATH)
    return judge(
        Seen(
            state=shown["state"],
            attempt_log=tried(shown["attempt_log"]),
            verified=len(stage.receiver.arrivals(_PATH)) - refused,
            refused=refused,
        )
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if both failures are on record, were waited for, and the third try delivered."""
    attempts = answered(seen.attempt_log)
    waits = [attempt.waited_seconds or 0.0 for attempt in seen.attempt_log[1:]]
    backed_off, obeyed, *_ = [*waits, 0.0, 0.0]
    return Chapter(
        name=NAME,
        detail=f"{seen.state} at attempt {len(attempts)}; the 503 asked for {RETRY_AFTER_SECONDS} s",
        seen=asdict(seen),
        missing=lacking(
            (seen.state == State.DELIVERED, f"the delivery: it is {seen.state}"),
            (attempts == _EXPECTED, "attempts that were answered 500, 503 and 204"),
            (backed_off >= LEAST_BACK_OFF_SECONDS, "a back-off after the first failure"),
            (obeyed >= RETRY_AFTER_SECONDS, "obedience to Retry-After after the second failure"),
            (seen.verified == len(_EXPECTED), f"three requests that verify: there were {seen.verified}"),
            none_refused(seen.refused),
        ),
    )
