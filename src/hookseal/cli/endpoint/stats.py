"""`hookseal endpoint stats`: how the attempts of endpoints went, and what is left to do."""

from typing import Annotated, Any, Final

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.shared.output import Json, emit, key_values, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher.store import endpoint_queries
from hookseal.ground import ids

_NEEDS: Final = frozenset({Part.DATABASE})
_COLUMNS: Final = (
    "endpoint_id", "state", "pending", "waiting", "oldest_due_at", "hour_success", "hour_p99_ms", "day_success",
)  # fmt: skip


def stats(
    *,
    tenant: options.Tenant,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Show how the attempts of endpoints went in the last hour and day, and what is left to do.

    An attempt is counted within 15 seconds. Of each endpoint at most 10,000 pending deliveries are counted.

    Example: hookseal endpoint stats --tenant acme
    """
    owner, wanted = ids.owner_id(tenant), None if endpoint is None else ids.endpoint_id(endpoint)
    items, following = reading(
        start(_NEEDS),
        lambda connection: endpoint_queries.stats_page(connection, owner, wanted, limit=limit, cursor=cursor),
    )
    emit(
        {"items": items, "next_cursor": following},
        as_json=as_json,
        text=lambda: _text(items, following, is_one=wanted is not None),
    )


def _text(items: list[dict[str, Any]], following: str | None, *, is_one: bool) -> str:
    if is_one:
        return "\n".join(key_values(_flat(items[0])))
    rows = [
        item
        | {
            "hour_success": _percent(item["last_hour"]["success_rate"]),
            "hour_p99_ms": _whole(item["last_hour"]["p99_ms"]),
            "day_success": _percent(item["last_day"]["success_rate"]),
        }
        for item in items
    ]
    shown = table(rows, _COLUMNS) if rows else "no endpoints"
    return shown if following is None else f"{shown}\nmore: --cursor {following}"


def _flat(item: dict[str, Any]) -> dict[str, Any]:
    flat = {name: fact for name, fact in item.items() if not isinstance(fact, dict)}
    for period in ("last_hour", "last_day"):
        found = item[period]
        flat |= {f"{period} {name}": found[name] for name in ("attempts", "delivered")}
        flat[f"{period} success rate"] = _percent(found["success_rate"])
        flat |= {f"{period} {name}": _whole(found[f"{name}_ms"], " ms") for name in ("p50", "p99")}
    return flat


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}%"


def _whole(number: float | None, unit: str = "") -> str | None:
    return None if number is None else f"{number:.0f}{unit}"
