"""`hookseal key rewrap`: re-wrap the records of an older master key under the active one, while everything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from hookseal.cli.key.moves import KeyId, key_id_of
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.progress import Report, progress
from hookseal.cli.shared.runtime import start
from hookseal.operations.key.keys import altered, finish_rewrap, records_of, rewrap_batch
from hookseal.operations.operator import Operator
from hookseal.secrets.key.rewrap import BEGINNING, Cursor, Unopened


@dataclass(slots=True, kw_only=True)
class _Done:
    """The number of re-wrapped records and their new key; the records that did not open; those that are left."""

    moved: int = 0
    to: str | None = None
    unopened: list[Unopened] = field(default_factory=list)
    left: int = 0


def rewrap(key_id: KeyId, *, as_json: Json = False) -> None:
    """Re-wrap all records of this master key under the active one, in batches, while workers run.

    No secret is decrypted. You may run it again, or twice at the same time: it continues with the records that are
    left. Exit 1 if a record is left. It names each record that the key does not open, and leaves it unchanged.

    Example: hookseal key rewrap 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    done = operate(start(NEEDS), lambda operator: _rewrap(operator, wanted))
    emit(
        {
            "key_id": key_id,
            "to": done.to,
            "moved": done.moved,
            "left": done.left,
            "failed": [
                {"tenant_id": one.tenant_id, "name": one.name, "version": one.version, "code": one.code}
                for one in done.unopened
            ],
        },
        as_json=as_json,
        text=_text(key_id, done),
    )
    raise typer.Exit(1 if done.left else 0)


async def _rewrap(operator: Operator, key_id: str) -> _Done:
    done = _Done()
    with progress("records re-wrapped", await records_of(operator, key_id)) as report:
        for wait in (False, True):  # the second pass waits for records that were locked in the first
            await _pass(operator, key_id, done, report, wait=wait)
        done.left = (await finish_rewrap(operator, key_id)).records
        if done.left > len(done.unopened):
            _report_unopened(done, await altered(operator, key_id), report)
    return done


async def _pass(operator: Operator, key_id: str, done: _Done, report: Report, *, wait: bool) -> None:
    after: Cursor | None = BEGINNING
    while after is not None:
        batch = await rewrap_batch(operator, key_id, after, wait=wait)
        if batch is None:
            return
        done.moved += batch.moved
        done.to = batch.to
        report(batch.moved)
        if wait:
            _report_unopened(done, batch.unopened, report)
        after = batch.last


def _report_unopened(done: _Done, unopened: Sequence[Unopened], report: Report) -> None:
    for one in unopened:
        done.unopened.append(one)
        report(
            0,
            f"{one.tenant_id}/{one.name}, version {one.version}: it does not open with the key in its row ({one.code})",
        )


def _text(key_id: str, done: _Done) -> str:
    sealed = f"records re-wrapped: {done.moved}"
    if done.left and done.to is None and not done.unopened:
        return (
            f"{sealed}; {done.left} under {key_id} appeared after a re-wrap had left none, so they are stale: "
            "run `hookseal restore check` (runbook, HooksealStaleRow)"
        )
    if done.left:
        return f"{sealed}; left under {key_id}: {done.left} (runbook, HooksealSecretRefused)"
    return f"{sealed}; none is under {key_id} any more: hookseal key retire {key_id}"
