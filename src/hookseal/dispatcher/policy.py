"""What happens next: pure decisions over a claim or an outcome, with chance passed in."""

from dataclasses import dataclass
from typing import Final, assert_never

from hookseal.dispatcher.model import Claim, Outcome, State, Target, WaitingFor
from hookseal.dispatcher.url import url_problem
from hookseal.ground.wire import Algorithm, Scheme

LOOK_AGAIN_SECONDS: Final = 15.0  # a waiting delivery is looked at again after this long (design 1.5)
_SPREAD: Final = 0.25
_SCHEMES: Final = frozenset(scheme.value for scheme in Scheme)
_ALGORITHMS: Final = frozenset(algorithm.value for algorithm in Algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Held back without an attempt: looked at again after `seconds`."""

    waiting_for: WaitingFor
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Over, without an attempt."""

    state: State
    reason: str


def admit(claim: Claim, *, allow_http: bool, jitter: float) -> Target | Wait | End:
    """Return where this claim may be sent, or why it must not be sent now. `jitter` is in [0, 1)."""
    target = claim.target
    if target is None:
        return End(state=State.CANCELLED, reason="the endpoint is gone")
    if not target.enabled:
        return Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=again(jitter), reason="the endpoint is disabled")
    problem = url_problem(target.pointer.url, allow_http=allow_http)
    if problem is not None:
        return End(state=State.FAILED, reason=f"the endpoint's url {problem}")
    if target.pointer.scheme not in _SCHEMES or target.pointer.algorithm not in _ALGORITHMS:
        return End(state=State.FAILED, reason="this version does not sign with the endpoint's scheme and algorithm")
    return target


def await_secret(reason: str, jitter: float) -> Wait:
    """Return the wait of a delivery whose secret cannot be had: unsent, unspent. `jitter` is in [0, 1)."""
    return Wait(waiting_for=WaitingFor.SECRET, seconds=again(jitter), reason=reason)


def again(jitter: float) -> float:
    """Return in how many seconds a waiting delivery is looked at again: 15, give or take a quarter."""
    return LOOK_AGAIN_SECONDS * (1 - _SPREAD + 2 * _SPREAD * jitter)


def decide(outcome: Outcome) -> State:
    """Return the state in which an attempt with this outcome leaves its delivery.

    This version makes one attempt. An unknown outcome (we were cut off) is attempted again.
    """
    match outcome:
        case Outcome.DELIVERED:
            return State.DELIVERED
        case Outcome.UNKNOWN:
            return State.PENDING
        case (
            Outcome.REDIRECT
            | Outcome.CLIENT_ERROR
            | Outcome.SERVER_ERROR
            | Outcome.UNEXPECTED_STATUS
            | Outcome.TIMEOUT
            | Outcome.TLS
            | Outcome.DNS
            | Outcome.CONNECTION
            | Outcome.FORBIDDEN_ADDRESS
            | Outcome.PROTOCOL
            | Outcome.INVALID_URL
        ):
            return State.FAILED
        case _:
            assert_never(outcome)
