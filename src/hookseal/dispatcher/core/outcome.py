"""The table of outcomes: which answer has which outcome, and what follows from it.

`docs/outcomes.md` is generated from this table.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, assert_never

from hookseal.dispatcher.core.model import Failure, FailureKind, Outcome, Reply


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


LONGEST_SECONDS: Final = 86_400
_DELAY: Final = re.compile(r"[0-9]+(\.[0-9]+)?")  # the RFC allows whole seconds only, but receivers also send fractions
_TWO_DIGIT_YEAR: Final = re.compile(r"[A-Za-z]+, [0-9]{2}-[A-Za-z]{3}-[0-9]{2} ")
_YEARS_AHEAD: Final = 50


def seconds(values: tuple[str, ...], now: datetime) -> float | None:
    """Return how many seconds the receiver asks to wait, 0 to 86,400; None if it does not ask.

    `values` are the values of all headers of this name; the longest wait counts. A value that is neither seconds nor a
    date is ignored; a date in the past means 0. Never raises.
    """
    asked = [wait for value in values if (wait := _wait(value.strip(" \t"), now)) is not None]
    return max(asked, default=None)


def _wait(value: str, now: datetime) -> float | None:
    if _DELAY.fullmatch(value):
        return float(math.ceil(min(Decimal(value), Decimal(LONGEST_SECONDS))))
    moment = _moment(value, now)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), float(LONGEST_SECONDS))


def _moment(value: str, now: datetime) -> datetime | None:
    """Return the time of an HTTP date in any of its three forms, None if it is no date."""
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # asctime has no time zone, and HTTP dates are in UTC
            moment = moment.replace(tzinfo=UTC)
        return _in_century(moment, now) if _TWO_DIGIT_YEAR.match(value) else moment
    except (ValueError, OverflowError):
        return None


def _in_century(moment: datetime, now: datetime) -> datetime:
    """Return the latest date that is at most 50 years ahead and whose year ends in the same two digits."""
    furthest = now.year + _YEARS_AHEAD
    year = furthest - (furthest - moment.year) % 100
    if year == furthest and moment.timetuple()[1:6] > now.timetuple()[1:6]:
        year -= 100
    return moment.replace(year=year)
