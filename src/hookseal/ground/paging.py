"""Pages: how many rows a page may have, and the cursor that marks where the next page begins. Pure."""

import base64
import binascii
from typing import Any, Final
from uuid import UUID

from hookseal.ground.errors import Malformed

MAX_PAGE: Final = 1_000


def require_limit(limit: int) -> None:
    """Raise `Malformed` unless a page may have so many rows: 1 to 1000."""
    if not 1 <= limit <= MAX_PAGE:
        raise Malformed(f"limit must be 1 to {MAX_PAGE}", field="limit")


def encode_cursor(position: str) -> str:
    """Return the cursor for the position at which a page ended."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def decode_cursor(cursor: str) -> str:
    """Return the position that the cursor encodes. Raises `Malformed` if it encodes none."""
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise invalid_cursor() from None


def invalid_cursor() -> Malformed:
    """Return the error for a cursor that no page returned."""
    return Malformed("cursor must be one that an earlier page returned", field="cursor")


def paged(rows: list[Any], limit: int, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the page, and the cursor of the next one, None after the last.

    `rows` holds one more than the page if there is one more; the column `name` holds their id.
    """
    items = [dict(row) for row in rows[:limit]]
    return items, encode_cursor(items[-1][name]) if len(rows) > limit else None


def before(cursor: str | None) -> str | None:
    """Return the id that a page ended with, None without a cursor. Raises `Malformed` if no page gave the cursor."""
    if cursor is None:
        return None
    text = decode_cursor(cursor)
    try:
        if text == str(UUID(text)):
            return text
    except ValueError:
        pass
    raise invalid_cursor()
