"""`hookseal audit`: list the audit log, and verify that it is complete and unchanged."""

from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.admin import Admin, AuditHead, AuditRow, VerifiedLog, VerifiedTenant
from hookseal.audit.chain import MAX_HEADS, Action, Contradiction, Flaw
from hookseal.audit.exported import MAX_LINE_BYTES
from hookseal.cli.context import CHANGES, READS, call, listed
from hookseal.cli.shared.input_files import STANDARD_INPUT, read_input, read_lines
from hookseal.cli.shared.output import Columns, Json, JsonLines, Wide, emit, emit_page, fields_of, note, plain
from hookseal.cli.shared.progress import of_each, progress
from hookseal.cli.shared.runtime import start
from hookseal.errors import Malformed
from hookseal.ground.ids import EVERY_TENANT

app: Final = typer.Typer(help="List, verify and export the audit log: who changed what.", no_args_is_help=True)

_COLUMNS: Final = Columns(("sequence", "at", "action", "actor", "tenant_id", "subject"), ("correlation_id",))
_BYTES_A_HEAD: Final = 512
_MEANING: Final[dict[str, str]] = {
    Flaw.MISSING: "the row is missing",
    Flaw.OUT_OF_PLACE: "the row does not belong to the chain",
    Flaw.UNKNOWN_KEY: "the row names an unknown integrity key",
    Flaw.ALTERED: "the row was altered, or not written by hookseal",
    Flaw.UNCHAINED: "the row does not continue the row before it",
    Flaw.TRUNCATED: "this row and all after it are missing",
    Flaw.HEAD: "the last row is not the one that the head of the chain names",
}

_CONTRADICTS: Final[dict[str, str]] = {
    Contradiction.OLDER: "the log ends before the head in the file",
    Contradiction.FORKED: "the log has another row in place of the head in the file",
}

Tenant = Annotated[
    str, typer.Option(help="Only rows of this tenant; '*' is every tenant, and _system the installation itself.")
]


@app.command(name="list")
def list_(
    *,
    tenant: Tenant = EVERY_TENANT,
    action: Annotated[Action | None, typer.Option(help="Only changes of this kind, such as endpoint.disabled.")] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List the rows of the audit log, newest first: what was changed, by whom and when.

    Example: hookseal audit list --tenant acme --action secret.rotated
    """
    page = listed(
        start(READS),
        lambda admin: admin.audit.list(tenant_id=tenant, action=action, limit=limit, cursor=cursor),
        tenant=tenant,
    )
    emit_page(page, _COLUMNS, none="no audit rows", as_json=as_json, wide=wide, tenant=tenant, row=_row)


@app.command()
def verify(
    *,
    tenant: Tenant = EVERY_TENANT,
    head: Annotated[
        Path | None, typer.Option(help="A file with an earlier output of `audit heads --json`; - is stdin.")
    ] = None,
    from_export: Annotated[
        Path | None, typer.Option(help="Verify this file from `audit export`, not the table; - is stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that no row was altered, removed, inserted or moved; exit 1 if one was, naming the first.

    It also exits with 1 if the row of an endpoint has a generation that the log does not know, and names the endpoint:
    somebody with the integrity key changed it without an audit row.

    An older copy of the whole log looks intact. To find that, keep the output of `audit heads --json` elsewhere and
    compare with --head. Exit 3 if the given tenant has no rows. With --from-export the command reads only the
    integrity key from the database. An export has no heads: only --head finds rows that were removed from its end.

    Example: hookseal audit verify --head heads.json --json
    """
    if from_export is not None and str(head) == str(from_export) == STANDARD_INPUT:
        raise Malformed("only one of --head and --from-export can be standard input", field="from_export")
    settings = start(CHANGES)
    saved_heads = None if head is None else read_heads(head)

    async def step(admin: Admin) -> VerifiedLog:
        counted = "rows verified" if from_export is None else "lines read"
        with progress(counted, is_quiet=True) as report:
            on_progress = of_each(report)
            if from_export is None:
                return await admin.audit.verify(tenant_id=tenant, heads=saved_heads, on_progress=on_progress)
            lines = read_lines(str(from_export), MAX_LINE_BYTES, field="from_export")
            return await admin.audit.verify_export(
                tenant_id=tenant, from_export=lines, heads=saved_heads, on_progress=on_progress
            )

    verified = call(settings, step)
    emit(verified, as_json=as_json, text=lambda: _verify_text(verified))
    raise typer.Exit(0 if verified.intact else 1)


@app.command()
def heads(*, tenant: Tenant = EVERY_TENANT, as_json: Json = False) -> None:
    """Print the head of each tenant's audit log: the number and the MAC of its last row. It needs no key.

    Keep the output where nobody who can write the tables can change it. A later log must still contain these rows:
    `audit verify --head` and `restore accept --head` compare them. If a head was not written by hookseal, the command
    prints a warning, and the comparison reports it. Exit 3 if the given tenant has no rows.

    Example: hookseal audit heads --json > heads.json
    """
    result = call(start(READS), lambda admin: admin.audit.heads(tenant_id=tenant))
    for head in result.tenants:
        if not head.is_plausible:
            note(f"{plain(head.tenant_id)}: hookseal did not write this head: run `hookseal audit verify`")
    emit(result, as_json=as_json, text=lambda: "\n".join(map(_head_text, result.tenants)) or "no audit rows")


@app.command()
def export(
    *,
    tenant: Tenant = EVERY_TENANT,
    as_json: JsonLines = False,  # noqa: ARG001 - every command has the option; this one always prints JSON
) -> None:
    """Print every row with its MACs, oldest first, one tenant after the other: one JSON object a line.

    `audit verify --from-export` verifies the output without the table.

    Example: hookseal audit export --tenant acme > audit.jsonl
    """

    async def step(admin: Admin) -> None:
        async with aclosing(admin.audit.export(tenant_id=tenant)) as rows:
            async for row in rows:
                emit(row, as_json=True, text="")

    call(start(READS), step)


def read_heads(source: Path) -> str:
    """Return the text of a file with heads, or of standard input for `-`. Raises `Malformed`."""
    raw = read_input(str(source), most := MAX_HEADS * _BYTES_A_HEAD, field="head")
    try:
        return raw[:most].decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the file must be text in UTF-8", field="head") from None


def _row(each: AuditRow) -> dict[str, object]:
    return fields_of(each) | {"at": datetime.fromisoformat(each.at)}


def _verify_text(verified: VerifiedLog) -> str:
    lines = [_verified_text(each) for each in verified.tenants]
    lines += [
        f"{plain(head.tenant_id)}: STALE: {_CONTRADICTS[head.how]} (row {head.head_sequence}, MAC {head.head_mac})"
        for head in verified.contradicted
    ]
    lines += [
        f"{plain(each.tenant_id)}: UNAUDITED: endpoint {each.endpoint_id} has generation {each.generation}, the log "
        f"knows {each.audited_generation or 'nothing'} (docs/runbook.md, HooksealStaleRow)"
        for each in verified.unaudited
    ]
    return "\n".join(lines) or "no audit rows"


def _head_text(head: AuditHead) -> str:
    return f"{plain(head.tenant_id)}: row {head.head_sequence}, MAC {head.head_mac}"


def _verified_text(verified: VerifiedTenant) -> str:
    tenant, broken = plain(verified.tenant_id), verified.broken
    if broken is not None:
        return f"{tenant}: BROKEN at row {broken.sequence}: {_MEANING[broken.reason]}"
    if verified.head_sequence is None:
        return f"{tenant}: no audit rows"
    return f"{tenant}: intact up to row {verified.head_sequence}, MAC {verified.head_mac}"
