"""`hookseal secret move`: take all secrets over to another provider, or back."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer
import uvloop

from hookseal.cli.context import CHANGES
from hookseal.cli.shared.operating import operate
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.parallel import Tally, side_by_side
from hookseal.cli.shared.runtime import start
from hookseal.config.settings import Settings
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.move_secrets import Movement, move_endpoint, move_own, require_movable
from hookseal.operations.operator import Operator
from hookseal.secrets import move as moving
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint import pointer

_DRY_RUN_LABELS: Final[dict[str, str]] = {
    Movement.MOVED: "to move",
    Movement.PRESENT: "there already",
    Movement.GONE: "gone meanwhile",
}
_LANES: Final = 4
_LEFT: Final = """\
The versions that were left behind are retired. To destroy them now, in place of after
SECRETS_RETIRED_RETENTION_DAYS: hookseal secret purge --older-than 0"""


@dataclass(slots=True, kw_only=True)
class _Outcome:
    """The counts of endpoints, and the refs of the installation's own secrets that were moved."""

    tally: Tally
    own: list[str] = field(default_factory=list)


def move(
    *,
    to: Annotated[str, typer.Option("--to", metavar="PROVIDER", help="db, aws, gcp or openbao.")],
    tenant: Annotated[str | None, typer.Option(help="Only endpoints of this tenant; the others follow later.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count the endpoints.")] = False,
    as_json: Json = False,
) -> None:
    """Move the secrets of all endpoints to another provider, each endpoint in one transaction, then hookseal's own.

    Deliveries continue meanwhile: each attempt is signed with the secrets that its endpoint names, and overlaps stay as
    they are. Every worker must read both providers first. You may run it again: it continues where it stopped. Exit 1
    if an endpoint could not be moved: each is reported, and does not stop the others.

    Example: hookseal secret move --to openbao
    """
    provider, owner = _provider(to), None if tenant is None else ids.tenant_id(tenant)
    settings = start(CHANGES)
    outcome = operate(
        settings,
        lambda operator: _move(settings, operator, provider, owner, is_dry=dry_run),
        loop_factory=uvloop.new_event_loop,
    )
    tally = outcome.tally
    emit(
        {
            "to": provider.value,
            "dry_run": dry_run,
            **{movement.value: tally.counts[movement] for movement in Movement},
            "own": outcome.own,
            "failures": tally.failures,
            "failed": tally.failed,
        },
        as_json=as_json,
        text=lambda: _text(outcome, is_dry=dry_run),
    )
    raise typer.Exit(1 if tally.failures else 0)


def _provider(text: str) -> Provider:
    if text not in frozenset(Provider) - {Provider.DEV}:
        raise Malformed("the provider must be db, aws, gcp or openbao", field="to")
    return Provider(text)


async def _move(
    settings: Settings, operator: Operator, to: Provider, tenant: TenantId | None, *, is_dry: bool
) -> _Outcome:
    await require_movable(operator, to)
    outcome = _Outcome(tally=Tally("endpoints", labels=_DRY_RUN_LABELS if is_dry else None))

    async def one(operator: Operator, found: Pointer) -> None:
        place = {"tenant_id": found.tenant_id, "endpoint_id": found.endpoint_id}
        work = _preview(found, to) if is_dry else move_endpoint(operator, found.tenant_id, found.endpoint_id, to)
        await outcome.tally.attempt(operator, place, work)

    await side_by_side(settings, operator, _pointers(operator, tenant), one, lanes=_LANES)
    outcome.tally.end()
    if not is_dry and tenant is None and not outcome.tally.failures:
        outcome.own = await move_own(operator, to)
    return outcome


async def _pointers(operator: Operator, tenant: TenantId | None) -> AsyncGenerator[Pointer, None]:
    async for found in pointer.iterate(operator.connection, tenant):
        yield found


async def _preview(found: Pointer, to: Provider) -> str:
    return Movement.PRESENT if found.mac is None or moving.is_at(found, to) else Movement.MOVED


def _text(outcome: _Outcome, *, is_dry: bool) -> str:
    counts = outcome.tally.counts
    lines = [
        f"{'to move' if is_dry else 'moved'}  {counts[Movement.MOVED]}",
        f"there already  {counts[Movement.PRESENT]}",
        f"failed  {outcome.tally.failures}",
    ]
    if outcome.own:
        lines.append(f"the installation's own: {', '.join(outcome.own)}")
    if counts[Movement.MOVED] and not is_dry:
        lines.append(_LEFT)
    return "\n".join(lines)
