"""Durations as people write them: a number with a unit, such as 500ms, 5s, 30m, 24h or 7d."""

import re
from typing import Final, Literal

from hookseal.errors import Malformed

Unit = Literal["ms", "s", "d"]

_FORM: Final = re.compile(r"([0-9]{1,9})(ms|[smhd]?)")
_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAMES: Final[dict[Unit, str]] = {"ms": "milliseconds", "s": "seconds", "d": "days"}
_SUFFIXES: Final[dict[Unit, str]] = {"ms": "ms", "s": "seconds", "d": "days"}  # of arguments that have this unit
_EXAMPLES: Final[dict[Unit, str]] = {"ms": "500ms or 5s", "s": "90s, 5m or 24h", "d": "7d"}


def whole(text: str, unit: Unit, *, needs_unit: bool = False) -> int | None:
    """Return a duration in whole units of this kind. A number without a unit has this one, unless it `needs_unit`.

    None if the text has another form, or is no whole number of these units.
    """
    found = _FORM.fullmatch(text)
    if found is None or (needs_unit and not found[2]):
        return None
    number, rest = divmod(int(found[1]) * _MS[found[2] or unit], _MS[unit])
    return None if rest else number


def form(unit: Unit) -> str:
    """Return how a duration is written, for messages: `a whole number of seconds, or a duration as 90s, 5m or 24h`."""
    return f"a whole number of {_NAMES[unit]}, or a duration as {_EXAMPLES[unit]}"


def given(text: str, unit: Unit, field: str) -> int:
    """Return the duration that an option gives, in whole units of this kind. Raises `Malformed` with the field."""
    number = whole(text, unit)
    if number is None:
        name = field.removesuffix(f"_{_SUFFIXES[unit]}").replace("_", " ")
        raise Malformed(f"{name} must be {form(unit)}", field=field)
    return number
