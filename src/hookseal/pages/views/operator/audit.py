"""The audit log: who changed what of a tenant, or of the installation (`_system`)."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from hookseal.admin import AuditRow
from hookseal.audit.chain import Action
from hookseal.errors import Malformed
from hookseal.pages import words
from hookseal.pages.page import Asked, Shown
from hookseal.pages.views.operator.kind import PAGE_SIZE, TENANT, read

_FILTERS: Final = frozenset({"action", "cursor"})
_MOST_CHARACTERS: Final = 1_000  # of what a row says was so before, or is so after: a page has at most 200 KB


async def listing(asked: Asked) -> Shown:
    """Show the audit log of a tenant, the newest row first."""
    query, errors = asked.query, dict[str, str]()
    action = query.text("action")
    items: tuple[AuditRow, ...] = ()
    following = None
    try:
        page = await asked.admin.audit.list(
            tenant_id=asked.path["tenant_id"],
            action=action or None,
            limit=PAGE_SIZE,
            cursor=query.text("after") or None,
        )
        items, following = page.items, page.next_cursor
    except Malformed as error:
        errors = words.said_of(error, _FILTERS)
    values = {
        "tenant_id": asked.path["tenant_id"],
        "rows": [(row, _time(row.at), _facts(row.before), _facts(row.after)) for row in items],
        "actions": [*Action],
        "chosen": action,
        "kept": {"action": action} if action else {},
        "after": following,
        "is_first": not query.text("after"),
        "errors": errors,
    }
    return Shown(template="operator/audit.html", values=values, status=422 if errors else 200)


def _time(at: object) -> datetime | str:
    """Return the time of a row; its text, if somebody wrote one there that Python cannot read."""
    try:
        return datetime.fromisoformat(str(at))
    except ValueError:
        return str(at)


def _facts(facts: Mapping[str, Any] | str | None) -> str:
    """Return the facts of a row as text, cut."""
    if facts is None:
        return ""
    text = facts if isinstance(facts, str) else json.dumps(dict(facts), ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


PAGES: Final = (read(".audit", TENANT + "/audit", listing),)
