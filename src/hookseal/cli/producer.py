"""`hookseal producer`: which database roles may publish, and for which tenants."""

import shlex
from typing import Annotated, Final

import typer

from hookseal.admin import RevokedProducer
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, plain
from hookseal.cli.shared.runtime import start
from hookseal.ground.ids import EVERY_TENANT

app: Final = typer.Typer(help="Let database roles publish for tenants.", no_args_is_help=True)

_COLUMNS: Final = Columns(("role", "tenant_id", "granted_at", "role_exists", "stale"))

Role = Annotated[str, typer.Option(help="The database role that the producer logs in as.")]
Tenant = Annotated[str, typer.Option(help="The tenant that it may publish for; '*' is every tenant.")]


@app.command()
def grant(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Let a database role publish for a tenant.

    Example: hookseal producer grant --role billing_app --tenant acme
    """
    granted = call(
        start(CHANGES), lambda admin: admin.producers.grant(role=role, tenant_id=tenant, actor=operator_name())
    )
    emit(
        granted,
        as_json=as_json,
        text=f"{plain(granted.role)} may publish for {_tenant_name(granted.tenant_id)}"
        + ("" if granted.changed else " already: nothing was changed"),
    )


@app.command()
def revoke(*, role: Role, tenant: Tenant, as_json: Json = False) -> None:
    """Revoke the right of a database role to publish for a tenant, at once.

    A role that may publish for every tenant ('*') may still publish for this one: the command says so.

    Example: hookseal producer revoke --role billing_app --tenant acme
    """
    revoked = call(
        start(CHANGES), lambda admin: admin.producers.revoke(role=role, tenant_id=tenant, actor=operator_name())
    )
    emit(revoked, as_json=as_json, text=lambda: _revoked_text(revoked))


@app.command(name="list")
def list_(
    *,
    role: Annotated[str | None, typer.Option(help="Only grants to this role.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only grants for this tenant; '*' is every tenant.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List which database roles may publish for which tenants.

    A stale grant gives no right: its role was dropped, even if a newer role has the same name.

    Example: hookseal producer list --tenant acme
    """
    page = listed(start(READS), lambda admin: admin.producers.list(role=role, tenant_id=tenant), tenant=tenant)
    emit_page(page, _COLUMNS, none="no producers", as_json=as_json, wide=wide, tenant=tenant)


def _revoked_text(revoked: RevokedProducer) -> str:
    name, tenants = plain(revoked.role), _tenant_name(revoked.tenant_id)
    if revoked.still_for_every_tenant:
        return (
            f"the right is revoked, but {name} may still publish for {tenants}, as it may for every tenant. "
            f"To end that, run\n  hookseal producer revoke --tenant '*' --role {plain(shlex.quote(revoked.role))}"
        )
    statement = revoked.left_to_run
    more = "" if statement is None else f"\none statement is left, which needs a role with more rights:\n  {statement};"
    return f"{name} may no longer publish for {tenants}{more}"


def _tenant_name(tenant: str) -> str:
    return "every tenant" if tenant == EVERY_TENANT else tenant
