"""What an answer means, as one table: which outcome of the closed set it is, and what follows from it.

`docs/outcomes.md` is written from the same table.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from hookseal.dispatcher.model import Failure, FailureKind, Outcome, Reply


class Consequence(StrEnum):
    """What follows from an outcome (the policy says when, and how often)."""

    DELIVERED = "delivered"
    DISABLE = "disable"
    FAIL = "fail"
    THROTTLE = "throttle"
    RETRY = "retry"


class Otherwise(StrEnum):
    """When a rule applies that names neither a status nor a kind of failure."""

    OTHER_STATUS = "other_status"
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: the outcome, when it is that one, what follows, and a sentence for people.

    `when` is a set of statuses, a kind of failure, or neither of them.
    """

    outcome: Outcome
    when: frozenset[int] | FailureKind | Otherwise
    consequence: Consequence
    meaning: str


def hundred(digit: int) -> frozenset[int]:
    """Return the hundred statuses that begin with this digit."""
    return frozenset(range(100 * digit, 100 * digit + 100))


# Of two rows with the same status the first counts. Sources: Standard Webhooks 1.0.0, "Delivery success and failure";
# RFC 9110, section 15.
RULES: Final = (
    Rule(
        outcome=Outcome.DELIVERED,
        when=hundred(2),
        consequence=Consequence.DELIVERED,
        meaning="The receiver took it. Only 2xx says so, whatever the body says.",
    ),
    Rule(
        outcome=Outcome.GONE,
        when=frozenset({410}),
        consequence=Consequence.DISABLE,
        meaning="The receiver wants nothing more at this url. The other deliveries of the endpoint wait, and so does "
        "what is published meanwhile. After a change of the endpoint (url, secret, headers, TLS) the 410 of a request "
        "that began before disables nothing: that attempt is on record, unspent, and the delivery is due again.",
    ),
    Rule(
        outcome=Outcome.THROTTLED,
        when=frozenset({429, 502, 503, 504}),
        consequence=Consequence.THROTTLE,
        meaning="The receiver, or what stands before it, is overloaded or down.",
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
        meaning="The receiver refused the request. It is tried again, since receivers are mended.",
    ),
    Rule(
        outcome=Outcome.SERVER_ERROR,
        when=hundred(5),
        consequence=Consequence.RETRY,
        meaning="The receiver failed at it.",
    ),
    Rule(
        outcome=Outcome.UNEXPECTED_STATUS,
        when=Otherwise.OTHER_STATUS,
        consequence=Consequence.RETRY,
        meaning="The receiver answered with a status that ends no request.",
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
        meaning="The host has only addresses that may not be dialled (`HOOKSEAL_EGRESS_ALLOW`). Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.PROTOCOL,
        when=FailureKind.PROTOCOL,
        consequence=Consequence.RETRY,
        meaning="What came back is not HTTP. The receiver may have the request.",
    ),
    Rule(
        outcome=Outcome.PROXY,
        when=FailureKind.PROXY,
        consequence=Consequence.RETRY,
        meaning="The egress proxy (`HOOKSEAL_EGRESS_PROXY`) is not there, refused or failed: that is the operator's to "
        "mend. Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.INVALID_URL,
        when=FailureKind.INVALID_URL,
        consequence=Consequence.FAIL,
        meaning="The url names no host that can be dialled: correct it, then replay. Nothing was sent.",
    ),
    Rule(
        outcome=Outcome.UNKNOWN,
        when=Otherwise.CUT_OFF,
        consequence=Consequence.RETRY,
        meaning="The worker was stopped, or died, before it could record an answer. The receiver may have the request.",
    ),
)
_BY_STATUS: Final = {
    status: rule.outcome for rule in reversed(RULES) if isinstance(rule.when, frozenset) for status in rule.when
}
_BY_WHEN: Final = {rule.when: rule.outcome for rule in RULES}
_BY_OUTCOME: Final = {rule.outcome: rule.consequence for rule in RULES}


def classify(answer: Reply | Failure | None) -> Outcome:
    """Return the outcome of an answer; None is the answer of a request that was cut off."""
    match answer:
        case Reply(status=status):
            return _BY_STATUS.get(status, _BY_WHEN[Otherwise.OTHER_STATUS])
        case Failure(kind=kind):
            return _BY_WHEN[kind]
        case None:
            return _BY_WHEN[Otherwise.CUT_OFF]
        case _:
            assert_never(answer)


def consequence(outcome: Outcome) -> Consequence:
    """Return what follows from an outcome."""
    return _BY_OUTCOME[outcome]


def explain(answer: Reply | Failure | None) -> str | None:
    """Return what a person should read about an answer that did not deliver, None if it did."""
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
