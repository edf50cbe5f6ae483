"""An audit row as it is shown, and the cursor that names it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from hookseal.audit.chain import LOWEST, json_text
from hookseal.ground import paging

_LEVELS: Final = 16  # of lists and objects in each other; ours have three


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row in the shape that people and programs read, without its MACs."""
    return {
        "tenant_id": row["tenant_id"],
        "sequence": row["sequence"],
        "at": row["at"],
        "actor": row["actor"],
        "action": row["action"],
        "subject": row["subject"],
        "before": facts(row["before"]),
        "after": facts(row["after"]),
        "correlation_id": row["correlation_id"],
    }


def cursor_of(item: Mapping[str, Any]) -> str:
    """Return the cursor of the page that follows this row."""
    return paging.cursor_of(f"{item['tenant_id']}/{item['sequence']}")


def place_of(cursor: str) -> tuple[str, int]:
    """Return the tenant and number of the row that a page ended with. Raises `Malformed` if no page gave the cursor."""
    tenant, slash, sequence = paging.place_of(cursor).rpartition("/")
    try:
        number = int(sequence)
    except ValueError:
        raise paging.no_cursor() from None
    if not slash or "\0" in tenant or not LOWEST <= number < -LOWEST:
        raise paging.no_cursor()
    return tenant, number


def facts(text: str | None) -> Any:
    """Return the facts of a row; as their text if they are not spelled as `json_text` spells them, or nested deeply.

    So whoever forges a row cannot have the log not be shown.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half a character cannot be printed
        return found if isinstance(found, dict) and json_text(found) == text and _is_flat(found) else text
    except (ValueError, RecursionError):
        return text


def _is_flat(value: object, levels: int = _LEVELS) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inner)
