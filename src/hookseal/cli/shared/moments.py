"""Times in options: absolute, or so long ago or ahead."""

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from hookseal.errors import Malformed
from hookseal.ground import durations
from hookseal.ground.clock import Clock, SystemClock

_CLOCK: Final = SystemClock()
_MOST_AGO: Final = 3_153_600_000  # seconds: a hundred years


def seconds(text: str, field: str) -> int:
    """Return how many seconds a duration has: 90s, 30m, 1h, 7d. Raises `Malformed` with the field."""
    if (found := _seconds(text)) is None:
        raise Malformed(f"{field} must be a duration as in 30m, 1h or 7d", field=field)
    return found


def _seconds(text: str) -> int | None:
    found = durations.whole(text, "s", needs_unit=True)
    return found if found is not None and found <= _MOST_AGO else None


def lasting(text: str | None, unit: durations.Unit, field: str) -> int | None:
    """Return the duration that an option gives, in whole units of this kind; a number without a unit has this one.

    None for None. Raises `Malformed` with the field.
    """
    return None if text is None else durations.given(text, unit, field)


def moment(text: str | None, field: str, *, is_ahead: bool = False, clock: Clock = _CLOCK) -> datetime | None:
    """Return the time in UTC: `2026-01-31T12:00:00Z`, or so long ago, as in 90s, 30m, 1h, 7d; ahead if it `is_ahead`.

    Raises `Malformed` with the field.
    """
    if text is None:
        return None
    if (lasting := _seconds(text)) is not None:
        duration = timedelta(seconds=lasting)
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


def age(seconds: float | None, *, units: Literal[1, 2] = 2) -> str | None:
    """Return a duration in its largest units, by default two: `12s`, `5m 12s`, `3h 5m`, `2d 4h`; None for None."""
    if seconds is None:
        return None
    whole = int(seconds)
    for larger, length, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            rest = f" {whole % length // part}{smaller}" if units == 2 else ""  # noqa: PLR2004 -- as its type says
            return f"{whole // length}{larger}{rest}"
    return f"{whole}s"
