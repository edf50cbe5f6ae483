"""`hookseal delivery`: list deliveries, show their attempts, explain what one waits for, replay or skip one."""

from dataclasses import asdict
from typing import Annotated, Any, Final, TypeAlias

import typer

from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, key_values, printable, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher.core.delivery_facts import Facts
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.replays import Replayed
from hookseal.ground import ids
from hookseal.operations import deliveries
from hookseal.operations.operator import Operator
from hookseal.operations.replay import replay_delivery, skip_delivery

app: Final = typer.Typer(
    help="List deliveries, show their attempts, explain, replay or skip one.", no_args_is_help=True
)

_NEEDS: Final = frozenset({Part.DATABASE})
_Id: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The delivery id, which receivers see as webhook-id; `hookseal delivery list --tenant T --event-id ID` "
        "lists those of an event.",
    ),
]


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only deliveries of this tenant.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only deliveries to this endpoint.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    state: Annotated[State | None, typer.Option(help="Only deliveries in this state.")] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Only deliveries of this event; --tenant names whose event it is.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Only deliveries of events with this correlation id; add --tenant.")
    ] = None,
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
    as_json: Json = False,
) -> None:
    """List deliveries, newest first.

    A page searches at most 250,000 deliveries: it may list few or none, and have a next page.

    Example: hookseal delivery list --tenant acme --state failed --since 1h
    """
    wanted = deliveries.checked(
        delivery_queries.Filter(
            tenant_id=None if tenant is None else ids.owner_id(tenant),
            endpoint_id=None if endpoint is None else ids.endpoint_id(endpoint),
            event_type=None if event_type is None else ids.event_type(event_type),
            event_id=None if event_id is None else ids.event_id(event_id),
            correlation_id=None if correlation_id is None else ids.correlation_id(correlation_id),
            state=state,
            since=moment(since, "since"),
            until=moment(until, "until"),
            signed_by=signed_by,
        )
    )
    items, following = reading(
        start(_NEEDS), lambda connection: deliveries.page(connection, wanted, limit=limit, cursor=cursor)
    )
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def show(
    *,
    delivery: _Id,
    as_json: Json = False,
) -> None:
    """Show one delivery with every attempt: the answer, the secrets that signed it, and what it waits for.

    Example: hookseal delivery show 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    wanted = ids.delivery_id(delivery)
    found = reading(start(_NEEDS), lambda connection: delivery_queries.show(connection, wanted))
    emit(found, as_json=as_json, text=lambda: _show_text(found))


@app.command()
def why(
    *,
    delivery: _Id,
    as_json: Json = False,
) -> None:
    """Explain where a delivery stands: what it waits for, since when, what will release it, and the command for that.

    Example: hookseal delivery why 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    wanted = ids.delivery_id(delivery)
    answer = explain(reading(start(_NEEDS), lambda connection: delivery_queries.facts(connection, wanted)))
    emit(asdict(answer), as_json=as_json, text=printable(answer.text))


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

    A delivery that waits keeps the count of its spent attempts. The endpoint must exist and be enabled. If it is held
    or its lane is crowded, the delivery waits with the others of the endpoint, and the command says for what. To replay
    many finished deliveries, use `hookseal replay start`.

    Example: hookseal delivery replay 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    wanted = ids.delivery_id(delivery)
    replayed, facts = operate(start(NEEDS), lambda operator: _replayed(operator, wanted, new_id=new_id))
    held = "" if replayed.waiting_for is None else f", but is held now\n{printable(explain(facts).text)}"
    emit(
        {
            "tenant_id": replayed.tenant_id,
            "delivery_id": replayed.delivery_id,
            "endpoint_id": replayed.endpoint_id,
            "event_id": replayed.event_id,
            "replay_of": replayed.replay_of,
            "state": State.PENDING,
            "waiting_for": replayed.waiting_for,
        },
        as_json=as_json,
        text=f"delivery {replayed.delivery_id} {'is to be sent' if held else 'is due now'}"
        + (f", a replay of {wanted}" if new_id else "")
        + held,
    )


async def _replayed(operator: Operator, wanted: ids.DeliveryId, *, new_id: bool) -> tuple[Replayed, Facts]:
    """Replay the delivery, and read in the same transaction where it stands then."""
    async with operator.changing() as connection:
        replayed = await replay_delivery(operator, wanted, new_id=new_id)
        return replayed, await delivery_queries.facts(connection, replayed.delivery_id)


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
    wanted = ids.delivery_id(delivery)
    skipped = operate(start(NEEDS), lambda operator: skip_delivery(operator, wanted))
    emit(
        {
            "tenant_id": skipped.tenant_id,
            "delivery_id": skipped.delivery_id,
            "endpoint_id": skipped.endpoint_id,
            "state": skipped.state,
        },
        as_json=as_json,
        text=f"delivery {skipped.delivery_id} stops endpoint {skipped.endpoint_id} no more; the next one follows",
    )


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    columns = ["delivery_id", "tenant_id", "endpoint_id", "event_type", "state", "attempts", "created_at", "last_error"]
    none = "no deliveries" if following is None else "no deliveries among those that were searched"
    shown = table(items, columns) if items else none
    return shown if following is None else f"{shown}\nmore: --cursor {following}"


def _show_text(found: dict[str, Any]) -> str:
    # While it is held, nothing happens at the time of its next attempt.
    hidden = {"attempt_log"} if found["waiting_for"] is None else {"attempt_log", "next_attempt_at"}
    known = {name: fact for name, fact in found.items() if name not in hidden}
    lines = key_values(known)
    for attempt in found["attempt_log"]:
        lines += ["", f"attempt {attempt['number']}"]
        tried = {name: fact for name, fact in attempt.items() if name != "number"}
        lines += key_values(tried, width=max(map(len, known)), indent="  ")
    return "\n".join(lines)
