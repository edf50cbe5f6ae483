"""The forms that several variables share: numbers, durations, true or false, and values with a parser of their own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from hookseal.config.settings import Part
from hookseal.errors import Defect
from hookseal.ground import durations

_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_SAMPLED: Final = re.compile(r"sampled:([1-9][0-9]{0,5}|1000000)")
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


def successes_per_line(text: str) -> int | None:
    """Return 1 for `all`, 0 for `none`, N for `sampled:N`; None for anything else."""
    named = {"all": 1, "none": 0}.get(text.lower())
    sampled = _SAMPLED.fullmatch(text.lower())
    return int(sampled[1]) if sampled is not None else named


def parse_with(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that parses text with `parse`, and leaves a default unchanged."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def whole_number(alias: str, default: int, bounds: tuple[int, int], description: str) -> Any:
    """Return the field for a whole number within these inclusive bounds."""
    least, most = bounds
    title = f"a whole number from {least} to {most}"
    return Field(default=default, ge=least, le=most, alias=alias, title=title, description=description)


def duration(alias: str, default: int, bounds: tuple[int, int], description: str) -> Any:
    """Return the field for a duration within these inclusive bounds, in the unit that the alias names."""
    least, most = bounds
    example = "7d" if alias.endswith("_DAYS") else "90s, 5m or 24h"
    title = f"a whole number from {least} to {most}, or a duration as {example}"
    return Field(default=default, ge=least, le=most, alias=alias, title=title, description=description)


Whole = Annotated[int, BeforeValidator(_whole)]
Seconds = Annotated[int, parse_with(lambda text: durations.whole(text, "s"))]
Days = Annotated[int, parse_with(lambda text: durations.whole(text, "d"))]
Flag = Annotated[bool, BeforeValidator(_flag)]


VERBATIM: Final = "as_it_is"  # the type of problems whose text is shown unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The parts that a load needs, with the variables that are present and those that other users may read.

    `draws_key` says that the command makes the master key, so that there must be none yet.
    """

    needs: frozenset[Part]
    present: frozenset[str]
    exposed: frozenset[str]
    draws_key: bool = False


def problem(text: str) -> PydanticCustomError:
    """Return a problem with this text, which is shown unchanged and must contain no value."""
    return PydanticCustomError(VERBATIM, "{text}", {"text": text})


def load_request(info: ValidationInfo) -> LoadRequest:
    """Return the request of the load that parses these variables."""
    if not isinstance(info.context, LoadRequest):
        raise Defect("the variables are parsed without a LoadRequest")
    return info.context
