"""`hookseal audit`: list the audit log, and verify that it is complete and unchanged."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hookseal.audit import log
from hookseal.audit.chain import Action, ChainKey, Contradiction, Flaw, Head
from hookseal.audit.exported import MAX_LINE_BYTES, verify_export
from hookseal.audit.log import Verified
from hookseal.cli.restore import head_shape, read_heads
from hookseal.cli.shared.input_files import STANDARD_INPUT, read_lines
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, JsonLines, emit, note, printable, table
from hookseal.cli.shared.runtime import Connection, reading, start
from hookseal.config.settings import Part
from hookseal.errors import Malformed, NotFound
from hookseal.ground import ids
from hookseal.operations.operator import Operator

app: Final = typer.Typer(help="List, verify and export the audit log: who changed what.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})
_MEANING: Final = {
    Flaw.MISSING: "the row is missing",
    Flaw.OUT_OF_PLACE: "the row does not belong to the chain",
    Flaw.UNKNOWN_KEY: "the row names an unknown integrity key",
    Flaw.ALTERED: "the row was altered, or not written by hookseal",
    Flaw.UNCHAINED: "the row does not continue the row before it",
    Flaw.TRUNCATED: "this row and all after it are missing",
    Flaw.HEAD: "the last row is not the one that the head of the chain names",
}

_CONTRADICTS: Final = {
    Contradiction.OLDER: "the log ends before the head in the file",
    Contradiction.FORKED: "the log has another row in place of the head in the file",
}

Tenant = Annotated[str | None, typer.Option(help="Only rows of this tenant; _system is the installation itself.")]


@app.command(name="list")
def list_(
    *,
    tenant: Tenant = None,
    action: Annotated[Action | None, typer.Option(help="Only changes of this kind.")] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List the rows of the audit log, newest first: what was changed, by whom and when.

    Example: hookseal audit list --tenant acme --action secret.rotated
    """
    owner = _tenant(tenant)
    items, following = reading(
        start(_NEEDS),
        lambda connection: log.page(connection, tenant=owner, action=action, limit=limit, cursor=cursor),
    )
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def verify(
    *,
    tenant: Tenant = None,
    head: Annotated[
        Path | None, typer.Option(help="A file with an earlier output of `audit heads --json`; - is stdin.")
    ] = None,
    from_export: Annotated[
        Path | None, typer.Option(help="Verify this file from `audit export`, not the table; - is stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that no row was altered, removed, inserted or moved; exit 1 if one was, naming the first.

    An older copy of the whole log looks intact. To find that, keep the output of `audit heads --json` elsewhere and
    compare with --head. Exit 3 if the given tenant has no rows. With --from-export the command reads only the
    integrity key from the database. An export has no heads: only --head finds rows that were removed from its end.

    Example: hookseal audit verify --head heads.json --json
    """
    owner = _tenant(tenant)
    if from_export is not None and str(head) == str(from_export) == STANDARD_INPUT:
        raise Malformed("only one of --head and --from-export can be standard input", field="from_export")
    kept = () if head is None else tuple(one for one in read_heads(head) if owner in {None, one.tenant_id})
    settings = start(NEEDS)
    if from_export is None:
        verified, contradicted = operate(settings, lambda operator: _verify(operator, owner, kept))
    else:
        verified, contradicted = _verify_export(from_export, operate(settings, _integrity), owner, kept)
    _require_rows(verified, owner, kept)
    intact = not contradicted and all(each.broken is None for each in verified)
    emit(
        {
            "intact": intact,
            "tenants": [_verified_shape(each) for each in verified],
            "contradicted": [head_shape(one, how) for one, how in contradicted],
        },
        as_json=as_json,
        text=lambda: _verify_text(verified, contradicted),
    )
    raise typer.Exit(0 if intact else 1)


@app.command()
def heads(*, tenant: Tenant = None, as_json: Json = False) -> None:
    """Print the head of each tenant's audit log: the number and the MAC of its last row. It needs no key.

    Keep the output where nobody who can write the tables can change it. A later log must still contain these rows:
    `audit verify --head` and `restore accept --head` compare them. If a head was not written by hookseal, the command
    prints a warning, and the comparison reports it. Exit 3 if the given tenant has no rows.

    Example: hookseal audit heads --json > heads.json
    """
    owner = _tenant(tenant)
    found = reading(start(_NEEDS), lambda connection: log.heads(connection, tenant=owner))
    if owner is not None and not found:
        raise _no_rows()
    for one in found:
        if not one.is_plausible:
            note(f"{one.tenant_id}: hookseal did not write this head: run `hookseal audit verify`")
    emit(
        {"tenants": [_head_shape(one) for one in found]},
        as_json=as_json,
        text=lambda: "\n".join(_head_text(one) for one in found) or "no audit rows",
    )


@app.command()
def export(
    *,
    tenant: Tenant = None,
    as_json: JsonLines = False,  # noqa: ARG001 - every command has the option; this one always prints JSON
) -> None:
    """Print every row with its MACs, oldest first, one tenant after the other: one JSON object a line.

    `audit verify --from-export` verifies the output without the table.

    Example: hookseal audit export --tenant acme > audit.jsonl
    """
    owner = _tenant(tenant)
    reading(start(_NEEDS), lambda connection: _export(connection, owner))


def _tenant(text: str | None) -> ids.TenantId | None:
    if text is None or text == ids.SYSTEM_TENANT:
        return None if text is None else ids.SYSTEM_TENANT
    return ids.owner_id(text)


async def _verify(
    operator: Operator, tenant: ids.TenantId | None, heads: Sequence[Head]
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    shows_progress = sys.stderr.isatty()
    verify_log = partial(
        log.verify,
        operator.connection,
        operator.unlocked.integrity,
        tenant=tenant,
        on_progress=_show_progress if shows_progress else None,
    )
    verified = await verify_log()
    await operator.unlocked.versions.refresh()  # the key may have been rotated meanwhile
    if any(each.broken is not None and each.broken.reason is Flaw.UNKNOWN_KEY for each in verified):
        verified = await verify_log()
    contradicted = await log.find_contradictions(operator.connection, operator.unlocked.integrity, heads)
    if shows_progress:
        typer.echo("\r\x1b[K", err=True, nl=False)
    return verified, contradicted


async def _integrity(operator: Operator) -> ChainKey:
    return operator.unlocked.integrity


def _verify_export(
    source: Path, key: ChainKey, tenant: ids.TenantId | None, heads: Sequence[Head]
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    lines = read_lines(str(source), MAX_LINE_BYTES, field="from_export")
    shows_progress = sys.stderr.isatty()
    found = verify_export(lines, key, heads, tenant=tenant, on_progress=_show_progress if shows_progress else None)
    if shows_progress:
        typer.echo("\r\x1b[K", err=True, nl=False)
    if tenant is None and not found[0]:
        raise Malformed("the file has no row: it is no export, or the export of an empty log", field="from_export")
    return found


async def _export(connection: Connection, tenant: ids.TenantId | None) -> None:
    async for row in log.export(connection, tenant=tenant):
        emit(row, as_json=True, text="")


def _require_rows(verified: list[Verified], tenant: ids.TenantId | None, heads: Sequence[Head]) -> None:
    # A mistyped tenant, or a log that was removed, must not be reported as intact.
    nothing = all(each.broken is None and each.head_sequence is None for each in verified)
    if tenant is not None and nothing and not heads:
        raise _no_rows()


def _no_rows() -> NotFound:
    return NotFound(
        "the audit log has no rows of this tenant: correct --tenant, or find out who removed its log", field="tenant"
    )


def _verify_text(verified: list[Verified], contradicted: list[tuple[Head, Contradiction]]) -> str:
    lines = [_verified_text(each) for each in verified]
    lines += [
        f"{printable(head.tenant_id)}: STALE: {_CONTRADICTS[how]} (row {head.sequence}, MAC {head.mac.hex()})"
        for head, how in contradicted
    ]
    return "\n".join(lines) or "no audit rows"


def _show_progress(tenant: str, rows: int) -> None:
    typer.echo(f"\r\x1b[K{printable(tenant)}: {rows} rows", err=True, nl=False)


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    if not items:
        return "no audit rows"
    shown = table(items, ["at", "tenant_id", "sequence", "actor", "action", "subject"])
    return shown if following is None else f"{shown}\nmore: --cursor {following}"


def _head_shape(head: Head) -> dict[str, Any]:
    return {"tenant_id": head.tenant_id, "head_sequence": head.sequence, "head_mac": head.mac.hex()}


def _head_text(head: Head) -> str:
    return f"{printable(head.tenant_id)}: row {head.sequence}, MAC {head.mac.hex()}"


def _verified_shape(verified: Verified) -> dict[str, Any]:
    broken = verified.broken
    return {
        "tenant_id": verified.tenant_id,
        "rows": verified.rows,
        "head_sequence": verified.head_sequence,
        "head_mac": verified.head_mac,
        "broken": None if broken is None else {"sequence": broken.sequence, "reason": broken.reason.value},
    }


def _verified_text(verified: Verified) -> str:
    tenant, broken = printable(verified.tenant_id), verified.broken
    if broken is not None:
        return f"{tenant}: BROKEN at row {broken.sequence}: {_MEANING[broken.reason]}"
    if verified.head_sequence is None:
        return f"{tenant}: no audit rows"
    return f"{tenant}: intact up to row {verified.head_sequence}, MAC {verified.head_mac}"
