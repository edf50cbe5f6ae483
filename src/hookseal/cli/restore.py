"""`hookseal restore`: what was put back to an older state, and taking it for lawful."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hookseal.audit.heads import MAX_HEADS, Contradiction, Head, kept_heads
from hookseal.cli.input_files import read_input
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, printable, table
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.ground import ids
from hookseal.ground.counted import counted
from hookseal.ground.errors import Malformed
from hookseal.operations.restore import Accepted, accept_endpoint, accept_restore
from hookseal.secrets import put_back
from hookseal.secrets.put_back import PutBack, PutBackKind

app: Final = typer.Typer(
    help="Find rows that were put back to an older state, and accept a restore.", no_args_is_help=True
)

_BYTES_A_HEAD: Final = 512
_COLUMNS: Final = ("tenant_id", "endpoint_id", "kind", "generation", "audited_generation")
_REASON: Final = "reason"
_AGREES: Final = (
    "rows and audit log agree; of a database that was put back as a whole only a head that was kept elsewhere tells: "
    "hookseal audit verify --head FILE"
)

_NEXT: Final = {
    False: "if that was a restore of your own: hookseal restore accept --head FILE, which sends what waits; else find "
    "out who did it (docs/runbook.md, HooksealRolledBack)",
    True: "what is altered cannot be accepted: put back what it was (docs/runbook.md, HooksealSecretRefused)",
}


@app.command()
def check(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: Json = False,
) -> None:
    """List endpoints that are not as the audit log and their MACs say; exit 1 if there is one. Their deliveries wait.

    `endpoint`: the row was put back to an older state. `record`: one of its secrets was. `lost`: the row is gone, and
    nobody deleted it through hookseal. `altered`: the row is not as hookseal wrote it. A database that was put back as
    a whole agrees with itself: compare it with a head that was kept elsewhere (`hookseal audit verify --head`).

    Example: hookseal restore check --json
    """
    owner = None if tenant is None else ids.tenant_id(tenant)
    items = [_shape(found) for found in run(_found(start(NEEDS), owner))]
    emit(
        {"items": items, "next_cursor": None},
        as_json=as_json,
        text=lambda: _checked_text(items) if items else _AGREES,
    )
    raise typer.Exit(1 if items else 0)


@app.command()
def accept(
    *,
    head: Annotated[Path, typer.Option(help="What `hookseal audit heads --json` printed before; - is stdin.")],
    tenant: Annotated[str | None, typer.Option(help="With --endpoint: whose endpoint it is.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Accept this one only.")] = None,
    as_json: Json = False,
) -> None:
    """Take the installation as it stands for lawful, after a restore: what waits because of it goes out.

    Every endpoint that `restore check` lists becomes the newest state there is, but for what is `altered`; one that
    is `lost` counts as deleted, and its pending deliveries are cancelled. What such a row names signs again, a secret
    that was revoked since, too: where that must not be, disable the endpoint first and rotate it with --overlap 0
    afterwards. Workers forget what they saw before. All of it is audited, with what the log lacks of the heads in the
    file. Exit 1 if an endpoint cannot be accepted. It may be run again. With --endpoint the others, and the heads, stay
    as they are.

    Example: hookseal restore accept --head heads.json
    """
    settings = start(NEEDS)
    if (tenant is None) != (endpoint is None):
        raise Malformed("--tenant and --endpoint go together: they name the one endpoint to accept", field="endpoint")
    heads = read_heads(head)
    one = None if tenant is None or endpoint is None else (ids.tenant_id(tenant), ids.endpoint_id(endpoint))
    accepted = run(_accept(settings, heads, one))
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
    """Return a head that the log does not hold, as it is printed."""
    return {"tenant_id": head.tenant_id, "head_sequence": head.sequence, "head_mac": head.mac.hex(), "is": how.value}


def read_heads(source: Path) -> tuple[Head, ...]:
    """Return the heads in a file, or on standard input for `-`. Raises `Malformed`."""
    return kept_heads(_text(source))


async def _found(settings: Settings, tenant: ids.TenantId | None) -> list[PutBack]:
    async with operating(settings) as operator:
        found = [one async for one in put_back.found(operator.connection, tenant)]
        known = {one.endpoint_id for one in found}
        others = put_back.altered(operator.connection, operator.unlocked.integrity, tenant)
        return found + [one async for one in others if one.endpoint_id not in known]


async def _accept(
    settings: Settings, heads: Sequence[Head], one: tuple[ids.TenantId, ids.EndpointId] | None
) -> Accepted:
    async with operating(settings) as operator:
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


def _shape(found: PutBack) -> dict[str, Any]:
    return {column: getattr(found, column) for column in _COLUMNS}


def _checked_text(items: Sequence[dict[str, Any]]) -> str:
    is_altered = {item["kind"] == PutBackKind.ALTERED for item in items}
    return "\n".join([table(items, _COLUMNS), *(text for kind, text in _NEXT.items() if kind in is_altered)])


def _accepted_text(accepted: Accepted) -> str:
    count, woken = len(accepted.endpoints), accepted.woken
    epoch = "" if accepted.epoch is None else f"epoch {accepted.epoch}: "
    tried = "one of each endpoint is tried now, and once it was signed the others go out"
    accepted_now = f"{epoch}{counted(count, 'endpoint', 'endpoints')} accepted"
    lines = [f"{accepted_now}; deliveries that wait for a secret: {woken}; {tried}"]
    lines += [
        f"{printable(head.tenant_id)}: the log is {how.value}: it does not hold row {head.sequence} as it was"
        for head, how in accepted.contradicted
    ]
    lines += [
        f"endpoint {found.endpoint_id} of {found.tenant_id}: what its row names signs again, also if it was revoked "
        "since; where that must not be: hookseal endpoint rotate --overlap 0"
        for found in accepted.endpoints
        if found.kind is PutBackKind.ENDPOINT
    ]
    lines += [f"NOT accepted: endpoint {found.endpoint_id}: {reason}" for found, reason in accepted.refused]
    return "\n".join(lines)
