"""`hookseal endpoint`: where a tenant's webhooks go."""

from typing import Annotated, Any, Final

import typer

from hookseal.cli import endpoint_options as options
from hookseal.cli.endpoint_add import add
from hookseal.cli.endpoint_ping import send_ping
from hookseal.cli.endpoint_public_key import public_key
from hookseal.cli.endpoint_state import delete, disable, enable
from hookseal.cli.endpoint_tls import tls_lines
from hookseal.cli.endpoint_update import update
from hookseal.cli.facts import facts
from hookseal.cli.output import Json, emit, table
from hookseal.cli.rotation import end_overlap, rollback, rotate
from hookseal.cli.rotation_status import rotation_status
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import catalogue
from hookseal.ground import ids

app: Final = typer.Typer(help="Add, change and show the endpoints of a tenant.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})

app.command()(add)


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only those that are.")] = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended (its next_cursor).")] = None,
    as_json: Json = False,
) -> None:
    """List endpoints, the highest id first, which of ids made by hookseal is the newest.

    Example: hookseal endpoint list --tenant acme --disabled
    """
    sought = catalogue.Sought(tenant_id=None if tenant is None else ids.tenant_id(tenant), enabled=enabled)
    items, following = run(_page(start(_NEEDS), sought, limit, cursor))
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def show(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Show one endpoint: all that was decided about it, which secrets sign for it, and what is pending.

    Example: hookseal endpoint show --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    found = run(_show(start(_NEEDS), owner, wanted))
    emit(found, as_json=as_json, text=lambda: _show_text(found))


app.command()(update)
app.command()(enable)
app.command()(disable)
app.command()(delete)
app.command(name="public-key")(public_key)
app.command()(rotate)
app.command()(rollback)
app.command(name="end-overlap")(end_overlap)
app.command(name="rotation-status")(rotation_status)
app.command(name="test")(send_ping)


async def _page(
    settings: Settings, sought: catalogue.Sought, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await catalogue.page(connection, sought, limit=limit, cursor=cursor)


async def _show(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> dict[str, Any]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await catalogue.show(connection, tenant, wanted)


def _show_text(found: dict[str, Any]) -> str:
    shown = [*facts(found | {"tls": None if found["tls"] is None else "its own: see below"}), *tls_lines(found["tls"])]
    return "\n".join(shown)


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    if not items:
        return "no endpoints"
    rows = [item | {"enabled": "yes" if item["enabled"] else "no"} for item in items]
    shown = table(rows, ["tenant_id", "endpoint_id", "url", "enabled"])
    return shown if following is None else f"{shown}\nmore: --cursor {following}"
