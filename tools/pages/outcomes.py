"""Writes the page of outcomes from the table in `outcome`."""

from typing import Final, assert_never

from hookseal.dispatcher.core.model import FailureKind
from hookseal.dispatcher.core.outcome import LONGEST_SECONDS, RULES, Consequence, OtherCondition, hundred
from hookseal.dispatcher.core.policy import SPREAD

_HEAD: Final = """\
# Outcomes

Written by `make docs` from the table that classifies (`src/hookseal/dispatcher/core/outcome.py`). Do not edit it.

Every attempt ends with one of these outcomes; `delivery show` names it. If two rows have the same status, the
first one counts. Events that lead to no attempt have no outcome: they are in
[lifecycle.md](lifecycle.md#no-request-was-sent).

| outcome | when | what follows | meaning |
|---|---|---|---|
"""
_TAIL: Final = f"""
## When it is tried again

A delivery that is tried again waits for the back-off, or for `Retry-After` of the answer if that is longer.

Each attempt spends one of the budget of its endpoint: the number of entries in `retry_schedule` plus one, or
`max_attempts` if there is no schedule. When the last one is spent, the delivery is a dead letter; a replay starts a
new budget.

After attempt number n of the budget, the back-off is entry number n of `retry_schedule`, by default 5 s, 30 s, 5 min,
30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. Without a schedule it is `backoff_base_seconds` * 2^(n-1), at most
`backoff_cap_seconds`. Both are shortened or lengthened at random by up to {SPREAD:.0%}.

`Retry-After` may be seconds or a date in any of the three forms of HTTP. More than {LONGEST_SECONDS:,} seconds count as
{LONGEST_SECONDS:,}. If there are several headers, the longest wait counts. A value that cannot be read is ignored.
"""


def outcomes_page() -> str:
    """Return the page `docs/outcomes.md` in Markdown."""
    rows = [
        f"| `{rule.outcome}` | {_when(rule.when)} | {_follows(rule.consequence)} | {rule.meaning} |\n" for rule in RULES
    ]
    return _HEAD + "".join(rows) + _TAIL


def _when(when: frozenset[int] | FailureKind | OtherCondition) -> str:
    match when:
        case frozenset():
            digit = min(when) // 100
            return f"{digit}xx" if when == hundred(digit) else ", ".join(str(status) for status in sorted(when))
        case FailureKind():
            return "no status"
        case OtherCondition.OTHER_STATUS:
            return "any other status"
        case OtherCondition.CUT_OFF:
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
        case Consequence.THROTTLE | Consequence.RETRY:  # a throttled endpoint is not slowed down as a whole yet
            return "tried again"
        case _:
            assert_never(consequence)
