"""The displayed form of an audit row, and its cursor."""

import json
from collections.abc import Mapping
from typing import Any, Final

from hookseal.audit.chain import LOWEST, json_text
from hookseal.ground import paging

_LEVELS: Final = 16  # of nested lists and objects; hookseal writes three


def to_display(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row in the displayed form, without its MACs."""
    return {
        "tenant_id": row["tenant_id"],
        "sequence": row["sequence"],
        "at": row["at"],
        "actor": row["actor"],
        "action": row["action"],
        "subject": row["subject"],
        "before": parse_facts(row["before"]),
        "after": parse_facts(row["after"]),
        "correlation_id": row["correlation_id"],
    }


def cursor_of(item: Mapping[str, Any]) -> str:
    """Return the cursor of the page after this row."""
    return paging.encode_cursor(f"{item['tenant_id']}/{item['sequence']}")


def place_of(cursor: str) -> tuple[str, int]:
    """Return the tenant and number of the last row of a page. Raises `Malformed` unless a page returned the cursor."""
    tenant, slash, sequence = paging.decode_cursor(cursor).rpartition("/")
    try:
        number = int(sequence)
    except ValueError:
        raise paging.invalid_cursor() from None
    if not slash or "\0" in tenant or not LOWEST <= number < -LOWEST:
        raise paging.invalid_cursor()
    return tenant, number


def parse_facts(text: str | None) -> Any:
    """Return the facts of a row; or their text, unless `json_text` wrote it and it is not nested deeply.

    So a forged row cannot stop the log from being shown.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # raises for a lone surrogate, which cannot be printed
        return found if isinstance(found, dict) and json_text(found) == text and _is_flat(found) else text
    except (ValueError, RecursionError):
        return text


def _is_flat(value: object, levels: int = _LEVELS) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inner)
