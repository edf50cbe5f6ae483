"""The table of outcomes: which answer has which outcome, and what follows from it.

`docs/outcomes.md` is generated from this table.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from hookseal.dispatcher.model import Failure, FailureKind, Outcome, Reply


class Consequence(StrEnum):
    """What follows from an outcome; `policy` decides when, and how often."""

    DELIVERED = "delivered"
    DISABLE = "disable"
    FAIL = "fail"
    THROTTLE = "throttle"
    RETRY = "retry"


class OtherCondition(StrEnum):
    """The condition of a rule that has neither a status nor a kind of failure."""

    OTHER_STATUS = "other_status"
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table: the outcome, its condition, what follows, and an explanation for people.

    `when` is a set of statuses, a kind of failure, or one of `OtherCondition`.
    """

    outcome: Outcome
    when: frozenset[int] | FailureKind | OtherCondition
    consequence: Consequence
    meaning: str


def hundred(digit: int) -> frozenset[int]:
    """Return all statuses that begin with this digit."""
    return frozenset(range(100 * digit, 100 * digit + 100))


# If two rows have the same status, the first one counts. Sources: Standard Webhooks 1.0.0, "Delivery success and
# failure"; RFC 9110, section 15.
RULES: Final = (
    Rule(
        outcome=Outcome.DELIVERED,
        when=hundred(2),
        consequence=Consequence.DELIVERED,
        meaning="The receiver accepted it. Only a 2xx status counts, whatever the body says.",
    ),
    Rule(
        outcome=Outcome.GONE,
        when=frozenset({410}),
        consequence=Consequence.DISABLE,
        meaning="The receiver wants no more deliveries at this url. The other deliveries of the endpoint wait, "
        "including those that are published meanwhile. If the endpoint (url, secret, headers, TLS) was changed after "
        "the request began, nothing is disabled: the attempt is on record, unspent, and the delivery is due again.",
    ),
    Rule(
        outcome=Outcome.THROTTLED,
        when=frozenset({429, 502, 503, 504}),
        consequence=Consequence.THROTTLE,
        meaning="The receiver, or a proxy or gateway before it, is overloaded or down.",
    ),
    Rule(
        outcome=Outcome.REDIRECT,
        when=hundred(3),
        consequence=Consequence.RETRY,
        meaning="A redirect is never followed: update the endpoint's url.",
    ),
    Rule(
        outcome=Outcome.CLIENT_ERROR,
        when=hundred(4),
        consequence=Consequence.RETRY,
        meaning="The receiver refused the request. It is tried again, because the receiver may be repaired.",
    ),
    Rule(
        outcome=Outcome.SERVER_ERROR,
        when=hundred(5),
        consequence=Consequence.RETRY,
        meaning="The receiver failed to process the request.",
    ),
    Rule(
        outcome=Outcome.UNEXPECTED_STATUS,
        when=OtherCondition.OTHER_STATUS,
        consequence=Consequence.RETRY,
        meaning="The receiver answered with a status that is not a final answer.",
    ),
    Rule(
        outcome=Outcome.TIMEOUT,
        when=FailureKind.TIMEOUT,
        consequence=Consequence.RETRY,
        meaning="No status came within the endpoint's time-out. The receiver may have the request.",
    ),
    Rule(
        outcome=Outcome.TLS,
        when=FailureKind.TLS,
        consequence=Consequence.RETRY,
        meaning="The TLS handshake failed or the certificate is not trusted. Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.DNS,
        when=FailureKind.DNS,
        consequence=Consequence.RETRY,
        meaning="The host name could not be resolved. Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.CONNECTION,
        when=FailureKind.CONNECTION,
        consequence=Consequence.RETRY,
        meaning="The connection was refused, or broke before the status came. The receiver may have the request.",
    ),
    Rule(
        outcome=Outcome.FORBIDDEN_ADDRESS,
        when=FailureKind.FORBIDDEN_ADDRESS,
        consequence=Consequence.RETRY,
        meaning="The host has only addresses that are not allowed (`HOOKSEAL_EGRESS_ALLOW`). Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.PROTOCOL,
        when=FailureKind.PROTOCOL,
        consequence=Consequence.RETRY,
        meaning="The answer is not HTTP. The receiver may have the request.",
    ),
    Rule(
        outcome=Outcome.PROXY,
        when=FailureKind.PROXY,
        consequence=Consequence.RETRY,
        meaning="The egress proxy (`HOOKSEAL_EGRESS_PROXY`) is down, refused or failed: the operator must repair it. "
        "Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.INVALID_URL,
        when=FailureKind.INVALID_URL,
        consequence=Consequence.FAIL,
        meaning="The url does not name a valid host: correct it, then replay. Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.UNKNOWN,
        when=OtherCondition.CUT_OFF,
        consequence=Consequence.RETRY,
        meaning="The worker stopped or died before it could record an answer. The receiver may have the request.",
    ),
)
_BY_STATUS: Final = {
    status: rule.outcome for rule in reversed(RULES) if isinstance(rule.when, frozenset) for status in rule.when
}
_BY_WHEN: Final = {rule.when: rule.outcome for rule in RULES}
_BY_OUTCOME: Final = {rule.outcome: rule.consequence for rule in RULES}


def classify(answer: Reply | Failure | None) -> Outcome:
    """Return the outcome of an answer; None means that the request was cancelled."""
    match answer:
        case Reply(status=status):
            return _BY_STATUS.get(status, _BY_WHEN[OtherCondition.OTHER_STATUS])
        case Failure(kind=kind):
            return _BY_WHEN[kind]
        case None:
            return _BY_WHEN[OtherCondition.CUT_OFF]
        case _:
            assert_never(answer)


def consequence(outcome: Outcome) -> Consequence:
    """Return what follows from an outcome."""
    return _BY_OUTCOME[outcome]


def explain(answer: Reply | Failure | None) -> str | None:
    """Return the explanation of an answer for people, None if it is a delivery."""
    match answer:
        case Reply() if classify(answer) is Outcome.DELIVERED:
            return None
        case Reply(status=status):
            return f"the receiver answered {status}"
        case Failure(detail=detail):
            return detail
        case None:
            return "the worker was stopped before the answer came"
        case _:
            assert_never(answer)
