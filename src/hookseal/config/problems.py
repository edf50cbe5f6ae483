"""What a load is asked for, and how a problem with a variable is told: by name and form, never with a value."""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from hookseal.config.settings import Part
from hookseal.ground.errors import Defect

AS_IT_IS: Final = "as_it_is"  # the type of the problems whose text is made by us


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a load is for: the parts that are needed, what was set at all, what others may read."""

    needs: frozenset[Part]
    named: frozenset[str]
    exposed: frozenset[str]


def problem(text: str) -> PydanticCustomError:
    """Return a problem whose text is shown as it is: it must hold no value."""
    return PydanticCustomError(AS_IT_IS, "{text}", {"text": text})


def asked_of(info: ValidationInfo) -> Asked:
    """Return what the load is asked for whose variables are parsed."""
    if not isinstance(info.context, Asked):
        raise Defect("the variables are parsed without what they are asked for")
    return info.context
