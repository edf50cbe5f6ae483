"""`hookseal key stage | promote | retire | destroy`: the steps in which one master key takes the place of another."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import typer

from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, rfc3339
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.keys import NEXT_KEY
from hookseal.config.settings import Settings
from hookseal.ground.errors import Malformed, Refused
from hookseal.operations.keys import MovedKey, destroy_key, promote_key, retire_key, stage_key
from hookseal.operations.operator import Operator
from hookseal.secrets.key_moves import KeyLife
from hookseal.secrets.key_rules import KeyState
from hookseal.secrets.keys import registered

_DIGITS: Final = frozenset("0123456789abcdef")
_LENGTH: Final = 16

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Its id, as `hookseal key status` shows it.")]


def key_id_of(text: str) -> str:
    """Return the id if it is one. Raises `Malformed`."""
    if len(text) != _LENGTH or not set(text) <= _DIGITS:
        raise Malformed("a master-key id has 16 lowercase hex digits: see `hookseal key status`", field="key_id")
    return text


def stage(*, as_json: Json = False) -> None:
    """Register SECRETS_MASTER_KEY_NEXT, which seals nothing yet. Then start every worker again with it, and promote it.

    Example: SECRETS_MASTER_KEY_NEXT_FILE=next.key hookseal key stage
    """
    moved = run(_stage(start(NEEDS)))
    key_id = moved.life.key_id
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {key_id} is staged: start every worker again with {NEXT_KEY}, then run\n"
        f"  hookseal key promote {key_id}",
    )


def promote(key_id: KeyId, *, as_json: Json = False) -> None:
    """Have that key seal from now on, in every process; what sealed until now opens only.

    Refused (4) while a live worker does not hold it. Promote the older key again to go back.

    Example: hookseal key promote 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved, older = run(_promote(start(NEEDS), wanted))
    _emit(
        moved,
        as_json=as_json,
        text=_promoted(moved, older),
    )


def retire(key_id: KeyId, *, as_json: Json = False) -> None:
    """Have that key open nothing any more. Refused (4) while a record needs it: `key rewrap` first.

    Example: hookseal key retire 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved = run(_move(start(NEEDS), lambda operator: retire_key(operator, wanted)))
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.life.key_id} is retired: it opens nothing any more\n{_backups(moved.life)}",
    )


def destroy(key_id: KeyId, *, as_json: Json = False) -> None:
    """Mark that key as destroyed, once its material is: a process that still holds it refuses to start from then on.

    Refused (4) unless it is retired, and while these settings or a live worker hold it.

    Example: hookseal key destroy 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved = run(_move(start(NEEDS), lambda operator: destroy_key(operator, wanted)))
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.life.key_id} is destroyed: who holds it is refused at start\n{_backups(moved.life)}",
    )


async def _stage(settings: Settings) -> MovedKey:
    key = settings.secrets.next_key
    if key is None:
        raise Refused(f"{NEXT_KEY} is not set: give it the key that shall seal next", field=NEXT_KEY)
    async with connect(settings.database) as connection:
        await require_schema(connection)
        is_known = key.key_id in {row.key_id for row in await registered(connection)}
    # One that is not registered yet fits no table: only here may it be held all the same.
    async with operating(settings, None if is_known else settings.secrets.settled_keyring) as operator:
        return await stage_key(operator, key)


async def _promote(settings: Settings, key_id: str) -> tuple[MovedKey, list[str]]:
    """Return the move, and which keys step back: those whose records are to be sealed anew."""
    async with operating(settings) as operator:
        moved = await promote_key(operator, key_id)
        rows = await registered(operator.connection)
    return moved, [row.key_id for row in rows if row.state is KeyState.DECRYPT_ONLY]


async def _move(settings: Settings, move: Callable[[Operator], Awaitable[MovedKey]]) -> MovedKey:
    async with operating(settings) as operator:
        return await move(operator)


def _promoted(moved: MovedKey, older: list[str]) -> str:
    key_id = moved.life.key_id
    done = f"master key {key_id} is active. Now"
    if moved.was is KeyState.ACTIVE:
        done = f"master key {key_id} was active already: nothing was changed. "
        if not older:
            return f"{done}No other key is left whose records are to be sealed anew."
        done += "If it is not done yet,"
    return (
        f"{done} set SECRETS_MASTER_KEY to it, and\nSECRETS_MASTER_KEY_PREVIOUS to the older one; "
        "start every worker again, and run\n" + "\n".join(f"  hookseal key rewrap {each}" for each in older)
    )


def _backups(life: KeyLife) -> str:
    if life.promoted_at is None:
        return "it never sealed anything, so no backup needs it"
    first = rfc3339(life.promoted_at)
    made = f"since {first}" if life.drained_at is None else f"between {first} and {rfc3339(life.drained_at)}"
    return f"backups made {made} can be read only with it: keep its material for as long as you keep them"


def _emit(moved: MovedKey, *, as_json: bool, text: str) -> None:
    life = moved.life
    emit(
        {
            "key_id": life.key_id,
            "state": life.state,
            "was": moved.was,
            "promoted_at": life.promoted_at,
            "drained_at": life.drained_at,
            "compromised_at": life.compromised_at,
            "retired_at": life.retired_at,
            "destroyed_at": life.destroyed_at,
        },
        as_json=as_json,
        text=text,
    )
