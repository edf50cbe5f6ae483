"""`hookseal secret`: the versions of an endpoint's secret, and the caches that workers keep of them."""

from typing import Annotated, Any, Final

import typer

from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, table
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.ground import ids
from hookseal.operations.caches import Cleared, clear_caches
from hookseal.secrets import inventory

app: Final = typer.Typer(help="See the versions of a secret, and clear what workers cached.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})


@app.command()
def versions(
    *,
    tenant: Annotated[str, typer.Option(help="Whose endpoint it is.")],
    endpoint: Annotated[str, typer.Option(help="The endpoint id.")],
    as_json: Json = False,
) -> None:
    """List every version of an endpoint's secret, oldest first, and which of them sign now.

    Example: hookseal secret versions --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    items = run(_versions(start(_NEEDS), owner, wanted))
    shown = [item | {"signs": "yes" if item["signs"] else "no"} for item in items]
    emit(
        {"items": items, "next_cursor": None},
        as_json=as_json,
        text=lambda: table(shown, ["ref", "state", "scheme", "signs"]) if shown else "no secret is sealed for it",
    )


@app.command()
def cache_clear(*, as_json: Json = False) -> None:
    """Have every worker forget the secrets that it cached, at its next claim; what waits for a secret is due at once.

    Example: hookseal secret cache-clear
    """
    cleared = run(_clear(start(NEEDS)))
    emit(
        {"epoch": cleared.epoch, "woken": cleared.woken},
        as_json=as_json,
        text=f"what was cached before epoch {cleared.epoch} is not used again; "
        f"due now that waited for a secret: {cleared.woken}",
    )


async def _versions(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> list[dict[str, Any]]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await inventory.of_endpoint(connection, tenant, wanted)


async def _clear(settings: Settings) -> Cleared:
    async with operating(settings) as operator:
        return await clear_caches(operator)
