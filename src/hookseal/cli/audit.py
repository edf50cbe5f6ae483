"""`hookseal audit`: who changed what, and whether the log of it is whole."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hookseal.audit import log
from hookseal.audit.chain import Flaw
from hookseal.audit.entry import Action, ChainKey
from hookseal.audit.exported import MAX_LINE_BYTES, verify_export
from hookseal.audit.heads import Contradiction, Head
from hookseal.audit.log import Verified
from hookseal.cli import operating
from hookseal.cli.input_files import STANDARD_INPUT, read_lines
from hookseal.cli.output import Json, JsonLines, emit, printable, table
from hookseal.cli.restore import head_shape, read_heads
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.ground import ids
from hookseal.ground.errors import Malformed, NotFound

app: Final = typer.Typer(help="List, verify and export who changed what.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})
_MEANING: Final = {
    Flaw.MISSING: "the row is missing",
    Flaw.OUT_OF_PLACE: "the row does not belong into the chain",
    Flaw.UNKNOWN_KEY: "the row names an integrity key that is not known",
    Flaw.ALTERED: "the row was altered, or not written by hookseal",
    Flaw.UNCHAINED: "the row does not continue the row before it",
    Flaw.TRUNCATED: "this row and all after it are missing",
    Flaw.HEAD: "the last row is not the one that the head of the chain names",
}

_CONTRADICTS: Final = {
    Contradiction.OLDER: "the log ends before the head that was kept",
    Contradiction.FORKED: "the log has another row in the place of the head that was kept",
}

Tenant = Annotated[str | None, typer.Option(help="Only this tenant's; _system is the installation's own.")]


@app.command(name="list")
def list_(
    *,
    tenant: Tenant = None,
    action: Annotated[Action | None, typer.Option(help="Only what was done in this way.")] = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended (its next_cursor).")] = None,
    as_json: Json = False,
) -> None:
    """List what was changed and by whom, newest first.

    Example: hookseal audit list --tenant acme --action secret.rotated
    """
    owner = _tenant(tenant)
    items, following = run(_page(start(_NEEDS), owner, action, limit=limit, cursor=cursor))
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def verify(
    *,
    tenant: Tenant = None,
    head: Annotated[Path | None, typer.Option(help="What `audit heads --json` printed before; - is stdin.")] = None,
    from_export: Annotated[
        Path | None, typer.Option(help="Verify what `audit export` printed, not the table; - is stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that no row was altered, removed, inserted or moved; exit 1 if one was, naming the first.

    A log that was put back as a whole looks intact: keep what `audit heads --json` prints elsewhere, and compare with
    --head. A tenant of whom there are no rows at all is 3. With --from-export the table is not looked at, only the
    integrity key is read; an export has no heads, so what was cut off at its end only --head tells.

    Example: hookseal audit verify --head heads.json --json
    """
    owner = _tenant(tenant)
    if from_export is not None and str(head) == str(from_export) == STANDARD_INPUT:
        raise Malformed("only one of --head and --from-export can be standard input", field="from_export")
    kept = () if head is None else tuple(one for one in read_heads(head) if owner in {None, one.tenant_id})
    settings = start(operating.NEEDS)
    if from_export is None:
        verified, contradicted = run(_verify(settings, owner, kept))
    else:
        verified, contradicted = _verify_export(from_export, run(_integrity(settings)), owner, kept)
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
    """Print where each chain ends: the number and MAC of its last row. No row is read, and no key is needed.

    Keep it where who may write the tables may not, every minute if you like: a later log must still hold these rows.
    `audit verify --head` and `restore accept --head` compare. One that somebody wrote past hookseal is printed, and
    told, and contradicted there; the others are compared as ever. A tenant without a chain is 3.

    Example: hookseal audit heads --json > heads.json
    """
    owner = _tenant(tenant)
    found = run(_heads(start(_NEEDS), owner))
    if owner is not None and not found:
        raise _no_rows()
    for one in found:
        if not one.is_ours:
            told = (
                f"{printable(one.tenant_id)}: hookseal never wrote this head: find out who did, `hookseal audit verify`"
            )
            typer.echo(f"hookseal: {told}", err=True)
    emit(
        {"tenants": [_head_shape(one) for one in found]},
        as_json=as_json,
        text=lambda: "\n".join(_head_text(one) for one in found) or "no audit rows",
    )


@app.command()
def export(
    *,
    tenant: Tenant = None,
    as_json: JsonLines = False,  # noqa: ARG001 - every command has it, and this one prints nothing else
) -> None:
    """Print every row with its MACs, oldest first, one tenant after the other: one JSON object a line.

    `audit verify --from-export` verifies it without the table.

    Example: hookseal audit export --tenant acme > audit.jsonl
    """
    owner = _tenant(tenant)
    run(_export(start(_NEEDS), owner))


def _tenant(text: str | None) -> ids.TenantId | None:
    if text is None or text == ids.SYSTEM_TENANT:
        return None if text is None else ids.SYSTEM_TENANT
    return ids.tenant_id(text)


async def _page(
    settings: Settings, tenant: ids.TenantId | None, action: Action | None, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await log.page(connection, tenant=tenant, action=action, limit=limit, cursor=cursor)


async def _verify(
    settings: Settings, tenant: ids.TenantId | None, heads: Sequence[Head]
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    shows = sys.stderr.isatty()
    async with operating.operating(settings) as operator:
        look = partial(
            log.verify,
            operator.connection,
            operator.unlocked.integrity,
            tenant=tenant,
            on_progress=_show_progress if shows else None,
        )
        verified = await look()
        await operator.unlocked.versions.refresh()  # the key may have been rotated since we began
        if any(each.broken is not None and each.broken.reason is Flaw.UNKNOWN_KEY for each in verified):
            verified = await look()
        contradicted = await log.contradicted(operator.connection, operator.unlocked.integrity, heads)
    if shows:
        typer.echo("\r\x1b[K", err=True, nl=False)
    return verified, contradicted


async def _integrity(settings: Settings) -> ChainKey:
    async with operating.operating(settings) as operator:
        return operator.unlocked.integrity


def _verify_export(
    source: Path, key: ChainKey, tenant: ids.TenantId | None, heads: Sequence[Head]
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    lines = read_lines(str(source), MAX_LINE_BYTES, field="from_export")
    shows = sys.stderr.isatty()
    told = verify_export(lines, key, heads, tenant=tenant, on_progress=_show_progress if shows else None)
    if shows:
        typer.echo("\r\x1b[K", err=True, nl=False)
    if tenant is None and not told[0]:
        raise Malformed("the file holds no row: it is no export, or one of an empty log", field="from_export")
    return told


async def _heads(settings: Settings, tenant: ids.TenantId | None) -> list[Head]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await log.heads(connection, tenant=tenant)


async def _export(settings: Settings, tenant: ids.TenantId | None) -> None:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        async for row in log.export(connection, tenant=tenant):
            emit(row, as_json=True, text="")


def _require_rows(verified: list[Verified], tenant: ids.TenantId | None, heads: Sequence[Head]) -> None:
    # A typing error must not pass for a log that is whole; nor must a log that somebody removed.
    nothing = all(each.broken is None and each.head_sequence is None for each in verified)
    if tenant is not None and nothing and not heads:
        raise _no_rows()


def _no_rows() -> NotFound:
    return NotFound("the audit log has no rows of this tenant: correct --tenant, or find its log", field="tenant")


def _verify_text(verified: list[Verified], contradicted: list[tuple[Head, Contradiction]]) -> str:
    lines = [_verified_text(each) for each in verified]
    lines += [
        f"{printable(head.tenant_id)}: PUT BACK: {_CONTRADICTS[how]} (row {head.sequence}, MAC {head.mac.hex()})"
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
