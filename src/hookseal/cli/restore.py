"""`hookseal restore`: find stale rows, and accept them after a restore."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hookseal.audit.chain import MAX_HEADS, Contradiction, Head, parse_heads
from hookseal.cli.shared.input_files import read_input
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, printable, table
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import plural
from hookseal.operations.operator import Operator
from hookseal.operations.restore import Accepted, accept_endpoint, accept_restore
from hookseal.secrets import restore
from hookseal.secrets.restore import StaleEndpoint, StaleKind

app: Final = typer.Typer(
    help="Find rows that are older than the audit log says, and accept a restore.", no_args_is_help=True
)

_BYTES_A_HEAD: Final = 512
_COLUMNS: Final = ("tenant_id", "endpoint_id", "kind", "generation", "audited_generation")
_REASON: Final = "reason"
_AGREES: Final = (
    "rows and audit log agree; they cannot show whether all of the database is stale: compare it with a head that you "
    "kept elsewhere, hookseal audit verify --head FILE"
)

_NEXT: Final = {
    False: "if you restored a backup, run `hookseal restore accept --head FILE`, which releases the held "
    "deliveries; else find out who did it (docs/runbook.md, HooksealStaleRow)",
    True: "an altered row cannot be accepted: restore what it was (docs/runbook.md, HooksealSecretRefused)",
}


@app.command()
def check(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only endpoints of this tenant.")] = None,
    as_json: Json = False,
) -> None:
    """List endpoints that contradict the audit log or their MACs; exit 1 if there is one. Their deliveries are held.

    `endpoint`: the row is older than the audit log says. `record`: a record of its secrets is stale. `lost`: the row
    is gone, but was not deleted through hookseal. `altered`: something other than hookseal changed the row. If the
    whole database is stale, this command cannot find it: compare with a head that you kept elsewhere (`hookseal audit
    verify --head`).

    Example: hookseal restore check --json
    """
    owner = None if tenant is None else ids.owner_id(tenant)
    items = [_shape(found) for found in operate(start(NEEDS), lambda operator: _stale_endpoints(operator, owner))]
    emit(
        {"items": items, "next_cursor": None},
        as_json=as_json,
        text=lambda: _checked_text(items) if items else _AGREES,
    )
    raise typer.Exit(1 if items else 0)


@app.command()
def accept(
    *,
    head: Annotated[
        Path, typer.Option(help="A file with an earlier output of `hookseal audit heads --json`; - is stdin.")
    ],
    tenant: Annotated[str | None, typer.Option(help="With --endpoint: the tenant of the endpoint.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Accept only this endpoint.")] = None,
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
    settings = start(NEEDS)
    if (tenant is None) != (endpoint is None):
        raise Malformed("--tenant and --endpoint go together: they name the one endpoint to accept", field="endpoint")
    heads = read_heads(head)
    one = None if tenant is None or endpoint is None else (ids.owner_id(tenant), ids.endpoint_id(endpoint))
    accepted = operate(settings, lambda operator: _accept(operator, heads, one))
    emit(
        {
            "epoch": accepted.epoch,
            "woken": accepted.woken,
            "accepted": [_shape(found) for found in accepted.endpoints],
            "refused": [_shape(found) | {_REASON: reason} for found, reason in accepted.refused],
            "contradicted": [head_shape(one, how) for one, how in accepted.contradicted],
        },
        as_json=as_json,
        text=lambda: _accepted_text(accepted),
    )
    raise typer.Exit(1 if accepted.refused else 0)


def head_shape(head: Head, how: Contradiction) -> dict[str, Any]:
    """Return a head that the log contradicts, as the commands print it."""
    return {"tenant_id": head.tenant_id, "head_sequence": head.sequence, "head_mac": head.mac.hex(), "is": how.value}


def read_heads(source: Path) -> tuple[Head, ...]:
    """Return the heads in a file, or on standard input for `-`. Raises `Malformed`."""
    return parse_heads(_text(source))


async def _stale_endpoints(operator: Operator, tenant: ids.TenantId | None) -> list[StaleEndpoint]:
    found = [one async for one in restore.find_stale(operator.connection, tenant)]
    known = {one.endpoint_id for one in found}
    others = restore.find_altered(operator.connection, operator.unlocked.integrity, tenant)
    return found + [one async for one in others if one.endpoint_id not in known]


async def _accept(
    operator: Operator, heads: Sequence[Head], one: tuple[ids.TenantId, ids.EndpointId] | None
) -> Accepted:
    if one is not None:
        return await accept_endpoint(operator, *one)
    return await accept_restore(operator, heads, on_progress=_show_progress if sys.stderr.isatty() else None)


def _show_progress(endpoints: int) -> None:
    typer.echo(f"\r\x1b[K{endpoints} endpoints", err=True, nl=False)


def _text(source: Path) -> str:
    raw = read_input(str(source), most := MAX_HEADS * _BYTES_A_HEAD, field="head")
    try:
        return raw[:most].decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the file must be text in UTF-8", field="head") from None


def _shape(found: StaleEndpoint) -> dict[str, Any]:
    return {column: getattr(found, column) for column in _COLUMNS}


def _checked_text(items: Sequence[dict[str, Any]]) -> str:
    is_altered = {item["kind"] == StaleKind.ALTERED for item in items}
    return "\n".join([table(items, _COLUMNS), *(text for kind, text in _NEXT.items() if kind in is_altered)])


def _accepted_text(accepted: Accepted) -> str:
    count, woken = len(accepted.endpoints), accepted.woken
    epoch = "" if accepted.epoch is None else f"epoch {accepted.epoch}: "
    tried = "the oldest of each endpoint is tried now, and the others are released once it is signed"
    accepted_now = f"{epoch}{plural(count, 'endpoint', 'endpoints')} accepted"
    lines = [f"{accepted_now}; deliveries held for a secret: {woken}; {tried}"]
    lines += [
        f"{printable(head.tenant_id)}: the log is {how.value}: it does not contain row {head.sequence} of the head"
        for head, how in accepted.contradicted
    ]
    lines += [
        f"endpoint {found.endpoint_id} of {found.tenant_id}: its secrets sign again, even if one was revoked "
        "later; to stop that, run `hookseal endpoint rotate --overlap 0`"
        for found in accepted.endpoints
        if found.kind is StaleKind.ENDPOINT
    ]
    lines += [f"NOT accepted: endpoint {found.endpoint_id}: {reason}" for found, reason in accepted.refused]
    return "\n".join(lines)
