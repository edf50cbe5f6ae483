"""`hookseal find`: what has an id, in every tenant."""

from typing import Annotated

import typer

from hookseal.admin import Found
from hookseal.cli.context import READS, call
from hookseal.cli.shared.output import Json, emit, fields_of, key_values, table
from hookseal.cli.shared.runtime import start
from hookseal.errors import NotFound

_DELIVERY = ("tenant_id", "delivery_id", "endpoint_id", "event_id", "event_type", "state", "attempts", "last_error")
_TENANT = ("tenant_id", "uid", "name", "created_at")
_NOT_IN_ALL = "nothing was found with this id: there are more tenants, in which no event was looked for"
_EVENTS = ("event_id", "tenant_id", "event_type", "occurred_at", "correlation_id")


def find(
    *,
    identifier: Annotated[
        str,
        typer.Argument(help="A webhook-id, an event id, a correlation id, or the id or uid of a tenant."),
    ],
    as_json: Json = False,
) -> None:
    """Find the delivery, the events or the tenant with this id, whosever they are.

    It looks for events in up to 10,000 tenants that have had an endpoint.

    Example: hookseal find 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    found = call(start(READS), lambda admin: admin.find(identifier=identifier))
    if found.tenant is None and found.delivery is None and not found.events:
        raise NotFound("nothing has this id" if found.complete else _NOT_IN_ALL, field="identifier")
    emit(found, as_json=as_json, text=lambda: _text(found))


def _text(found: Found) -> str:
    parts = []
    for title, one, names in (("tenant", found.tenant, _TENANT), ("delivery", found.delivery, _DELIVERY)):
        if one is not None:
            facts = fields_of(one)
            parts.append("\n".join([title, *key_values({name: facts[name] for name in names}, indent="  ")]))
    if found.events:
        more = "" if found.complete else "\nthere may be more"
        parts.append(table([fields_of(event) for event in found.events], _EVENTS) + more)
    return "\n\n".join(parts)
