"""`hookseal restore`: find stale rows, and accept them after a restore."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.admin import AcceptedRestore, Admin, StaleEndpoint
from hookseal.cli.audit import read_heads
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.shared.output import Json, emit, fields_of, plain, table
from hookseal.cli.shared.progress import progress
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed
from hookseal.ground.ids import EVERY_TENANT, plural

app: Final = typer.Typer(
    help="Find rows that are older than the audit log says, and accept a restore.", no_args_is_help=True
)

_COLUMNS: Final = ("endpoint_id", "kind", "generation", "audited_generation", "tenant_id")
_AGREES: Final = (
    "rows and audit log agree; they cannot show whether all of the database is stale: compare it with a head that you "
    "kept elsewhere, hookseal audit verify --head FILE"
)

_IF_STALE: Final = (
    "if you restored a backup, run `hookseal restore accept --head FILE`, which releases the held "
    "deliveries; else find out who did it (docs/runbook.md, HooksealStaleRow)"
)
_IF_ALTERED: Final = "an altered row cannot be accepted: restore what it was (docs/runbook.md, HooksealSecretRefused)"


@app.command()
def check(
    *,
    tenant: Annotated[str, typer.Option(help="Only endpoints of this tenant; '*' is every tenant.")] = EVERY_TENANT,
    as_json: Json = False,
) -> None:
    """List endpoints that contradict the audit log or their MACs; exit 1 if there is one. Their deliveries are held.

    `endpoint`: the row is older than the audit log says. `record`: a record of its secrets is stale. `lost`: the row
    is gone, but was not deleted through hookseal. `unaudited`: the log does not know the generation of the row, so
    somebody with the integrity key changed it. `altered`: something other than hookseal changed the row. If the whole
    database is stale, this command cannot find it: compare with a head that you kept elsewhere (`hookseal audit
    verify --head`).

    Example: hookseal restore check --json
    """
    page = call(start(CHANGES), lambda admin: admin.restores.check(tenant_id=tenant))
    emit(page, as_json=as_json, text=lambda: _checked_text(page.items) if page.items else _AGREES)
    raise typer.Exit(1 if page.items else 0)


@app.command()
def accept(
    *,
    head: Annotated[
        Path, typer.Option(help="A file with an earlier output of `hookseal audit heads --json`; - is stdin.")
    ],
    tenant: Annotated[str | None, typer.Option(help="With --endpoint: the tenant of the endpoint.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Accept only this endpoint, by its id or its uid.")] = None,
    as_json: Json = False,
) -> None:
    """After a restore, accept the current rows as valid, and release the deliveries that were held because of them.

    It accepts every endpoint that `restore check` lists, except those that are `altered`. An endpoint that is `lost`
    counts as deleted: its pending deliveries are cancelled. An accepted row signs again with the secrets that it
    names, even with one that was revoked later: if it must not sign, disable the endpoint first and rotate it with
    --overlap 0 afterwards. Workers discard what they saw before. The audit log records everything, also the rows that
    it lacks according to the heads in the file. Exit 1 if an endpoint cannot be accepted. You may run it again. With
    --endpoint it accepts only this endpoint, and no heads.

    Example: hookseal restore accept --head heads.json
    """
    settings = start(CHANGES)
    if (tenant is None) != (endpoint is None):
        raise Malformed("--tenant and --endpoint go together: they name the one endpoint to accept", field="endpoint")
    heads = read_heads(head)

    async def step(admin: Admin) -> AcceptedRestore:
        with progress("endpoints looked at", is_quiet=True) as report:
            return await admin.restores.accept(
                heads=heads,
                actor=operator_name(),
                tenant_id=tenant,
                endpoint_id=endpoint,
                on_progress=lambda _endpoints: report(1),
            )

    accepted = call(settings, step)
    emit(accepted, as_json=as_json, text=lambda: _accepted_text(accepted))
    raise typer.Exit(1 if accepted.refused else 0)


def _checked_text(items: Sequence[StaleEndpoint]) -> str:
    lines = [table([fields_of(item) for item in items], _COLUMNS)]
    if any(item.kind != "altered" for item in items):
        lines.append(_IF_STALE)
    if any(item.kind == "altered" for item in items):
        lines.append(_IF_ALTERED)
    return "\n".join(lines)


def _accepted_text(accepted: AcceptedRestore) -> str:
    epoch = "" if accepted.epoch is None else f"epoch {accepted.epoch}: "
    count = plural(len(accepted.accepted), "endpoint", "endpoints")
    summary = (
        f"{epoch}{count} accepted; deliveries held for a secret: {accepted.woken}; the oldest of each endpoint is "
        "tried now, and the others are released once it is signed"
    )
    lines = [summary]
    lines += [
        f"{plain(head.tenant_id)}: the log is {head.how}: it does not contain row {head.head_sequence} of the head"
        for head in accepted.contradicted
    ]
    lines += [
        f"endpoint {stale.endpoint_id} of {stale.tenant_id}: its secrets sign again, even if one was revoked "
        "later; to stop that, run `hookseal endpoint rotate "
        f"--tenant {stale.tenant_id} --endpoint {stale.endpoint_id} --overlap 0`"
        for stale in accepted.accepted
        if stale.kind == "endpoint"
    ]
    lines += [
        f"endpoint {stale.endpoint_id} of {stale.tenant_id}: requests go where its row says now; look at it with "
        f"`hookseal endpoint show --tenant {stale.tenant_id} --endpoint {stale.endpoint_id}`"
        for stale in accepted.accepted
        if stale.kind == "unaudited"
    ]
    lines += [f"NOT accepted: endpoint {stale.endpoint_id}: {stale.reason}" for stale in accepted.refused]
    return "\n".join(lines)
