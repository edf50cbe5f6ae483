"""`hookseal key rewrap`: the records of an older master key, sealed under the active one, while everything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from hookseal.cli.key_changes import KeyId, key_id_of
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit
from hookseal.cli.progress import Tell, progress
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.operations.operator import Operator
from hookseal.operations.rewrap import finish_rewrap, misnamed, records_of, rewrap_batch
from hookseal.secrets.rewrap import BEGINNING, Place, Unopened


@dataclass(slots=True, kw_only=True)
class _Done:
    """What was sealed anew, under which key; what its key did not open; and how many records still need the old key."""

    moved: int = 0
    to: str | None = None
    unopened: list[Unopened] = field(default_factory=list)
    left: int = 0


def rewrap(key_id: KeyId, *, as_json: Json = False) -> None:
    """Seal under the active master key what is under that one, in batches; no secret is opened, nothing has to stop.

    Run again, or beside itself, it goes on where it is. Exit 1 if a record was left: one that its key does not open is
    named, and nothing was changed of it.

    Example: hookseal key rewrap 0123456789abcdef
    """
    done = run(_rewrap(start(NEEDS), key_id_of(key_id)))
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


async def _rewrap(settings: Settings, key_id: str) -> _Done:
    async with operating(settings) as operator:
        done = _Done()
        with progress("records sealed anew", await records_of(operator, key_id)) as tell:
            for wait in (False, True):  # what others held the first time is waited for the second time
                await _pass(operator, key_id, done, tell, wait=wait)
            done.left = (await finish_rewrap(operator, key_id)).records
            if done.left > len(done.unopened):
                _name(done, await misnamed(operator, key_id), tell)
        return done


async def _pass(operator: Operator, key_id: str, done: _Done, tell: Tell, *, wait: bool) -> None:
    after: Place | None = BEGINNING
    while after is not None:
        batch = await rewrap_batch(operator, key_id, after, wait=wait)
        if batch is None:
            return
        done.moved += batch.moved
        done.to = batch.to
        tell(batch.moved)
        if wait:
            _name(done, batch.unopened, tell)
        after = batch.last


def _name(done: _Done, unopened: Sequence[Unopened], tell: Tell) -> None:
    for one in unopened:
        done.unopened.append(one)
        tell(0, f"{one.tenant_id}/{one.name}, version {one.version}: it is not as its row says ({one.code})")


def _text(key_id: str, done: _Done) -> str:
    sealed = f"records sealed anew: {done.moved}"
    if done.left and done.to is None and not done.unopened:
        return (
            f"{sealed}; {done.left} under {key_id} came back after none was left, so they were put back: "
            "hookseal restore check (runbook, HooksealRolledBack)"
        )
    if done.left:
        return f"{sealed}; left under {key_id}: {done.left} (runbook, HooksealSecretRefused)"
    return f"{sealed}; none is under {key_id} any more: hookseal key retire {key_id}"
