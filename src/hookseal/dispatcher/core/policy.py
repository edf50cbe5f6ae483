"""Decides what happens after a claim and after an outcome. Pure: time and chance are passed in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from hookseal.dispatcher.core.model import Claim, Outcome, Retries, State, Target, Verdict, WaitingFor
from hookseal.dispatcher.core.outcome import Consequence, consequence
from hookseal.dispatcher.core.outcome import seconds as seconds_asked
from hookseal.dispatcher.core.url import PLAIN_HTTP, is_plain_http, url_problem

# The delay of the first probe of an endpoint whose secret was refused, and of a retry after an error in hookseal.
LOOK_AGAIN_SECONDS: Final = 15.0
# Each further probe comes after twice as long, up to this; with what is added to it never later than 5 minutes.
LONGEST_PROBE_SECONDS: Final = 240.0
# The error of a delivery that hookseal itself delays begins with this. It is late then, and was not held.
NOT_SENT: Final = "hookseal could not send it: "
SPREAD: Final = 0.25  # what jitter may take from a wait, or add to it
_GONE: Final = "the receiver answered 410 Gone"
_LOST: Final = (
    "the endpoint row is gone, and nobody deleted it through hookseal: put it back, or see `hookseal restore check`"
)
_HELD: Final = "a secret of the endpoint was refused: the oldest of its deliveries is tried from time to time"
_OPEN: Final = "the breaker of the endpoint is open: the oldest of its deliveries is tried from time to time"
_MOST_DOUBLINGS: Final = 31  # a base of 1 s is then above what a cap, an integer of PostgreSQL, can be


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The delivery is given back without an attempt.

    If `waiting_for` is None, it is due again after `seconds`: because only this process cannot send it now, if
    `for_other_worker` is true, else because of an error in hookseal. If it waits for a secret, all deliveries of its
    endpoint are held, and the first probe is released after `seconds`. If it waits for a disabled endpoint, it is held
    until the endpoint is enabled. `is_refusal` says whether the secret was refused for this claim, and `is_transient`
    whether that was because the store did not answer.
    """

    waiting_for: WaitingFor | None
    seconds: float
    reason: str
    is_refusal: bool = True
    is_transient: bool = False
    for_other_worker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The delivery ends in a final state without an attempt."""

    state: State
    reason: str


def admit(claim: Claim, *, allow_http: bool, jitter: float) -> Target | Wait | End:
    """Return where this claim may be sent, or why it must not be sent now. `jitter` is in [0, 1)."""
    target = claim.target
    if claim.endpoint_lost:
        return Wait(waiting_for=WaitingFor.SECRET, seconds=again(jitter), reason=_LOST)
    if target is None:
        return End(state=State.CANCELLED, reason="the endpoint is gone")
    if not target.enabled:
        return Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=again(jitter), reason="the endpoint is disabled")
    if claim.is_probe is False:
        held_for = claim.held_for or WaitingFor.SECRET
        reason = _OPEN if held_for is WaitingFor.BREAKER else _HELD
        return Wait(waiting_for=held_for, seconds=again(jitter), reason=reason, is_refusal=False)
    if not allow_http and is_plain_http(target.pointer.url):
        return Wait(waiting_for=WaitingFor.SECRET, seconds=again(jitter), reason=PLAIN_HTTP)
    problem = url_problem(target.pointer.url, allow_http=True)
    return target if problem is None else End(state=State.FAILED, reason=f"the endpoint's url {problem}")


def await_secret(reason: str, jitter: float, *, is_transient: bool = False) -> Wait:
    """Return the wait of a delivery whose secret is not available; its budget is unspent. `jitter` is in [0, 1)."""
    return Wait(waiting_for=WaitingFor.SECRET, seconds=again(jitter), reason=reason, is_transient=is_transient)


def await_repair(jitter: float) -> Wait:
    """Return the wait of a delivery that could not be sent because of an error in hookseal. `jitter` is in [0, 1)."""
    return Wait(waiting_for=None, seconds=again(jitter), reason=f"{NOT_SENT}see the worker's log")


def await_other_worker(reason: str, jitter: float) -> Wait:
    """Return the wait of a delivery that only this process cannot send now. `jitter` is in [0, 1)."""
    return Wait(waiting_for=None, seconds=again(jitter), reason=NOT_SENT + reason, for_other_worker=True)


def again(jitter: float) -> float:
    """Return after how many seconds a waiting delivery is tried again: 15, plus or minus 25%."""
    return _spread(LOOK_AGAIN_SECONDS, jitter)


def decide(
    outcome: Outcome, *, retry_after: tuple[str, ...], budget_spent: int, retries: Retries, now: datetime, jitter: float
) -> Verdict:
    """Return what follows from an attempt with this outcome.

    `retry_after` contains the values of that header, `budget_spent` does not count this attempt, `jitter` is in
    [0, 1). A delivery that is tried again waits for the back-off, or for `Retry-After` if that is longer. A delivery
    that has spent its budget is a dead letter.
    """
    attempts = budget_spent + 1
    match consequence(outcome):
        case Consequence.DELIVERED:
            return Verdict(state=State.DELIVERED)
        case Consequence.DISABLE:
            return Verdict(state=State.FAILED, disable=_GONE)
        case Consequence.FAIL:
            return Verdict(state=State.FAILED)
        case Consequence.THROTTLE | Consequence.RETRY:
            wait = max(back_off(retries, attempts, jitter), seconds_asked(retry_after, now) or 0.0)
        case unforeseen:
            assert_never(unforeseen)
    if attempts >= retries.attempts_allowed:
        return Verdict(state=State.DEAD_LETTER)
    return Verdict(state=State.PENDING, retry_in_seconds=wait)


def back_off(retries: Retries, attempts: int, jitter: float) -> float:
    """Return the back-off in seconds after this number of failed attempts, which are at least one.

    With a schedule it is the entry of that number, or the last entry if there are fewer. Without a schedule it is the
    base, doubled after each further attempt, up to the cap. `jitter`, in [0, 1), changes it by up to 25%.
    """
    if retries.schedule:
        return _spread(retries.schedule[min(attempts, len(retries.schedule)) - 1], jitter)
    doubled = retries.backoff_base_seconds * 2 ** min(attempts - 1, _MOST_DOUBLINGS)
    return _spread(min(doubled, retries.backoff_cap_seconds), jitter)


def _spread(seconds: float, jitter: float) -> float:
    return seconds * (1 - SPREAD + 2 * SPREAD * jitter)
