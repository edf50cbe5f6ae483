"""`hookseal portal`: lets a customer into the pages."""

from typing import Annotated, Final

import typer

from hookseal.admin import PORTAL_SCOPES, Scope
from hookseal.cli.context import CHANGES, call, operator_name, say_unknown
from hookseal.cli.shared.moments import seconds
from hookseal.cli.shared.output import Json, emit, fields_of, note, rfc3339
from hookseal.cli.shared.runtime import start
from hookseal.config.api import PORTAL_URL
from hookseal.errors import ConfigError
from hookseal.ground.ids import EVERY_TENANT

app: Final = typer.Typer(help="Let customers into the pages.", no_args_is_help=True)


@app.command()
def link(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant whose pages it opens.")],
    user: Annotated[str | None, typer.Option(help="Who uses it: the audit log names them, token:NAME/USER.")] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What they may do; may be repeated. Without it: read, manage and operate; never publish or reveal."
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="How long they may: 30m, 12h; 7d at most.")] = "1h",
    refresh_url: Annotated[
        str | None, typer.Option(help="The page of your product that lets them in again, https.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a link that lets somebody into the pages of a tenant. It works once, within ten minutes.

    Standard output has the link alone; standard error says what it opens, and until when.

    With --tenant '*' it opens the pages of an operator, and needs --scope read --scope operate.

    It begins with HOOKSEAL_PORTAL_URL. It is shown only now: hookseal stores the SHA-256 of its code.

    Example: hookseal portal link --tenant acme --user jane@acme.example
    """
    lasting = seconds(expires, "expires")
    settings = start(CHANGES)
    if settings.api.portal_url is None:
        raise ConfigError(f"{PORTAL_URL} is not set: it must be the address of the pages", field=PORTAL_URL)
    made = call(
        settings,
        lambda admin: admin.portal.add(
            tenant_id=tenant,
            scopes=scope or PORTAL_SCOPES,
            user=user,
            refresh_url=refresh_url,
            expiry_seconds=lasting,
            actor=operator_name(),
        ),
    )
    url = "" if made.url is None else made.url.reveal().decode()
    emit(fields_of(made) | {"url": url}, as_json=as_json, text=url)
    if not as_json:
        whose = "an operator" if tenant == EVERY_TENANT else tenant
        ends = rfc3339(made.expires_at)
        note(f"it works once, within ten minutes, and opens the pages of {whose}; they close at {ends}", prefix="")
    if not (as_json or made.tenant_is_known):
        say_unknown(tenant)
