"""`hookseal secret move`: take all secrets over to another provider, or back."""

from dataclasses import replace
from typing import Annotated, Final

import typer
import uvloop

from hookseal.admin import Admin, MovedSecrets, arguments
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import option_of
from hookseal.cli.shared.progress import progress_of_rows
from hookseal.cli.shared.runtime import start
from hookseal.ground.ids import EVERY_TENANT
from hookseal.ground.literals import ProviderName

_LEFT: Final = """\
The versions that were left behind are retired. To destroy them now, in place of after
SECRETS_RETIRED_RETENTION_DAYS: hookseal secret purge --older-than 0"""


def move(
    *,
    to: Annotated[ProviderName, typer.Option("--to", metavar="PROVIDER", help="db, aws, gcp or openbao.")],
    tenant: Annotated[
        str, typer.Option(help="Only endpoints of this tenant, and the others later; '*' is every tenant.")
    ] = EVERY_TENANT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count the endpoints.")] = False,
    as_json: Json = False,
) -> None:
    """Move the secrets of all endpoints to another provider, each endpoint in one transaction, then hookseal's own.

    Deliveries continue meanwhile: each attempt is signed with the secrets that its endpoint names, and overlaps stay as
    they are. Every worker must read both providers first. You may run it again: it continues where it stopped. Exit 1
    if an endpoint could not be moved: each is reported, and does not stop the others.

    Example: hookseal secret move --to openbao
    """
    provider, owner = arguments.provider(to, "to"), arguments.customer_or_every(tenant)

    async def step(admin: Admin) -> MovedSecrets:
        with progress_of_rows("endpoints") as (report, on_progress):
            return await admin.secrets.move(
                to=provider,
                tenant_id=None if owner == EVERY_TENANT else owner,
                dry_run=dry_run,
                actor=operator_name(),
                report=report,
                on_progress=on_progress,
            )

    moved = call(start(CHANGES), step, loop_factory=uvloop.new_event_loop)
    failed = tuple(replace(each, field=option_of(each.field)) for each in moved.failed)
    emit(replace(moved, failed=failed), as_json=as_json, text=lambda: _text(moved))
    raise typer.Exit(1 if moved.failures else 0)


def _text(moved: MovedSecrets) -> str:
    lines = [
        f"{'to move' if moved.dry_run else 'moved'}  {moved.moved}",
        f"there already  {moved.present}",
        f"failed  {moved.failures}",
    ]
    if moved.own:
        lines.append(f"the installation's own: {', '.join(moved.own)}")
    if moved.moved and not moved.dry_run:
        lines.append(_LEFT)
    return "\n".join(lines)
