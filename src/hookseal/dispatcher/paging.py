"""Pages over rows that are read newest first by their id: how many, and where the next one begins. Pure."""

import base64
import binascii
from typing import Any, Final
from uuid import UUID

from hookseal.ground.errors import Malformed

MAX_PAGE: Final = 1_000


def require_limit(limit: int) -> None:
    """Return only if a page may hold so many. Raises `Malformed` out of 1 to 1000."""
    if not 1 <= limit <= MAX_PAGE:
        raise Malformed(f"limit must be 1 to {MAX_PAGE}", field="limit")


def paged(rows: list[Any], limit: int, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the page, and the cursor of the next one, None after the last.

    `rows` holds one more than the page if there is one more; the column `name` holds their id.
    """
    items = [dict(row) for row in rows[:limit]]
    more = len(rows) > limit
    return items, base64.urlsafe_b64encode(items[-1][name].encode()).decode() if more else None


def before(cursor: str | None) -> str | None:
    """Return the id that a page ended with, None without a cursor. Raises `Malformed` if no page gave the cursor."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
        if text == str(UUID(text)):
            return text
    except (ValueError, binascii.Error):
        pass
    raise Malformed("cursor must be one that an earlier page gave", field="cursor")
