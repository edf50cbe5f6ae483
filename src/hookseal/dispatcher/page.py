"""The page of outcomes, written from the table that classifies."""

from typing import Final, assert_never

from hookseal.dispatcher.model import FailureKind
from hookseal.dispatcher.outcome import RULES, Consequence, Otherwise, hundred
from hookseal.dispatcher.policy import SPREAD
from hookseal.dispatcher.retry_after import LONGEST_SECONDS

_HEAD: Final = """\
# Outcomes

Written by `make docs` from the table that classifies (`src/hookseal/dispatcher/outcome.py`). Do not edit it.

Every attempt ends with one of these outcomes; `delivery show` names it. Of two rows with the same status the
first counts. What leads to no attempt, so that it has no outcome, stands in [lifecycle.md](lifecycle.md).

| outcome | when | what follows | meaning |
|---|---|---|---|
"""
_TAIL: Final = f"""
## When it is tried again

What is tried again waits for back-off, or for as long as `Retry-After` of the reply asks if that is longer.

Each attempt spends one of the budget of its endpoint: `max_attempts`, or one more than `retry_schedule` has
entries. When the last one is spent the delivery is a dead letter; a replay starts a new budget.

After attempt number n of the budget, back-off is `backoff_base_seconds` * 2^(n-1), at most
`backoff_cap_seconds`; with a `retry_schedule` it is that schedule's entry number n. Both are shortened or
lengthened at random by up to {SPREAD:.0%}.

`Retry-After` may be seconds or a date in any of the three forms of HTTP. More than {LONGEST_SECONDS:,} seconds count as
{LONGEST_SECONDS:,}; of several headers the longest wait counts; what cannot be read counts for nothing.
"""


def outcomes_page() -> str:
    """Return the page `docs/outcomes.md` in Markdown."""
    rows = [
        f"| `{rule.outcome}` | {_when(rule.when)} | {_follows(rule.consequence)} | {rule.meaning} |\n" for rule in RULES
    ]
    return _HEAD + "".join(rows) + _TAIL


def _when(when: frozenset[int] | FailureKind | Otherwise) -> str:
    match when:
        case frozenset():
            digit = min(when) // 100
            return f"{digit}xx" if when == hundred(digit) else ", ".join(str(status) for status in sorted(when))
        case FailureKind():
            return "no status"
        case Otherwise.OTHER_STATUS:
            return "any other status"
        case Otherwise.CUT_OFF:
            return "no answer on record"
        case _:
            assert_never(when)


def _follows(consequence: Consequence) -> str:
    match consequence:
        case Consequence.DELIVERED:
            return "`delivered`"
        case Consequence.DISABLE:
            return "`failed`; the endpoint is disabled until an operator enables it"
        case Consequence.FAIL:
            return "`failed`"
        case Consequence.THROTTLE | Consequence.RETRY:  # they will differ once an endpoint is throttled as a whole
            return "tried again"
        case _:
            assert_never(consequence)
