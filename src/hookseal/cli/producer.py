"""`hookseal producer`: which database roles may publish, and for which tenants."""

from typing import Annotated, Final

import typer

from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, printable, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher.store import producers
from hookseal.ground.ids import TenantId
from hookseal.operations.producers import grant as grant_publishing
from hookseal.operations.producers import revoke as revoke_publishing

app: Final = typer.Typer(help="Let database roles publish for tenants.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})

Role = Annotated[str, typer.Option(help="The database role that the producer logs in as.")]
Tenant = Annotated[str, typer.Option(help="The tenant that it may publish for; '*' is every tenant.")]


@app.command()
def grant(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Let a database role publish for a tenant.

    Example: hookseal producer grant --role billing_app --tenant acme
    """
    publisher, granted_tenant = producers.role_name(role), producers.producer_tenant(tenant)
    granted = operate(start(NEEDS), lambda operator: grant_publishing(operator, publisher, granted_tenant))
    emit(
        {
            "role": granted.role,
            "tenant_id": granted.tenant_id,
            "granted_at": granted.granted_at,
            "changed": granted.changed,
        },
        as_json=as_json,
        text=f"{printable(publisher)} may publish for {_tenant_name(granted_tenant)}"
        + ("" if granted.changed else " already: nothing was changed"),
    )


@app.command()
def revoke(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Revoke the right of a database role to publish for a tenant, at once.

    A role that may publish for every tenant ('*') may still publish for this one: the command says so.

    Example: hookseal producer revoke --role billing_app --tenant acme
    """
    publisher, granted_tenant = producers.role_name(role), producers.producer_tenant(tenant)
    revoked = operate(start(NEEDS), lambda operator: revoke_publishing(operator, publisher, granted_tenant))
    left = (
        ""
        if revoked.statement is None
        else f"\none statement is left, which needs a role with more rights: {revoked.statement};"
    )
    name, tenants = printable(publisher), _tenant_name(granted_tenant)
    emit(
        {
            "role": revoked.role,
            "tenant_id": revoked.tenant_id,
            "left_to_run": revoked.statement,
            "still_for_every_tenant": revoked.still_for_every_tenant,
        },
        as_json=as_json,
        text=f"the right is revoked, but {name} may still publish for {tenants}, as it may for every tenant: "
        f"to end that, run hookseal producer revoke --role {name} --tenant '*'"
        if revoked.still_for_every_tenant
        else f"{name} may no longer publish for {tenants}{left}",
    )


@app.command(name="list")
def list_(
    *,
    role: Annotated[str | None, typer.Option(help="Only grants to this role.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only grants for this tenant; '*' is every tenant.")] = None,
    as_json: Json = False,
) -> None:
    """List which database roles may publish for which tenants.

    A stale grant gives no right: its role was dropped, even if a newer role has the same name.

    Example: hookseal producer list --tenant acme
    """
    publisher = None if role is None else producers.role_name(role)
    granted_tenant = None if tenant is None else producers.producer_tenant(tenant)
    items = reading(
        start(_NEEDS), lambda connection: producers.every(connection, role=publisher, tenant=granted_tenant)
    )
    words = {True: "yes", False: "no"}
    shown = [item | {name: words[item[name]] for name in ("role_exists", "stale")} for item in items]
    emit(
        {"items": items, "next_cursor": None},
        as_json=as_json,
        text=lambda: (
            table(shown, ["role", "tenant_id", "granted_at", "role_exists", "stale"]) if shown else "no producers"
        ),
    )


def _tenant_name(tenant: TenantId) -> str:
    return "every tenant" if tenant == producers.EVERY_TENANT else tenant
