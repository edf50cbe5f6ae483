"""Pages over rows that are read newest first by their id. Pure."""

from typing import Any
from uuid import UUID

from hookseal.ground.paging import cursor_of, no_cursor, place_of


def paged(rows: list[Any], limit: int, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the page, and the cursor of the next one, None after the last.

    `rows` holds one more than the page if there is one more; the column `name` holds their id.
    """
    items = [dict(row) for row in rows[:limit]]
    return items, cursor_of(items[-1][name]) if len(rows) > limit else None


def before(cursor: str | None) -> str | None:
    """Return the id that a page ended with, None without a cursor. Raises `Malformed` if no page gave the cursor."""
    if cursor is None:
        return None
    text = place_of(cursor)
    try:
        if text == str(UUID(text)):
            return text
    except ValueError:
        pass
    raise no_cursor()
