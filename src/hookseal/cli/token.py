"""`hookseal token`: who may call the HTTP API, for which tenant, and for what."""

from typing import Annotated, Final

import typer

from hookseal.admin import AddedToken, Scope
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name, say_unknown
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, note, rfc3339
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.store.tokens import DEFAULT_SCOPES
from hookseal.ground.ids import EVERY_TENANT

app: Final = typer.Typer(help="Make and revoke tokens of the HTTP API.", no_args_is_help=True)

_COLUMNS: Final = Columns(
    ("name", "state", "expires_at", "last_used_on", "tenant_id", "scopes"), ("created_at", "revoked_at", "token_id")
)
_PORTAL_COLUMNS: Final = Columns(
    ("name", "state", "expires_at", "tenant_id", "user", "scopes"),
    ("session_id", "last_used_on", "created_at", "revoked_at", "token_id"),
)


@app.command()
def add(
    *,
    name: Annotated[str, typer.Option(help="What the audit log calls it: token:NAME.")],
    tenant: Annotated[str, typer.Option(help="The tenant that it acts for; '*' is every tenant.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What it may do; may be repeated. Without it: read, publish and manage; never operate or reveal."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="When it expires: 2027-01-31T12:00:00Z, or 12h, 90d (from now). Without it: never."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it. It is shown only now: hookseal stores its SHA-256.

    Standard output has the token alone; standard error says what it may do.

    At most one token of a name is in use. The name of one that was revoked or has expired is free.

    Example: hookseal token add --name billing --tenant acme --scope publish --expires 90d
    """
    expires_at = moment(expires, "expires", is_ahead=True)
    added = call(
        start(CHANGES),
        lambda admin: admin.tokens.add(
            name=name, tenant_id=tenant, scopes=scope or DEFAULT_SCOPES, expires_at=expires_at, actor=operator_name()
        ),
    )
    text = added.token.reveal().decode()
    emit(fields_of(added) | {"token": text}, as_json=as_json, text=text)
    if not as_json:
        note(_said(added), prefix="")
    if not (as_json or added.tenant_is_known):
        say_unknown(added.tenant_id)


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="Only tokens of this tenant; '*' is every tenant.")] = EVERY_TENANT,
    portal: Annotated[bool, typer.Option("--portal", help="Those of portals, in place of all others.")] = False,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List tokens, also those that were revoked or have expired, the newest first.

    Those that ended long ago are deleted: after 30 days, those of portals after 7.

    Example: hookseal token list --tenant acme
    """
    page = listed(
        start(READS),
        lambda admin: admin.tokens.list(tenant_id=tenant, portal=portal, limit=limit, cursor=cursor),
        tenant=tenant,
    )
    columns = _PORTAL_COLUMNS if portal else _COLUMNS
    emit_page(page, columns, none="no tokens", as_json=as_json, wide=wide, tenant=tenant)


@app.command()
def revoke(*, name: Annotated[str, typer.Option(help="The name of the token.")], as_json: Json = False) -> None:
    """Revoke a token: the next request with it is refused.

    Example: hookseal token revoke --name billing
    """
    revoked = call(start(CHANGES), lambda admin: admin.tokens.revoke(name=name, actor=operator_name()))
    emit(revoked, as_json=as_json, text=f"token {revoked.name} is revoked")


def _said(added: AddedToken) -> str:
    tenant = "every tenant" if added.tenant_id == EVERY_TENANT else added.tenant_id
    end = "never expires" if added.expires_at is None else f"expires at {rfc3339(added.expires_at)}"
    return f"the token {added.name} of {tenant} may {', '.join(added.scopes)}, and {end}; it is shown only now"
