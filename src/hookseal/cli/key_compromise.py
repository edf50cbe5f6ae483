"""`hookseal key compromise | versions`: the drill for a master key that leaked."""

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from hookseal.cli import rotation_options as options
from hookseal.cli.key_changes import KeyId, key_id_of
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, table
from hookseal.cli.progress import progress
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.ground.paging import require_limit
from hookseal.operations.compromise import How, Replaced, drill
from hookseal.secrets import compromise as exposure
from hookseal.secrets import key_moves
from hookseal.secrets.compromise import Exposed, Remedy

_COLUMNS: Final = ("tenant_id", "ref", "purpose", "state", "endpoint_id", "used_as")


@dataclass(slots=True, kw_only=True)
class _Drill:
    """What the key had sealed, what was replaced, and what is left for a person to do."""

    how: How
    versions: int = 0
    rotated: int = 0
    overlaps_ended: int = 0
    previous_still_signing: int = 0
    integrity_rotated: bool = False
    headers: list[dict[str, Any]] = field(default_factory=list)
    client_keys: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def take(self, replaced: Replaced) -> None:
        """Count what became of a version."""
        exposed, error = replaced.exposed, replaced.error
        of = {"tenant_id": exposed.tenant_id, "endpoint_id": exposed.endpoint_id, "ref": exposed.ref}
        self.versions += 1
        if error is not None:
            self.failed.append(of | {"code": error.code, "message": str(error)})
        elif exposed.remedy is Remedy.ROTATION:
            self.rotated += 1
        elif exposed.remedy is Remedy.END_OF_OVERLAP and self.how.ends_overlaps:
            self.overlaps_ended += 1
        elif exposed.remedy is Remedy.END_OF_OVERLAP:
            self.previous_still_signing += 1
        elif exposed.remedy is Remedy.NEW_INTEGRITY_KEY:
            self.integrity_rotated = True
        elif exposed.remedy is Remedy.NEW_HEADER_VALUES:
            self.headers.append(of)
        elif exposed.remedy is Remedy.NEW_CLIENT_KEY:
            self.client_keys.append(of)

    @property
    def is_left(self) -> bool:
        """Whether somebody has to do something still."""
        return bool(self.failed or self.headers or self.client_keys)


def versions(
    key_id: KeyId,
    *,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended (its next_cursor).")] = None,
    as_json: Json = False,
) -> None:
    """List every secret version that was ever sealed under that key, and how its endpoint uses it now.

    Example: hookseal key versions 0123456789abcdef --json
    """
    settings, wanted = start(NEEDS), key_id_of(key_id)
    require_limit(limit)
    after = exposure.BEGINNING if cursor is None else exposure.place_of(cursor)
    found = run(_page(settings, wanted, after, limit + 1))
    following = exposure.cursor_of(found[limit - 1]) if len(found) > limit else None
    items = [{column: getattr(each, column) for column in _COLUMNS} for each in found[:limit]]
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


def compromise(
    key_id: KeyId,
    *,
    overlap: options.Overlap = None,
    force: options.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would be.")] = False,
    as_json: Json = False,
) -> None:
    """Others may know this master key: rotate every secret that was ever sealed under it and signs, of all tenants.

    Promote another key first. Sealing records anew is not enough: who has the key and a copy of the table has the
    secrets. One that was replaced before, and signs until its overlap ends, is counted; with --overlap 0 it ends, too.
    Run again it goes on where it is; exit 1 if something is left, and it says what. `hookseal secret reveal` gives out
    the new secrets.

    Example: hookseal key compromise 0123456789abcdef --overlap 3600
    """
    settings, wanted = start(NEEDS), key_id_of(key_id)
    how = How(
        overlap_seconds=options.overlap_seconds(settings, overlap),
        force=force,
        dry_run=dry_run,
        random_bytes=os.urandom,
    )
    drilled = run(_drill(settings, wanted, how))
    emit(_shape(wanted, drilled), as_json=as_json, text=lambda: _text(wanted, drilled, dry_run=dry_run))
    raise typer.Exit(1 if drilled.is_left else 0)


async def _page(settings: Settings, key_id: str, after: exposure.Place, limit: int) -> list[Exposed]:
    async with operating(settings) as operator:
        await key_moves.life(operator.connection, key_id)
        return await exposure.page(operator.connection, key_id, after, limit)


async def _drill(settings: Settings, key_id: str, how: How) -> _Drill:
    drilled = _Drill(how=how)
    async with operating(settings) as operator:
        await key_moves.life(operator.connection, key_id)
        total = await exposure.count(operator.connection, key_id)
        with progress("versions looked at", total) as tell:

            def take(replaced: Replaced) -> None:
                drilled.take(replaced)
                refused = replaced.error
                tell(1, None if refused is None else f"{replaced.exposed.ref}: {refused}")

            await drill(operator, key_id, how, take)
    return drilled


def _shape(key_id: str, drilled: _Drill) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "dry_run": drilled.how.dry_run,
        "overlap_seconds": drilled.how.overlap_seconds,
        "versions": drilled.versions,
        "rotated": drilled.rotated,
        "overlaps_ended": drilled.overlaps_ended,
        "previous_still_signing": drilled.previous_still_signing,
        "integrity_rotated": drilled.integrity_rotated,
        "header_values": drilled.headers,
        "client_keys": drilled.client_keys,
        "failed": drilled.failed,
    }


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    if not items:
        return "no secret was ever sealed under this key"
    return table(items, _COLUMNS) + ("" if following is None else f"\nnext page: --cursor {following}")


def _text(key_id: str, drilled: _Drill, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    lines = [
        f"versions ever sealed under master key {key_id}: {drilled.versions}",
        f"secrets {would}rotated: {drilled.rotated}",
        *([f"overlaps {would}ended: {drilled.overlaps_ended}"] if drilled.overlaps_ended else []),
        *(["the integrity key " + (f"{would}rotated")] if drilled.integrity_rotated else []),
    ]
    if drilled.previous_still_signing:
        lines.append(
            "exposed secrets that were replaced before, and sign until their overlap ends: "
            f"{drilled.previous_still_signing} (--overlap 0 ends it now)"
        )
    if drilled.headers:
        lines.append(
            f"header values that their owners must replace: {len(drilled.headers)} (endpoint update --headers-file)"
        )
    if drilled.client_keys:
        lines.append(
            f"client keys that their owners must replace: {len(drilled.client_keys)} "
            "(endpoint update --client-cert --client-key)"
        )
    if drilled.failed:
        lines.append(f"failed: {len(drilled.failed)}; run this again once that is mended")
    return "\n".join(lines)
