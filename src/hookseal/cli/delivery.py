"""`hookseal delivery`: list deliveries and attempts, explain what one waits for, replay or skip one."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

import typer

from hookseal.admin import Delivery, DeliveryDetails, ReplayedDelivery
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, key_values
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.core.model import State
from hookseal.ground.ids import EVERY_TENANT
from hookseal.ground.literals import AttemptResult, WaitingReason

app: Final = typer.Typer(
    help="List deliveries, show their attempts, explain, replay or skip one.", no_args_is_help=True
)

_COLUMNS: Final = Columns(
    ("delivery_id", "event_type", "state", "attempts", "created_at", "tenant_id", "last_error"),
    ("waiting_for", "next_attempt_at", "endpoint_id", "event_id", "replay_of"),
)
_ATTEMPT_COLUMNS: Final = Columns(
    ("attempt_id", "started_at", "outcome", "status", "duration_ms", "event_type"),
    ("manual", "worker", "endpoint_id", "event_id", "url"),
)
# What a delivery that has not been tried waits for, as its row in a list says it.
_WAITS: Final[Mapping[WaitingReason, str]] = {
    "secret": "waits for a secret of its endpoint",
    "endpoint_disabled": "waits until its endpoint is enabled",
    "breaker": "waits until its endpoint answers again",
    "rate": "waits for the rate limit of its endpoint",
    "concurrency": "waits for a request to its endpoint to end",
    "order": "waits for the delivery before it",
}
_Id: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="The id, which receivers see as webhook-id. To list the deliveries of an event, run `hookseal delivery "
        "list --tenant TENANT --event-id EVENT_ID`.",
    ),
]


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="Only deliveries of this tenant; '*' is every tenant.")] = EVERY_TENANT,
    endpoint: Annotated[
        str | None, typer.Option(help="Only deliveries to this endpoint, by its id or, with --tenant, its uid.")
    ] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    state: Annotated[
        list[State] | None,
        typer.Option(
            help="Only deliveries in this state: pending, sending, delivered, dead_letter, failed or cancelled. "
            "Repeatable."
        ),
    ] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Only deliveries of this event; --tenant names whose event it is.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Only deliveries of events with this correlation id; add --tenant.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only deliveries of events in this channel.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only deliveries made at this time or later: 2026-01-31T12:00:00Z, or 1h, 7d (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only deliveries made before this time, written as for --since.")
    ] = None,
    signed_by: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Only deliveries that this secret version signed, or may be signing now."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List deliveries, newest first.

    A page searches at most 250,000 deliveries: it may list few or none, and have a next page.

    Example: hookseal delivery list --tenant acme --state failed --since 1h
    """
    page = listed(
        start(READS),
        lambda admin: admin.deliveries.list(
            tenant_id=tenant,
            endpoint_id=endpoint,
            event_type=event_type,
            event_id=event_id,
            correlation_id=correlation_id,
            channel=channel,
            states=state,
            since=moment(since, "since"),
            until=moment(until, "until"),
            signed_by=signed_by,
            limit=limit,
            cursor=cursor,
        ),
        tenant=tenant,
    )
    emit_page(page, _COLUMNS, none="no deliveries", as_json=as_json, wide=wide, tenant=tenant, row=_row)


@app.command()
def show(
    *,
    delivery: _Id,
    as_json: Json = False,
) -> None:
    """Show one delivery with every attempt: the answer, the secrets that signed it, and what it waits for.

    Example: hookseal delivery show 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    details = call(start(READS), lambda admin: admin.deliveries.get(tenant_id=EVERY_TENANT, delivery_id=delivery))
    emit(details, as_json=as_json, text=lambda: _show_text(details))


@app.command()
def attempts(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant.")],
    endpoint: Annotated[str | None, typer.Option(help="Only attempts to this endpoint, by its id or its uid.")] = None,
    event_id: Annotated[str | None, typer.Option(help="Only attempts of this event.")] = None,
    event_type: Annotated[
        list[str] | None, typer.Option(help="Only events of this type. Give it again for several.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only attempts of events in this channel.")] = None,
    outcome: Annotated[
        AttemptResult | None,
        typer.Option(metavar="WHICH", help="delivered, or failed, which is every other outcome."),
    ] = None,
    status_class: Annotated[
        int | None, typer.Option(help="The first digit of the status; 0 is no answer.", metavar="DIGIT")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only attempts from this time on: 2026-01-31T12:00:00Z, or 1h, 7d (ago).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only attempts before this time, written as for --since.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The first attempt first.")] = False,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List the attempts of an endpoint, of an event, or of an event to one endpoint, newest first.

    A page of an endpoint searches at most 50,000 attempts: it may list few or none, and have a next page.

    Example: hookseal delivery attempts --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394 --outcome failed
    """
    page = call(
        start(READS),
        lambda admin: admin.attempts.list(
            tenant_id=tenant,
            endpoint_id=endpoint,
            event_id=event_id,
            event_types=event_type,
            channel=channel,
            outcome=outcome,
            status_class=status_class,
            since=moment(since, "since"),
            until=moment(until, "until"),
            limit=limit,
            cursor=cursor,
            oldest_first=oldest_first,
        ),
    )
    emit_page(page, _ATTEMPT_COLUMNS, none="no attempts", as_json=as_json, wide=wide, tenant=tenant)


@app.command()
def why(
    *,
    delivery: _Id,
    as_json: Json = False,
) -> None:
    """Explain where a delivery stands: what it waits for, since when, what will release it, and the command for that.

    Example: hookseal delivery why 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    answer = call(start(READS), lambda admin: admin.deliveries.why(tenant_id=EVERY_TENANT, delivery_id=delivery))
    emit(answer, as_json=as_json, text=answer.text)


@app.command()
def replay(
    *,
    delivery: _Id,
    new_id: Annotated[
        bool,
        typer.Option(
            "--new-id",
            help="Send a copy with a new webhook-id, so that the receiver processes it again. The original stays as it "
            "is: a replay job sends it, too, and it still stops the line of an ordered endpoint.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a finished delivery again with a new budget of attempts, or try one at once that waits for its next attempt.

    A delivery that waits keeps the count of its spent attempts. The endpoint must exist and be enabled. If it is held,
    or has as many requests as it may, the delivery waits with its others, and the command says for what. To replay many
    finished deliveries, use `hookseal replay start`.

    Example: hookseal delivery replay 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    replayed = call(
        start(CHANGES),
        lambda admin: admin.deliveries.replay(
            tenant_id=EVERY_TENANT, delivery_id=delivery, actor=operator_name(), new_id=new_id
        ),
    )
    emit(replayed, as_json=as_json, text=_replayed_text(replayed, of=delivery if new_id else None))


@app.command()
def resend(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant.")],
    event_id: Annotated[str, typer.Option(help="The event.")],
    endpoint: Annotated[str, typer.Option(help="The endpoint, by its id or its uid.")],
    as_json: Json = False,
) -> None:
    """Send an event to an endpoint again: `hookseal delivery replay` of its newest delivery there.

    Example: hookseal delivery resend --tenant acme --event-id e-1 --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    replayed = call(
        start(CHANGES),
        lambda admin: admin.deliveries.resend(
            tenant_id=tenant, event_id=event_id, endpoint_id=endpoint, actor=operator_name()
        ),
    )
    emit(replayed, as_json=as_json, text=_replayed_text(replayed))


@app.command()
def skip(
    *,
    delivery: _Id,
    as_json: Json = False,
) -> None:
    """Let an ordered endpoint go on behind a dead letter or a failed delivery that stops it.

    The delivery stays what it is. A later replay sends it after all others. To send it before them, in its place, use
    `hookseal delivery replay` in place of this.

    Example: hookseal delivery skip 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    skipped = call(
        start(CHANGES),
        lambda admin: admin.deliveries.skip(tenant_id=EVERY_TENANT, delivery_id=delivery, actor=operator_name()),
    )
    emit(
        skipped,
        as_json=as_json,
        text=f"delivery {skipped.delivery_id} stops endpoint {skipped.endpoint_id} no more; the next one follows",
    )


def _row(item: Delivery) -> dict[str, object]:
    """Return the row of a list. The error of one that has not been tried would be that of its endpoint."""
    facts = fields_of(item)
    if item.attempts or item.state not in {"pending", "sending"}:
        return facts
    return facts | {"last_error": None if (reason := item.waiting_for) is None else _WAITS.get(reason, reason)}


def _replayed_text(replayed: ReplayedDelivery, *, of: str | None = None) -> str:
    copied = "" if of is None else f", a replay of {of}"
    if replayed.explanation is None:
        return f"delivery {replayed.delivery_id} is due now{copied}"
    return f"delivery {replayed.delivery_id} waits to be sent{copied}:\n{replayed.explanation.text}"


def _show_text(details: DeliveryDetails) -> str:
    # While it is held, nothing happens at the time of its next attempt.
    hidden = {"attempt_log"} if details.waiting_for is None else {"attempt_log", "next_attempt_at"}
    facts = {name: fact for name, fact in fields_of(details).items() if name not in hidden}
    lines = key_values(facts)
    for attempt in details.attempt_log:
        lines += ["", f"attempt {attempt.number}"]
        tried = {name: fact for name, fact in fields_of(attempt).items() if name != "number"}
        lines += key_values(tried, width=max(map(len, facts)), indent="  ")
    return "\n".join(lines)
