"""`hookseal tenant`: the customers of the product."""

import sys
from typing import Annotated, Final

import typer

from hookseal.admin import Tenant
from hookseal.cli.context import CHANGES, READS, call, operator_name
from hookseal.cli.shared.moments import age
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed
from hookseal.ground import ids

app: Final = typer.Typer(help="Name, list and delete tenants.", no_args_is_help=True)

_COLUMNS: Final = Columns(
    ("tenant_id", "pending", "due", "waiting", "oldest", "created_at", "name"), ("uid", "updated_at")
)


@app.command()
def add(
    *,
    tenant: Annotated[str | None, typer.Option(help="Its id. Without it: the uid, or a new id.")] = None,
    uid: Annotated[str | None, typer.Option(help="What the product calls it, 1 to 256 characters.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name, for people.")] = None,
    as_json: Json = False,
) -> None:
    """Add a tenant. It is not needed: a tenant is known once it has an endpoint.

    It also makes the id of a deleted tenant usable, once no event and no delivery of it is kept.

    Example: hookseal tenant add --tenant acme --name 'Acme Inc.'
    """
    added = call(
        start(CHANGES),
        lambda admin: admin.tenants.add(tenant_id=tenant, uid=uid, name=name, actor=operator_name()),
    )
    emit(added, as_json=as_json, text=f"tenant {added.tenant_id} is added")


@app.command(name="list")
def list_(
    *,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List tenants that were added or have had an endpoint, the newest first, each with its pending deliveries.

    Of each kind up to 10,000 deliveries of a tenant are counted. The oldest has been due or held for so long.

    Example: hookseal tenant list
    """
    page = call(start(READS), lambda admin: admin.tenants.list(limit=limit, after=cursor, with_backlog=True))
    emit_page(page, _COLUMNS, none="no tenants", as_json=as_json, wide=wide, row=_row)


@app.command()
def delete(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Required without a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a tenant with all its endpoints, at most 100: cancel its pending deliveries, and revoke its tokens.

    What was delivered stays on record until HOOKSEAL_RETENTION_DAYS have passed. Until then its id is taken.

    Example: hookseal tenant delete --tenant acme --yes
    """
    wanted = ids.tenant_uid(tenant)  # before it asks whether to delete it
    settings = start(CHANGES)
    if not yes and not sys.stdin.isatty():
        raise Malformed("standard input is no terminal, so the command cannot ask: add --yes to delete", field="yes")
    asked = f"Delete tenant {wanted} with all its endpoints, and cancel its pending deliveries?"
    if not yes and not typer.confirm(asked, err=True):
        emit({"tenant_id": wanted, "deleted": False}, as_json=as_json, text="nothing was deleted")
        raise typer.Exit(1)
    deleted = call(settings, lambda admin: admin.tenants.delete(tenant_id=wanted, actor=operator_name()))
    emit(
        deleted,
        as_json=as_json,
        text=f"tenant {deleted.tenant_id} is deleted, with {ids.plural(deleted.endpoints, 'endpoint', 'endpoints')}; "
        f"pending deliveries cancelled: {deleted.cancelled}, tokens revoked: {deleted.tokens}",
    )


def _row(tenant: Tenant) -> dict[str, object]:
    if (backlog := tenant.backlog) is None:
        return fields_of(tenant)
    return fields_of(tenant) | fields_of(backlog) | {"oldest": age(backlog.oldest_seconds)}
