"""The forms that several variables share: whole numbers, true or false, and values with a parser of their own."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_FLAGS: Final = {"true": True, "false": False}


def _whole(value: object) -> object:
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value


def _flag(value: object) -> object:
    return _FLAGS.get(value) if isinstance(value, str) else value


def in_any_case(value: object) -> object:
    """Return a word in lower case, and anything else unchanged."""
    return value.lower() if isinstance(value, str) else value


def parse_with(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that parses text with `parse`, and leaves a default unchanged."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def whole_number(alias: str, default: int, bounds: tuple[int, int], description: str) -> Any:
    """Return the field for a whole number within these inclusive bounds."""
    least, most = bounds
    title = f"a whole number from {least} to {most}"
    return Field(default=default, ge=least, le=most, alias=alias, title=title, description=description)


Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]
