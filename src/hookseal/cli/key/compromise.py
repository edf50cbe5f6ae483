"""`hookseal key compromise | versions`: replace the secrets that a leaked master key sealed, and list them."""

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from hookseal.cli.endpoint import rotation as options
from hookseal.cli.key.moves import KeyId, key_id_of
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, table
from hookseal.cli.shared.progress import progress
from hookseal.cli.shared.runtime import start
from hookseal.errors import with_advice
from hookseal.ground.ids import require_limit
from hookseal.operations.key.keys import CompromiseOptions, Replaced, drill
from hookseal.operations.operator import Operator
from hookseal.secrets.core.overlap import require_overlap
from hookseal.secrets.key import compromise as exposure
from hookseal.secrets.key import keys
from hookseal.secrets.key.compromise import Exposed, Remedy

_COLUMNS: Final = ("tenant_id", "ref", "purpose", "state", "endpoint_id", "used_as")


@dataclass(slots=True, kw_only=True)
class _Done:
    """The versions that the key sealed, those that were replaced, and those that a person must replace."""

    how: CompromiseOptions
    versions: int = 0
    rotated: int = 0
    overlaps_ended: int = 0
    previous_still_signing: int = 0
    integrity_rotated: bool = False
    headers: list[dict[str, Any]] = field(default_factory=list)
    client_keys: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def take(self, replaced: Replaced) -> None:
        """Count the outcome for one version."""
        exposed, error = replaced.exposed, replaced.error
        place = {"tenant_id": exposed.tenant_id, "endpoint_id": exposed.endpoint_id, "ref": exposed.ref}
        self.versions += 1
        if error is not None:
            self.failed.append(place | {"code": error.code, "message": with_advice(error)})
        elif exposed.remedy is Remedy.ROTATION:
            self.rotated += 1
        elif exposed.remedy is Remedy.END_OF_OVERLAP and self.how.ends_overlaps:
            self.overlaps_ended += 1
        elif exposed.remedy is Remedy.END_OF_OVERLAP:
            self.previous_still_signing += 1
        elif exposed.remedy is Remedy.NEW_INTEGRITY_KEY:
            self.integrity_rotated = True
        elif exposed.remedy is Remedy.NEW_HEADER_VALUES:
            self.headers.append(place)
        elif exposed.remedy is Remedy.NEW_CLIENT_KEY:
            self.client_keys.append(place)

    @property
    def has_work_left(self) -> bool:
        """Whether a person has something left to do."""
        return bool(self.failed or self.headers or self.client_keys)


def versions(
    key_id: KeyId,
    *,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List every secret version that was ever sealed under this master key, and how its endpoint uses it now.

    Example: hookseal key versions 0123456789abcdef --json
    """
    settings, wanted = start(NEEDS), key_id_of(key_id)
    require_limit(limit)
    after = exposure.BEGINNING if cursor is None else exposure.place_of(cursor)
    found = operate(settings, lambda operator: _page(operator, wanted, after, limit + 1))
    following = exposure.cursor_of(found[limit - 1]) if len(found) > limit else None
    items = [{column: getattr(each, column) for column in _COLUMNS} for each in found[:limit]]
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


def compromise(
    key_id: KeyId,
    *,
    overlap: options.Overlap = None,
    force: options.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count what would be changed.")] = False,
    as_json: Json = False,
) -> None:
    """After a master key leaked, rotate every signing secret that was ever sealed under it, of all tenants.

    Promote another key first. To re-wrap the records is not enough: with the key and a copy of the table, an attacker
    has the secrets. A previous secret still signs until its overlap ends; --overlap 0 ends it now. You may run the
    command again: it continues where it stopped. Exit 1 if something is left to do, which it prints. `hookseal secret
    reveal` prints the new secrets.

    Example: hookseal key compromise 0123456789abcdef --overlap 3600
    """
    settings, wanted = start(NEEDS), key_id_of(key_id)
    how = CompromiseOptions(
        overlap_seconds=settings.secrets.rotation_overlap_seconds if overlap is None else require_overlap(overlap),
        force=force,
        dry_run=dry_run,
        random_bytes=os.urandom,
    )
    done = operate(settings, lambda operator: _replace_all(operator, wanted, how))
    emit(_shape(wanted, done), as_json=as_json, text=lambda: _text(wanted, done, dry_run=dry_run))
    raise typer.Exit(1 if done.has_work_left else 0)


async def _page(operator: Operator, key_id: str, after: exposure.Cursor, limit: int) -> list[Exposed]:
    await keys.life(operator.connection, key_id)
    return await exposure.page(operator.connection, key_id, after, limit)


async def _replace_all(operator: Operator, key_id: str, how: CompromiseOptions) -> _Done:
    done = _Done(how=how)
    await keys.life(operator.connection, key_id)
    total = await exposure.count(operator.connection, key_id)
    with progress("versions examined", total) as report:

        def take(replaced: Replaced) -> None:
            done.take(replaced)
            refused = replaced.error
            report(1, None if refused is None else f"{replaced.exposed.ref}: {with_advice(refused)}")

        await drill(operator, key_id, how, take)
    return done


def _shape(key_id: str, done: _Done) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "dry_run": done.how.dry_run,
        "overlap_seconds": done.how.overlap_seconds,
        "versions": done.versions,
        "rotated": done.rotated,
        "overlaps_ended": done.overlaps_ended,
        "previous_still_signing": done.previous_still_signing,
        "integrity_rotated": done.integrity_rotated,
        "header_values": done.headers,
        "client_keys": done.client_keys,
        "failed": done.failed,
    }


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    if not items:
        return "no secret was ever sealed under this key"
    return table(items, _COLUMNS) + ("" if following is None else f"\nnext page: --cursor {following}")


def _text(key_id: str, done: _Done, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    lines = [
        f"versions ever sealed under master key {key_id}: {done.versions}",
        f"secrets {would}rotated: {done.rotated}",
        *([f"overlaps {would}ended: {done.overlaps_ended}"] if done.overlaps_ended else []),
        *(["the integrity key " + (f"{would}rotated")] if done.integrity_rotated else []),
    ]
    if done.previous_still_signing:
        lines.append(
            "previous secrets that sign until their overlap ends: "
            f"{done.previous_still_signing} (--overlap 0 ends it now)"
        )
    if done.headers:
        lines.append(
            f"header values that their owners must replace: {len(done.headers)} (endpoint update --headers-file)"
        )
    if done.client_keys:
        lines.append(
            f"client keys that their owners must replace: {len(done.client_keys)} "
            "(endpoint update --client-cert --client-key)"
        )
    if done.failed:
        lines.append(f"failed: {len(done.failed)}; correct the cause and run the command again")
    return "\n".join(lines)
