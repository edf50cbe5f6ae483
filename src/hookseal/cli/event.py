"""`hookseal event`: list events, and show one with its deliveries and, audited, its payload."""

import base64
from typing import Annotated, Final

import typer

from hookseal.admin import Admin, EventDetails
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, key_values, printable, table
from hookseal.cli.shared.runtime import start

app: Final = typer.Typer(help="List events, and show one with its deliveries.", no_args_is_help=True)

_COLUMNS: Final = Columns(("event_id", "event_type", "occurred_at", "correlation_id"), ("channels", "traceparent"))
_DELIVERY_COLUMNS: Final = ("delivery_id", "state", "attempts", "created_at", "endpoint_id", "last_error")


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant of the events.")],
    event_type: Annotated[
        list[str] | None, typer.Option(help="Only events of this type. Give it again for several.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only events that were published in this channel.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only events with this correlation id.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only events published since: 2026-01-31T12:00:00Z, or 1h, 7d (ago).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only events published before this time, as --since.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The first event first.")] = False,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List the events of a tenant, newest first, without their payload.

    With --event-type or --channel a page searches at most 250,000 events: it may list few, and have a next page.

    Example: hookseal event list --tenant acme --event-type invoice.paid --since 1h
    """
    page = listed(
        start(READS),
        lambda admin: admin.events.list(
            tenant_id=tenant,
            event_types=event_type,
            channel=channel,
            correlation_id=correlation_id,
            since=moment(since, "since"),
            until=moment(until, "until"),
            limit=limit,
            cursor=cursor,
            oldest_first=oldest_first,
        ),
        tenant=tenant,
    )
    emit_page(page, _COLUMNS, none="no events", as_json=as_json, wide=wide, tenant=tenant)


@app.command()
def show(
    *,
    event: Annotated[str, typer.Argument(help="The event id, which `publish` printed.")],
    tenant: Annotated[str, typer.Option(help="The tenant of the event.")],
    payload: Annotated[bool, typer.Option("--payload", help="Show the payload; the audit log records it.")] = False,
    as_json: Json = False,
) -> None:
    """Show one event with its deliveries, the oldest thousand of them.

    Example: hookseal event show invoice-1-paid --tenant acme --payload
    """
    if not payload:
        details = call(start(READS), lambda admin: admin.events.get(tenant_id=tenant, event_id=event))
        emit(details, as_json=as_json, text=lambda: _show_text(details))
        return

    async def step(admin: Admin) -> tuple[EventDetails, bytes]:
        details = await admin.events.get(tenant_id=tenant, event_id=event)
        return details, await admin.events.payload(tenant_id=tenant, event_id=event, actor=operator_name())

    details, body = call(start(CHANGES), step)
    sent, encoded = _text_of(body), base64.b64encode(body).decode("ascii")
    emit(
        fields_of(details) | {"payload": sent, "payload_base64": encoded},
        as_json=as_json,
        text=lambda: _show_text(details) + "\n",
    )
    if not as_json:
        emit({}, as_json=False, text=f"base64: {encoded}" if sent is None else printable(sent), is_exact=True)


def _text_of(body: bytes) -> str | None:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _show_text(details: EventDetails) -> str:
    lines = key_values({name: fact for name, fact in fields_of(details).items() if name != "deliveries"})
    deliveries = [fields_of(each) for each in details.deliveries]
    return "\n".join([*lines, "", table(deliveries, _DELIVERY_COLUMNS) if deliveries else "no deliveries"])
