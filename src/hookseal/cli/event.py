"""`hookseal event`: list events, and show one with its deliveries and, audited, its payload."""

import base64
from typing import Annotated, Any, Final

import typer

from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, key_values, printable, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher.store import event_queries
from hookseal.ground import ids
from hookseal.operations.deliveries import read_payload
from hookseal.operations.operator import Operator

app: Final = typer.Typer(help="List events, and show one with its deliveries.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})
_COLUMNS: Final = ("event_id", "event_type", "occurred_at", "correlation_id")
_DELIVERY_COLUMNS: Final = ("delivery_id", "endpoint_id", "state", "attempts", "created_at", "last_error")


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant of the events.")],
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only events with this correlation id.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only events published since: 2026-01-31T12:00:00Z, or 1h, 7d (ago).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only events published before this time, as --since.")] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List the events of a tenant, newest first, without their payload.

    With --event-type a page searches at most 250,000 events: it may list few, and have a next page.

    Example: hookseal event list --tenant acme --event-type invoice.paid --since 1h
    """
    wanted = event_queries.EventFilter(
        tenant_id=ids.owner_id(tenant),
        event_type=None if event_type is None else ids.event_type(event_type),
        correlation_id=None if correlation_id is None else ids.correlation_id(correlation_id),
        since=moment(since, "since"),
        until=moment(until, "until"),
    )
    items, following = reading(
        start(_NEEDS), lambda connection: event_queries.page(connection, wanted, limit=limit, cursor=cursor)
    )
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def show(
    *,
    event: Annotated[str, typer.Argument(metavar="ID", help="The event id, which `publish` printed.")],
    tenant: Annotated[str, typer.Option(help="The tenant of the event.")],
    payload: Annotated[bool, typer.Option("--payload", help="Show the payload; the audit log records it.")] = False,
    as_json: Json = False,
) -> None:
    """Show one event with its deliveries, the oldest thousand of them.

    Example: hookseal event show invoice-1-paid --tenant acme --payload
    """
    wanted, owner = ids.event_id(event), ids.owner_id(tenant)
    if payload:
        found = operate(start(NEEDS), lambda operator: _with_payload(operator, owner, wanted))
    else:
        found = reading(start(_NEEDS), lambda connection: event_queries.show(connection, owner, wanted))
    emit(found, as_json=as_json, text=lambda: _show_text(found))


async def _with_payload(operator: Operator, tenant: ids.TenantId, event_id: ids.EventId) -> dict[str, Any]:
    found = await event_queries.show(operator.connection, tenant, event_id)
    body = await read_payload(operator, tenant, event_id)
    return found | {"payload": _text_of(body), "payload_base64": base64.b64encode(body).decode("ascii")}


def _text_of(body: bytes) -> str | None:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    none = "no events" if following is None else "no events among those that were searched"
    shown = table(items, _COLUMNS) if items else none
    return shown if following is None else f"{shown}\nmore: --cursor {following}"


def _show_text(found: dict[str, Any]) -> str:
    apart = {"deliveries", "payload", "payload_base64"}
    lines = key_values({name: fact for name, fact in found.items() if name not in apart})
    lines += ["", table(found["deliveries"], _DELIVERY_COLUMNS) if found["deliveries"] else "no deliveries"]
    if "payload" in found:
        shown = found["payload"]
        lines += ["", f"base64: {found['payload_base64']}" if shown is None else printable(shown)]
    return "\n".join(lines)
