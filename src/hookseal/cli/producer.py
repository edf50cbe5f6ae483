"""`hookseal producer`: which database roles may publish, and for which tenants."""

from typing import Annotated, Any, Final

import typer

from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, printable, table
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import producers
from hookseal.dispatcher.producers import Granted, Revoked
from hookseal.ground.ids import TenantId
from hookseal.operations.producers import grant as grant_publishing
from hookseal.operations.producers import revoke as revoke_publishing

app: Final = typer.Typer(help="Say which database roles may publish for which tenants.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})

Role = Annotated[str, typer.Option(help="The database role that the producer logs in as.")]
Tenant = Annotated[str, typer.Option(help="For whom it may publish; '*' is every tenant.")]


@app.command()
def grant(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Let a database role publish for a tenant.

    Example: hookseal producer grant --role billing_app --tenant acme
    """
    publisher, whose = producers.role_name(role), producers.producer_tenant(tenant)
    granted = run(_grant(start(NEEDS), publisher, whose))
    emit(
        {
            "role": granted.role,
            "tenant_id": granted.tenant_id,
            "granted_at": granted.granted_at,
            "changed": granted.changed,
        },
        as_json=as_json,
        text=f"{printable(publisher)} may publish for {_name(whose)}"
        + ("" if granted.changed else " already: nothing was changed"),
    )


@app.command()
def revoke(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Take back a role's right to publish for a tenant, at once.

    Example: hookseal producer revoke --role billing_app --tenant acme
    """
    publisher, whose = producers.role_name(role), producers.producer_tenant(tenant)
    revoked = run(_revoke(start(NEEDS), publisher, whose))
    left = "" if revoked.statement is None else f"\nleft for one who may run it: {revoked.statement};"
    emit(
        {"role": revoked.role, "tenant_id": revoked.tenant_id, "left_to_run": revoked.statement},
        as_json=as_json,
        text=f"{printable(publisher)} may no longer publish for {_name(whose)}{left}",
    )


@app.command(name="list")
def list_(
    *,
    role: Annotated[str | None, typer.Option(help="Only this role's.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only for this tenant; '*' is every tenant.")] = None,
    as_json: Json = False,
) -> None:
    """List who may publish for whom.

    What is stale gives no right: it was for a role that was dropped, though another may have its name by now.

    Example: hookseal producer list --tenant acme
    """
    publisher = None if role is None else producers.role_name(role)
    whose = None if tenant is None else producers.producer_tenant(tenant)
    items = run(_list(start(_NEEDS), publisher, whose))
    words = {True: "yes", False: "no"}
    shown = [item | {name: words[item[name]] for name in ("role_exists", "stale")} for item in items]
    emit(
        {"items": items, "next_cursor": None},
        as_json=as_json,
        text=lambda: (
            table(shown, ["role", "tenant_id", "granted_at", "role_exists", "stale"]) if shown else "no producers"
        ),
    )


async def _grant(settings: Settings, role: str, tenant: TenantId) -> Granted:
    async with operating(settings) as operator:
        return await grant_publishing(operator, role, tenant)


async def _revoke(settings: Settings, role: str, tenant: TenantId) -> Revoked:
    async with operating(settings) as operator:
        return await revoke_publishing(operator, role, tenant)


async def _list(settings: Settings, role: str | None, tenant: TenantId | None) -> list[dict[str, Any]]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await producers.every(connection, role=role, tenant=tenant)


def _name(tenant: TenantId) -> str:
    return "every tenant" if tenant == producers.EVERY_TENANT else tenant
