"""`hookseal delivery`: where deliveries stand, what was tried, and one of them again."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from hookseal.cli.facts import facts
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, table
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import history
from hookseal.dispatcher.model import State
from hookseal.dispatcher.replay import Replayed
from hookseal.ground import ids
from hookseal.ground.errors import Malformed
from hookseal.operations.replay import replay_delivery
from hookseal.secrets import inventory
from hookseal.secrets.ref import SecretRef

app: Final = typer.Typer(help="List deliveries, show what was tried, replay one.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint's.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    since: Annotated[str | None, typer.Option(help="Only made since then: 2026-01-31T12:00:00Z.")] = None,
    signed_by: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Only what this version of a secret signed, or may be signing in flight."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended (its next_cursor).")] = None,
    as_json: Json = False,
) -> None:
    """List deliveries, newest first.

    With --signed-by a page looks at 250,000 deliveries of the endpoint at the most: it may hold few and have a next.

    Example: hookseal delivery list --tenant acme --state failed
    """
    wanted = history.Filter(
        tenant_id=None if tenant is None else ids.tenant_id(tenant),
        endpoint_id=None if endpoint is None else ids.endpoint_id(endpoint),
        event_type=None if event_type is None else ids.event_type(event_type),
        state=state,
        since=None if since is None else _moment(since),
    )
    version = None
    if signed_by is not None:
        version, owner = inventory.signing_ref(signed_by)
        wanted = _narrowed(wanted, version, owner)
    items, following = run(_page(start(_NEEDS), wanted, version, limit=limit, cursor=cursor))
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def show(
    *,
    delivery: Annotated[str, typer.Argument(metavar="ID", help="The delivery id, which receivers see as webhook-id.")],
    as_json: Json = False,
) -> None:
    """Show one delivery with every attempt: what was answered, which secrets signed it, what it waits for.

    Example: hookseal delivery show 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    found = run(_show(start(_NEEDS), ids.delivery_id(delivery)))
    emit(found, as_json=as_json, text=lambda: _show_text(found))


@app.command()
def replay(
    *,
    delivery: Annotated[str, typer.Argument(metavar="ID", help="The delivery id, which receivers see as webhook-id.")],
    new_id: Annotated[
        bool, typer.Option("--new-id", help="As a new delivery: the receiver does not take it for a repeat.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a delivery again that was delivered, failed, or is a dead letter, with a fresh budget of attempts.

    Example: hookseal delivery replay 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    wanted = ids.delivery_id(delivery)
    replayed = run(_replay(start(NEEDS), wanted, new_id=new_id))
    emit(
        {
            "tenant_id": replayed.tenant_id,
            "delivery_id": replayed.delivery_id,
            "endpoint_id": replayed.endpoint_id,
            "event_id": replayed.event_id,
            "replay_of": replayed.replay_of,
            "state": State.PENDING,
        },
        as_json=as_json,
        text=f"delivery {replayed.delivery_id} is due now" + (f", a replay of {wanted}" if new_id else ""),
    )


async def _page(
    settings: Settings, wanted: history.Filter, version: SecretRef | None, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        items, following = await history.page(connection, wanted, limit=limit, cursor=cursor)
        if version is not None and not items:
            await inventory.require_known(connection, version)
    return items, following


async def _show(settings: Settings, wanted: ids.DeliveryId) -> dict[str, Any]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await history.show(connection, wanted)


async def _replay(settings: Settings, wanted: ids.DeliveryId, *, new_id: bool) -> Replayed:
    async with operating(settings) as operator:
        return await replay_delivery(operator, wanted, new_id=new_id)


def _narrowed(wanted: history.Filter, version: SecretRef, owner: ids.EndpointId) -> history.Filter:
    """Return the filter for what the version signed. Raises `Malformed` if the other options contradict it."""
    if wanted.tenant_id not in {None, version.tenant}:
        raise Malformed("the secret is of another tenant than --tenant: leave one of them out", field="signed_by")
    if wanted.endpoint_id not in {None, owner}:
        raise Malformed("the secret is of another endpoint than --endpoint: leave one of them out", field="signed_by")
    return replace(wanted, tenant_id=version.tenant, endpoint_id=owner, signed_by=str(version))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("since must be a time as in 2026-01-31T12:00:00Z", field="since") from None
    if moment.tzinfo is None:
        raise Malformed("since must name its time zone, for instance by Z", field="since")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Malformed("since must be a time from the year 1 on, in UTC", field="since") from None


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    columns = ["delivery_id", "tenant_id", "endpoint_id", "event_type", "state", "attempts", "last_error"]
    none = "no deliveries" if following is None else "no deliveries among those that were looked at"
    shown = table(items, columns) if items else none
    return shown if following is None else f"{shown}\nmore: --cursor {following}"


def _show_text(found: dict[str, Any]) -> str:
    known = {name: fact for name, fact in found.items() if name != "attempt_log"}
    lines = facts(known)
    for attempt in found["attempt_log"]:
        lines += ["", f"attempt {attempt['number']}"]
        tried = {name: fact for name, fact in attempt.items() if name != "number"}
        lines += facts(tried, width=max(map(len, known)), indent="  ")
    return "\n".join(lines)
