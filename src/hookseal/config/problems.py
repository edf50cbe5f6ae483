"""What a load requires, and the problems of variables: they name the variable and the form, never a value."""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from hookseal.config.settings import Part
from hookseal.ground.errors import Defect

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
