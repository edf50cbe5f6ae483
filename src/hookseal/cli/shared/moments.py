"""Times in options: absolute, or so long ago or ahead."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from hookseal.errors import Malformed
from hookseal.ground.clock import Clock, SystemClock

_CLOCK: Final = SystemClock()
_DURATION: Final = re.compile(r"([0-9]{1,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def seconds(text: str, field: str) -> int:
    """Return how many seconds a duration has: 90s, 30m, 1h, 7d. Raises `Malformed` with the field."""
    if (found := _DURATION.fullmatch(text)) is None:
        raise Malformed(f"{field} must be a duration as in 30m, 1h or 7d", field=field)
    return int(timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds())


def moment(text: str | None, field: str, *, is_ahead: bool = False, clock: Clock = _CLOCK) -> datetime | None:
    """Return the time in UTC: `2026-01-31T12:00:00Z`, or so long ago, as in 90s, 30m, 1h, 7d; ahead if it `is_ahead`.

    Raises `Malformed` with the field.
    """
    if text is None:
        return None
    if _DURATION.fullmatch(text) is not None:
        duration = timedelta(seconds=seconds(text, field))
        return clock.now() + duration if is_ahead else clock.now() - duration
    try:
        absolute = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"{field} must be a time as in 2026-01-31T12:00:00Z, or as in 1h or 7d", field=field) from None
    if absolute.tzinfo is None:
        raise Malformed(f"{field} must name its time zone, for instance by Z", field=field)
    try:
        return absolute.astimezone(UTC)
    except OverflowError:
        raise Malformed(f"{field} must be a time from the year 1 on, in UTC", field=field) from None


def age(seconds: float | None) -> str | None:
    """Return a duration in its two largest units: `12s`, `5m 12s`, `3h 5m`, `2d 4h`; None for None."""
    if seconds is None:
        return None
    whole = int(seconds)
    for larger, length, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{larger} {whole % length // part}{smaller}"
    return f"{whole}s"
