"""Pages: how many rows one may hold, and the cursor that says where the next one begins. Pure."""

import base64
import binascii
from typing import Final

from hookseal.ground.errors import Malformed

MAX_PAGE: Final = 1_000


def require_limit(limit: int) -> None:
    """Return only if a page may hold so many. Raises `Malformed` out of 1 to 1000."""
    if not 1 <= limit <= MAX_PAGE:
        raise Malformed(f"limit must be 1 to {MAX_PAGE}", field="limit")


def cursor_of(place: str) -> str:
    """Return the cursor that names the place where a page ended."""
    return base64.urlsafe_b64encode(place.encode()).decode()


def place_of(cursor: str) -> str:
    """Return the place that the cursor names. Raises `Malformed` if it names none."""
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise no_cursor() from None


def no_cursor() -> Malformed:
    """Return what a cursor that no page gave is refused with."""
    return Malformed("cursor must be one that an earlier page gave", field="cursor")
