"""`hookseal secret purge`: destroy the material of versions that were retired long ago."""

from dataclasses import dataclass, field
from typing import Annotated

import typer

from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed, Refused, with_advice
from hookseal.ground import ids
from hookseal.ground.ids import plural
from hookseal.operations.operator import Operator
from hookseal.operations.secret import purge_batch, purgeable
from hookseal.secrets.store import retention


@dataclass(slots=True, kw_only=True)
class _Purged:
    """The number of versions that were or would be destroyed, and the tenants that failed, with the reason."""

    versions: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


def purge(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only versions of this tenant.")] = None,
    older_than: Annotated[
        int | None,
        typer.Option(metavar="DAYS", help="Only versions retired this long ago, 0 to 3650 days. Default: the setting."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Destroy nothing; count the versions.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy the material of versions that were retired SECRETS_RETIRED_RETENTION_DAYS ago; workers do it hourly.

    It destroys no version that still signs or that a request in flight may need. The record that the version existed
    stays. You may run it again: it continues where it stopped. Exit 1 if it failed for a tenant.

    Example: hookseal secret purge --older-than 30 --dry-run
    """
    owner = None if tenant is None else ids.owner_id(tenant)
    settings = start(NEEDS)
    days = settings.secrets.retired_retention_days if older_than is None else _days(older_than)
    purged = operate(settings, lambda operator: _purge(operator, owner, days, dry_run=dry_run))
    emit(
        {
            "tenant_id": owner,
            "older_than_days": days,
            "dry_run": dry_run,
            "versions": purged.versions,
            "failed": purged.failed,
        },
        as_json=as_json,
        text=f"versions {'that would be ' if dry_run else ''}destroyed: {purged.versions} "
        f"(retired at least {days} days ago)",
    )
    raise typer.Exit(1 if purged.failed else 0)


async def _purge(operator: Operator, owner: ids.TenantId | None, days: int, *, dry_run: bool) -> _Purged:
    purged = _Purged()
    found = [owner] if owner is not None else await retention.tenants(operator.connection, days=days)
    for tenant in found:
        try:
            if dry_run:
                purged.versions += await purgeable(operator, tenant, days=days)
            else:
                await _purge_tenant(operator, tenant, days, purged)
        except Refused as error:  # a broken audit log of one tenant does not stop the others
            purged.failed.append({"tenant_id": tenant, "code": error.code, "message": with_advice(error)})
            note(f"{tenant}: {with_advice(error)}")
    return purged


async def _purge_tenant(operator: Operator, tenant: ids.TenantId, days: int, purged: _Purged) -> None:
    destroyed, batch = 0, retention.BATCH
    while batch == retention.BATCH:
        batch = await purge_batch(operator, tenant, days=days)
        destroyed += batch
        purged.versions += batch
        if batch:
            note(f"{tenant}: {plural(destroyed, 'version', 'versions')} destroyed")


def _days(given: int) -> int:
    if not 0 <= given <= retention.MOST_DAYS:
        raise Malformed(f"older-than must be 0 to {retention.MOST_DAYS} days", field="older_than")
    return given
