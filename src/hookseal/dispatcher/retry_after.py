"""Reads `Retry-After`: RFC 9110, section 10.2.3, with the dates of section 5.6.7. Pure."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Final

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
