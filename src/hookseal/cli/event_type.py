"""`hookseal event-type`: the catalogue of event types, from which people choose."""

from typing import Annotated, Final

import msgspec
import typer

from hookseal.cli.context import CHANGES, READS, call, operator_name
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed
from hookseal.ground import json_problem

app: Final = typer.Typer(help="Keep the catalogue of event types.", no_args_is_help=True)

_COLUMNS: Final = Columns(("name", "deprecated", "created_at", "description"), ("updated_at",))


@app.command()
def add(
    *,
    name: Annotated[str, typer.Option(help="The type, for example invoice.paid.")],
    description: Annotated[str, typer.Option(help="What it means, for people.")] = "",
    example: Annotated[
        str | None, typer.Option(help="An example of a payload, in JSON: what a test event has.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add an event type to the catalogue, from which a customer chooses what an endpoint gets.

    It restricts nothing: events of every type are published and delivered. Types with an example can be sent as a test
    event. JSON schemas of several versions are given over HTTP (docs/api.md).

    Example: hookseal event-type add --name invoice.paid --example '{"id": 1}'
    """
    schemas = None if example is None else _with_example(example)
    added = call(
        start(CHANGES),
        lambda admin: admin.event_types.add(name=name, description=description, schemas=schemas, actor=operator_name()),
    )
    emit(added, as_json=as_json, text=f"event type {added.name} is added")


@app.command(name="list")
def list_(
    *,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List the event types of the catalogue, by name.

    Example: hookseal event-type list
    """
    page = call(start(READS), lambda admin: admin.event_types.list(limit=limit, after=cursor))
    emit_page(page, _COLUMNS, none="no event types", as_json=as_json, wide=wide)


@app.command()
def remove(*, name: Annotated[str, typer.Option(help="The type to remove.")], as_json: Json = False) -> None:
    """Take an event type out of the catalogue. Endpoints that subscribe to it still do; the type may be added again.

    Example: hookseal event-type remove --name invoice.paid
    """
    removed = call(start(CHANGES), lambda admin: admin.event_types.delete(name=name, actor=operator_name()))
    emit(removed, as_json=as_json, text=f"event type {removed.name} is removed")


def _with_example(example: str) -> str:
    """Return the JSON schemas of a type that has only this example. Raises `Malformed` unless it is JSON."""
    try:
        msgspec.json.decode(example)
        return msgspec.json.encode({"1": {"examples": [msgspec.Raw(example.encode())]}}).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise Malformed(f"example must be JSON{json_problem.said(example)}", field="example") from None
