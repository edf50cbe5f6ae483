"""The settings of the HTTP API: the pages that may call it from a browser, and where its own pages are."""

import re
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationInfo

from hookseal.config.forms import problem
from hookseal.config.settings import Environment

ORIGINS: Final = "HOOKSEAL_API_ORIGINS"
PORTAL_URL: Final = "HOOKSEAL_PORTAL_URL"
FRAMES: Final = "HOOKSEAL_PORTAL_FRAMES"
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")


def origins(text: str) -> tuple[str, ...]:
    """Return the origins of a list separated by commas, as browsers spell them. Raises `ValueError`."""
    found = tuple(item.strip() for item in text.split(","))
    if not all(map(_ORIGIN.fullmatch, found)):
        raise ValueError
    return found


def portal_url(text: str) -> str:
    """Return the address of the pages, without a slash at its end. Raises `ValueError`."""
    origin = _ORIGIN.match(text)
    if origin is None or not _PATH.fullmatch(text, origin.end()):
        raise ValueError
    return text.removesuffix("/")


def require_encrypted(name: str, found: Iterable[str], info: ValidationInfo) -> None:
    """Raise a problem if a page over plain http has to do with the API in production: anybody could change the page."""
    if info.data.get("environment") is Environment.PRODUCTION and any(each.startswith("http://") for each in found):
        raise problem(f"{name} may name http only outside production: use https")
