"""The settings of the HTTP API: the pages that may call it from a browser."""

import re
from typing import Final

from pydantic import ValidationInfo

from hookseal.config.forms import problem
from hookseal.config.settings import Environment

ORIGINS: Final = "HOOKSEAL_API_ORIGINS"
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")


def origins(text: str) -> tuple[str, ...]:
    """Return the origins of a list separated by commas, as browsers spell them. Raises `ValueError`."""
    found = tuple(item.strip() for item in text.split(","))
    if not all(map(_ORIGIN.fullmatch, found)):
        raise ValueError
    return found


def require_encrypted(found: tuple[str, ...], info: ValidationInfo) -> None:
    """Raise a problem if a page over plain http may call the API in production: anybody on its way could change it."""
    if info.data.get("environment") is Environment.PRODUCTION and any(each.startswith("http://") for each in found):
        raise problem(f"{ORIGINS} may name http only outside production: use https")
