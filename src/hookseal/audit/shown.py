"""An audit row as it is shown, and the cursor that names it."""

import json
from collections.abc import Mapping
from typing import Any

from hookseal.audit.chain import LOWEST, json_text
from hookseal.ground import paging


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
    """Return the facts of a row; as their text if they are not spelled as `json_text` spells them."""
    if text is None:
        return None
    try:
        found = json.loads(text)
        return found if isinstance(found, dict) and json_text(found) == text else text
    except (ValueError, RecursionError):
        return text
