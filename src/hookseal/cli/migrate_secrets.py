"""`hookseal migrate-secrets`: seal plaintext secrets of an older system, then forbid plaintext."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Final

import typer
import uvloop

from hookseal.cli.context import CHANGES
from hookseal.cli.shared.operating import operate
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.parallel import Tally, side_by_side
from hookseal.cli.shared.runtime import start
from hookseal.config.settings import Settings
from hookseal.errors import Refused
from hookseal.ground.ids import plural
from hookseal.ground.wire import Scheme
from hookseal.operations.migrate_secrets import (
    EMPTIED_AT_ONCE,
    Migration,
    empty_batch,
    forbid_plaintext,
    migrate_endpoint,
    preview,
)
from hookseal.operations.operator import Operator
from hookseal.postgres.schema import plaintext
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.secrets import migrate_secrets as migration
from hookseal.secrets.migrate_secrets import PlaintextEndpoint

_FIRST: Final = "run `hookseal migrate-secrets` first, which names the endpoints that it cannot migrate"
_STILL_THERE: Final = """\
The old values are still in dead rows, in the write-ahead log, on replicas and in backups, and anyone who read
them still has them. Only a rotation makes them useless. `hookseal audit list --action secret.migrated` lists the
migrated endpoints; for each of them run
  hookseal endpoint rotate --tenant T --endpoint ID --secret-out FILE"""


_FORETOLD: Final[dict[str, str]] = {
    Migration.MIGRATED: "would be migrated",
    Migration.PRESENT: "sealed before",
    Migration.GONE: "gone meanwhile",
}
_EITHER: Final = (
    "with the scheme x-webhook and a secret that could be one of Standard Webhooks (whsec_...). The key is its"
)
_SO_FAR: Final = """\
whole text, which is right if the receiver verifies x-webhook. If it verifies Standard Webhooks, run
  hookseal migrate-secrets --scheme standard"""
_FROM_NOW_ON: Final = """\
whole text, which is right if the receiver verifies x-webhook. If it verifies Standard Webhooks, keep the secret:
  hookseal secret reveal --tenant T --endpoint ID --secret-out F
  hookseal endpoint rotate --tenant T --endpoint ID --scheme standard --secret-file F --overlap 0
and give --scheme standard for the endpoints that are left to migrate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """The options of the command."""

    scheme: Scheme
    dry_run: bool
    finalize: bool

    @property
    def only_looks(self) -> bool:
        """Whether every endpoint is examined, and none is migrated."""
        return self.dry_run or self.finalize


@dataclass(slots=True, kw_only=True)
class _Outcome:
    """The result; `tally` is None if the column is gone.

    `also_standard` counts endpoints that sign in x-webhook with a secret that would be valid for `standard`, too.
    """

    column: PlaintextColumn
    also_standard: int = 0
    tally: Tally | None = None
    emptied: int = 0
    is_final: bool = False  # by this run


def migrate_secrets(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print for each endpoint what would be done.")
    ] = False,
    finalize: Annotated[
        bool, typer.Option("--finalize", help="Empty the column, and let PostgreSQL refuse plaintext from then on.")
    ] = False,
    scheme: Annotated[
        Scheme,
        typer.Option(
            help="How the receivers verify: x-webhook, where the whole text is the key, or standard, where each secret "
            "must be whsec_ and the base64 of 24 to 64 bytes."
        ),
    ] = migration.SCHEME,
    as_json: Json = False,
) -> None:
    """Seal the plaintext secrets of an older system, byte for byte, each endpoint in one transaction.

    A migrated endpoint signs in the given scheme. The plaintext stays in its column until you run the command with
    --finalize, which requires that every secret is sealed. You may run it again: it continues where it stopped. Exit 1
    if an endpoint could not be migrated: each is reported, and does not stop the others.

    Example: hookseal migrate-secrets --dry-run
    """
    how = _How(scheme=scheme, dry_run=dry_run, finalize=finalize)
    settings = start(CHANGES)
    outcome = operate(settings, lambda operator: _migrate(settings, operator, how), loop_factory=uvloop.new_event_loop)
    emit(_shape(outcome, how), as_json=as_json, text=lambda: _text(outcome, how))
    raise typer.Exit(1 if outcome.tally is not None and outcome.tally.failures else 0)


async def _migrate(settings: Settings, operator: Operator, how: _How) -> _Outcome:
    outcome = _Outcome(column=await _column(operator))
    if outcome.column is PlaintextColumn.GONE:
        return outcome
    await migration.require_readable(operator.connection)
    if how.finalize and (left := await migration.count_unmigrated(operator.connection)):
        have = plural(left, "endpoint has", "endpoints have")
        raise Refused(f"{have} a plaintext secret that is not sealed: {_FIRST}")
    total = await migration.count_plaintext(operator.connection)
    outcome.tally = Tally("endpoints", total=total, labels=_FORETOLD if how.dry_run else None)
    await _pass(settings, operator, outcome, tally=outcome.tally, how=how)
    if how.finalize and not how.dry_run and not outcome.tally.failures:
        await _finalize(settings, operator, outcome)
    outcome.column = await _column(operator)
    return outcome


async def _pass(settings: Settings, operator: Operator, outcome: _Outcome, *, tally: Tally, how: _How) -> None:
    """Go once through all endpoints that have plaintext, to migrate or to examine each."""

    async def migrated(operator: Operator, endpoint: PlaintextEndpoint) -> str:
        done = await (preview if how.only_looks else migrate_endpoint)(operator, endpoint, how.scheme)
        if how.finalize and done.what is Migration.MIGRATED:  # it was added after they were counted
            raise Refused(f"it is not migrated: {_FIRST}")
        outcome.also_standard += done.fits_standard
        return done.what

    async def one(operator: Operator, endpoint: PlaintextEndpoint) -> None:
        place = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.endpoint_id}
        what = await tally.attempt(operator, place, migrated(operator, endpoint))
        if how.dry_run and what is not None:
            note(f"{endpoint.tenant_id} {endpoint.endpoint_id}: {_FORETOLD[what]}")

    await side_by_side(settings, operator, migration.iterate(operator.connection), one)
    tally.end()


async def _finalize(settings: Settings, operator: Operator, outcome: _Outcome) -> None:
    async def one(operator: Operator, batch: tuple[PlaintextEndpoint, ...]) -> None:
        emptied = await empty_batch(operator, batch)
        outcome.emptied += emptied  # after the await, because other tasks add to it, too

    await side_by_side(settings, operator, _batches(operator), one)
    outcome.is_final = await forbid_plaintext(operator, emptied=outcome.emptied)


async def _batches(operator: Operator) -> AsyncGenerator[tuple[PlaintextEndpoint, ...], None]:
    batch: list[PlaintextEndpoint] = []
    async for endpoint in migration.iterate(operator.connection):
        batch.append(endpoint)
        if len(batch) == EMPTIED_AT_ONCE:
            yield tuple(batch)
            batch.clear()
    if batch:
        yield tuple(batch)


async def _column(operator: Operator) -> PlaintextColumn:
    found = await plaintext.state(operator.connection)
    return PlaintextColumn.GONE if found is None else found  # never None: the schema was compared


def _shape(outcome: _Outcome, how: _How) -> dict[str, object]:
    tally = outcome.tally or Tally("endpoints")
    return {
        "dry_run": how.dry_run,
        "finalize": how.finalize,
        "scheme": how.scheme,
        "column": outcome.column,
        "migrated": tally.counts[Migration.MIGRATED],
        "present": tally.counts[Migration.PRESENT],
        "also_standard": outcome.also_standard,
        "emptied": outcome.emptied,
        "failures": tally.failures,
        "failed": tally.failed,
    }


def _text(outcome: _Outcome, how: _How) -> str:
    if outcome.tally is None:
        return "the column of plaintext secrets is gone: nothing to do"
    counts = outcome.tally.counts
    lines = [
        f"{'would be ' * how.dry_run}migrated  {counts[Migration.MIGRATED]}",
        f"sealed before  {counts[Migration.PRESENT]}",
        f"failed  {outcome.tally.failures}",
    ]
    if outcome.also_standard:
        is_open = how.dry_run and counts[Migration.MIGRATED]
        lines.append(f"{outcome.also_standard} of them {_EITHER}\n{_SO_FAR if is_open else _FROM_NOW_ON}")
    if outcome.is_final:
        lines += [
            f"emptied  {outcome.emptied}",
            "plaintext is forbidden from now on; `hookseal db upgrade` removes the column",
        ]
    elif outcome.column is PlaintextColumn.FORBIDDEN:
        lines.append("plaintext is forbidden; `hookseal db upgrade` removes the column")
    if counts[Migration.MIGRATED] and not how.dry_run and not outcome.tally.failures:
        lines.append("the plaintext is still in its column: hookseal migrate-secrets --finalize")
    return "\n".join([*lines, _STILL_THERE] if outcome.is_final else lines)
