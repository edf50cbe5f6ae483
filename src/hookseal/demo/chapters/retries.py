"""Retries: a receiver fails twice, the second time with Retry-After, and then accepts the delivery."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.chapters.attempts import Attempt, parse_attempts, statuses_and_outcomes
from hookseal.demo.receiver import Answer
from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import Stage, time_limit
from hookseal.dispatcher.core.model import Outcome, State

NAME: Final = "retries"
LEAST_BACK_OFF_SECONDS: Final = 0.75  # one second, less a quarter by jitter
RETRY_AFTER_SECONDS: Final = 2  # longer than the longest back-off
_PATH: Final = "/initech/shaky"
_EVENT_TYPE: Final = "printer.jammed"
_FAILURES: Final = (Answer(status=500), Answer(status=503, retry_after=RETRY_AFTER_SECONDS))
_EXPECTED: Final = ((500, Outcome.SERVER_ERROR), (503, Outcome.THROTTLED), (204, Outcome.DELIVERED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The final state, the attempts, and the number of verified and refused requests."""

    state: str
    attempt_log: tuple[Attempt, ...]
    verified: int
    refused: int


async def run(stage: Stage) -> Chapter:
    """Publish one event to a receiver that fails twice, and return what was seen. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE, retry_schedule=(1, 1))
    stage.receiver.answer(_PATH, _FAILURES)
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with time_limit():
        await stage.wait_for_state(ring, State.DELIVERED)
    shown = await stage.show(ring)
    refused = stage.receiver.refused(_PATH)
    return judge(
        Seen(
            state=shown["state"],
            attempt_log=parse_attempts(shown["attempt_log"]),
            verified=len(stage.receiver.arrivals(_PATH)) - refused,
            refused=refused,
        )
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it passes if both failures are recorded, the waits are right, the third attempt delivered."""
    attempts = statuses_and_outcomes(seen.attempt_log)
    waits = [attempt.waited_seconds or 0.0 for attempt in seen.attempt_log[1:]]
    first_wait, second_wait, *_ = [*waits, 0.0, 0.0]
    return Chapter(
        name=NAME,
        detail=f"{seen.state} at attempt {len(attempts)}; the 503 asked for {RETRY_AFTER_SECONDS} s",
        seen=asdict(seen),
        missing=failed_checks(
            (seen.state == State.DELIVERED, f"state delivered: the delivery is {seen.state}"),
            (attempts == _EXPECTED, "attempts with the answers 500, 503 and 204"),
            (first_wait >= LEAST_BACK_OFF_SECONDS, "a back-off after the first failure"),
            (second_wait >= RETRY_AFTER_SECONDS, "a wait of Retry-After after the second failure"),
            (seen.verified == len(_EXPECTED), f"three requests that verify: there were {seen.verified}"),
            nothing_refused(seen.refused),
        ),
    )
