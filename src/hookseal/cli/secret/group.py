"""`hookseal secret`: list, reveal, move and destroy versions of secrets, and clear the caches of workers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.admin import Admin, Purge, RevealedSecret, SecretVersion
from hookseal.cli.context import CHANGES, READS, call, operator_name
from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.secret.move import move
from hookseal.cli.shared.moments import lasting
from hookseal.cli.shared.output import Columns, Json, Wide, emit, fields_of, rfc3339, secret_text, table
from hookseal.cli.shared.progress import Report, of_each, progress
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput
from hookseal.errors import HooksealError, Malformed, with_advice
from hookseal.ground import ids
from hookseal.ground.ids import plural
from hookseal.secrets.core.material import SecretMaterial

app: Final = typer.Typer(
    help="List, reveal and move secrets, destroy old versions, and clear the caches of workers.", no_args_is_help=True
)

_COLUMNS: Final = Columns(
    ("version", "state", "scheme", "signs", "attempts", "needed", "ref"),
    ("created_at", "changed_at", "claims_in_flight"),
)


@app.command()
def versions(*, tenant: Tenant, endpoint: Endpoint, wide: Wide = False, as_json: Json = False) -> None:
    """List every version of an endpoint's secret, oldest first: whether it signs, how often it did, if it is needed.

    A version that is not needed may be destroyed. `hookseal delivery list --signed-by REF` lists what it signed.

    Example: hookseal secret versions --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    items = call(start(READS), lambda admin: admin.secrets.versions(tenant_id=tenant, endpoint_id=endpoint))
    emit({"items": items, "next_cursor": None}, as_json=as_json, text=lambda: _versions_text(items, wide=wide))


@app.command()
def reveal(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    secret_out: Annotated[Path | None, typer.Option(help="Write the secret to this new file (mode 0600).")] = None,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret even to a pipe or as JSON.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the current secret of an endpoint, for example after a rotation on schedule. The audit log records it.

    For ed25519 it prints the public key, which is all that a receiver needs.

    Example: hookseal secret reveal --tenant acme --endpoint ENDPOINT_ID --secret-out current.secret
    """
    owner, endpoint_id = ids.owner_id(tenant), ids.endpoint_id(endpoint)  # before what it says of the output
    settings = start(CHANGES)
    output = SecretOutput(secret_out, print_it=print_secret, as_json=as_json)
    if output.has_no_destination:  # first, because a secret that is not printed must not be on record as revealed
        raise Malformed(
            "the secret would be neither printed nor written: add --secret-out FILE, or --print-secret to print it; "
            "`hookseal endpoint public-key` prints a public key",
            field="secret_out",
        )
    with output.reserving():  # first, so that a secret on record as revealed can be written
        revealed = call(
            settings,
            lambda admin: admin.secrets.reveal(tenant_id=owner, endpoint_id=endpoint_id, actor=operator_name()),
        )
        public_key = SecretMaterial((revealed.public_key or "").encode())
        text = output.keep_instead(public_key if revealed.secret is None else revealed.secret)
    emit(
        fields_of(revealed) | {"secret": None if revealed.secret is None else text},
        as_json=as_json,
        text=lambda: _revealed_text(revealed, text, secret_out),
    )


@app.command()
def purge(
    *,
    tenant: Annotated[str, typer.Option(help="Only versions of this tenant; '*' is every tenant.")] = ids.EVERY_TENANT,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Only versions retired this long ago, as 30d or 0; whole days. Default: the setting.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Destroy nothing; count the versions.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy the material of versions that were retired SECRETS_RETIRED_RETENTION_DAYS ago; workers do it hourly.

    It destroys no version that still signs or that a request in flight may need. The record that the version existed
    stays. You may run it again: it continues where it stopped. Exit 1 if it failed for a tenant.

    Example: hookseal secret purge --older-than 30d --dry-run
    """
    older_than_days = lasting(older_than, "d", "older_than")

    async def step(admin: Admin) -> Purge:
        with progress("versions destroyed", is_quiet=True) as report:
            return await admin.secrets.purge(
                tenant_id=tenant,
                actor=operator_name(),
                older_than_days=older_than_days,
                dry_run=dry_run,
                report=_of_tenants(report),
            )

    purged = call(start(CHANGES), step)
    emit(
        purged,
        as_json=as_json,
        text=f"versions {'that would be ' if dry_run else ''}destroyed: {purged.versions} "
        f"(retired at least {plural(purged.older_than_days, 'day', 'days')} ago)",
    )
    raise typer.Exit(1 if purged.failed else 0)


app.command()(move)


@app.command()
def cache_clear(*, as_json: Json = False) -> None:
    """Make every worker discard its cached secrets at its next claim, and try held deliveries again.

    The oldest delivery of every held endpoint is tried now.

    Example: hookseal secret cache-clear
    """
    cleared = call(start(CHANGES), lambda admin: admin.secrets.clear_caches(actor=operator_name()))
    emit(
        cleared,
        as_json=as_json,
        text=f"secrets cached before epoch {cleared.epoch} are not used again; "
        f"deliveries held for a secret: {cleared.woken}; the oldest of each endpoint is tried now, "
        "and the others are released once it is signed",
    )


def _versions_text(items: Sequence[SecretVersion], *, wide: bool) -> str:
    if not items:
        return "the endpoint has no sealed secret"
    rows = [fields_of(item) | {"version": _version(item)} for item in items]
    return "\n".join([table(rows, _COLUMNS.shown(wide=wide), wide=wide), "", *map(_reason, items)])


def _version(item: SecretVersion) -> str:
    return item.ref.rpartition(":")[2]


def _reason(item: SecretVersion) -> str:
    until = "" if item.signs_until is None else f" ({rfc3339(item.signs_until)})"
    signed = "" if item.last_signed_at is None else f"; last signed {rfc3339(item.last_signed_at)}"
    return f"version {_version(item)}: {item.reason}{until}{signed}"


def _revealed_text(revealed: RevealedSecret, text: str | None, file: Path | None) -> str:
    what = "secret    " if revealed.public_key is None else "public key"
    of_endpoint = f"--tenant {revealed.tenant_id} --endpoint {revealed.endpoint_id}"
    line = f"{what} in {file}" if text is None else secret_text(what, text, of_endpoint)
    return f"current    {revealed.secret_ref}\n{line}"


def _of_tenants(report: Report) -> Callable[[str, int | HooksealError], None]:
    risen = of_each(report)

    def of_tenant(tenant: str, destroyed: int | HooksealError) -> None:
        if isinstance(destroyed, HooksealError):
            report(0, f"{tenant}: {with_advice(destroyed)}")
        else:
            risen(tenant, destroyed)
            report(0, f"{tenant}: {plural(destroyed, 'version', 'versions')} destroyed")

    return of_tenant
