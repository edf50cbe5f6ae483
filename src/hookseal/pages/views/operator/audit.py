"""The audit log: who changed what of a tenant, or of the installation (`_system`)."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from hookseal.audit.chain import Action
from hookseal.pages.page import Asked, Shown, listed, read
from hookseal.pages.views.operator.overview import TENANT

_FILTERS: Final = frozenset({"action", "cursor"})
_MOST_CHARACTERS: Final = 1_000  # of what a row says was so before, or is so after: a page has at most 200 KB


async def listing(asked: Asked) -> Shown:
    """Show the audit log of a tenant, the newest row first."""
    tenant_id = asked.path["tenant_id"]
    action: Any = asked.query.text("action")  # any text: it is checked
    found = partial(asked.admin.audit.list, tenant_id=tenant_id, action=action or None)
    values = await listed(asked, found, chosen={"action": action}, fields=_FILTERS)
    rows = [(row, _time(row.at), _facts(row.before), _facts(row.after)) for row in values["items"]]
    values |= {"tenant_id": tenant_id, "rows": rows, "actions": [*Action]}
    return Shown(template="operator/audit.html", values=values)


def _time(at: str) -> datetime | str:
    """Return the time of a row; its text, if somebody wrote one there that Python cannot read."""
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        return at


def _facts(facts: Mapping[str, Any] | str | None) -> str:
    """Return the facts of a row as text, cut."""
    if facts is None:
        return ""
    text = facts if isinstance(facts, str) else json.dumps(dict(facts), ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


PAGES: Final = (read(".audit", TENANT + "/audit", listing),)
