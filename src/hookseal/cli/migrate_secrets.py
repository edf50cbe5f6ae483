"""`hookseal migrate-secrets`: seal plaintext secrets of an older system, then forbid plaintext."""

from dataclasses import replace
from typing import Annotated, Final

import typer
import uvloop

from hookseal.admin import Admin, MigratedSecrets
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import option_of
from hookseal.cli.shared.progress import progress_of_rows
from hookseal.cli.shared.runtime import start
from hookseal.ground.wire import Scheme
from hookseal.postgres.schema.plaintext import PlaintextColumn

_STILL_THERE: Final = """\
The old values are still in dead rows, in the write-ahead log, on replicas and in backups, and anyone who read \
them still has them. Only a rotation makes them useless. `hookseal audit list --action secret.migrated` lists the \
migrated endpoints; for each of them run
  hookseal endpoint rotate --tenant TENANT --endpoint ENDPOINT_ID --secret-out FILE"""

_EITHER: Final = (
    "with the scheme x-webhook and a secret that could be one of Standard Webhooks (whsec_...). The key is its"
)
_SO_FAR: Final = """\
whole text, which is right if the receiver verifies x-webhook. If it verifies Standard Webhooks, run
  hookseal migrate-secrets --scheme standard"""
_FROM_NOW_ON: Final = """\
whole text, which is right if the receiver verifies x-webhook. If it verifies Standard Webhooks, keep the secret:
  hookseal secret reveal --tenant TENANT --endpoint ENDPOINT_ID --secret-out FILE
  hookseal endpoint rotate --tenant TENANT --endpoint ENDPOINT_ID --scheme standard --secret-file FILE --overlap 0
and give --scheme standard for the endpoints that are left to migrate."""


def migrate_secrets(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print for each endpoint what would be done.")
    ] = False,
    finalize: Annotated[
        bool, typer.Option("--finalize", help="Empty the column, and let PostgreSQL refuse plaintext from then on.")
    ] = False,
    scheme: Annotated[
        Scheme,
        typer.Option(
            help="How the receivers verify: x-webhook, where the whole text is the key, or standard or svix, where "
            "each secret must be whsec_ and the base64 of 24 to 64 bytes."
        ),
    ] = Scheme.X_WEBHOOK,
    as_json: Json = False,
) -> None:
    """Seal the plaintext secrets of an older system, byte for byte, each endpoint in one transaction.

    A migrated endpoint signs in the given scheme. The plaintext stays in its column until you run the command with
    --finalize, which requires that every secret is sealed. You may run it again: it continues where it stopped. Exit 1
    if an endpoint could not be migrated: each is reported, and does not stop the others.

    Example: hookseal migrate-secrets --dry-run
    """

    async def step(admin: Admin) -> MigratedSecrets:
        with progress_of_rows("endpoints") as (report, on_progress):
            return await admin.secrets.migrate(
                scheme=scheme,
                dry_run=dry_run,
                finalize=finalize,
                actor=operator_name(),
                report=report,
                on_progress=on_progress,
            )

    migrated = call(start(CHANGES), step, loop_factory=uvloop.new_event_loop)
    failed = tuple(replace(each, field=option_of(each.field)) for each in migrated.failed)
    emit(replace(migrated, failed=failed), as_json=as_json, text=lambda: _text(migrated))
    raise typer.Exit(1 if migrated.failures else 0)


def _text(found: MigratedSecrets) -> str:
    is_examined = found.migrated or found.present or found.failures or found.finalized
    if found.column == PlaintextColumn.GONE and not is_examined:
        return "the column of plaintext secrets is gone: nothing to do"
    lines = [
        f"{'would be ' * found.dry_run}migrated  {found.migrated}",
        f"sealed before  {found.present}",
        f"failed  {found.failures}",
    ]
    if found.also_standard:
        is_open = found.dry_run and found.migrated
        lines.append(f"{found.also_standard} of them {_EITHER} {_SO_FAR if is_open else _FROM_NOW_ON}")
    if found.finalized:
        lines += [
            f"emptied  {found.emptied}",
            "plaintext is forbidden from now on; `hookseal db upgrade` removes the column",
        ]
    elif found.column == PlaintextColumn.FORBIDDEN:
        lines.append("plaintext is forbidden; `hookseal db upgrade` removes the column")
    if found.migrated and not found.dry_run and not found.failures:
        lines.append("the plaintext is still in its column: run `hookseal migrate-secrets --finalize`")
    return "\n".join([*lines, _STILL_THERE] if found.finalized else lines)
