"""`hookseal key stage | promote | retire | destroy`: the steps that replace a master key by another."""

from typing import Annotated, Final

import typer

from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, rfc3339
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.keys import NEXT_KEY
from hookseal.config.settings import Settings
from hookseal.errors import Malformed, Refused
from hookseal.operations.key.keys import MovedKey, destroy_key, promote_key, retire_key, stage_key
from hookseal.operations.operator import Operator
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.key.keys import KeyLife, registered

_DIGITS: Final = frozenset("0123456789abcdef")
_LENGTH: Final = 16

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The id of the master key, from `hookseal key status`.")]


def key_id_of(text: str) -> str:
    """Return the id if it is valid. Raises `Malformed`."""
    if len(text) != _LENGTH or not set(text) <= _DIGITS:
        raise Malformed("a master-key id has 16 lowercase hex digits: see `hookseal key status`", field="key_id")
    return text


def stage(*, as_json: Json = False) -> None:
    """Register the key in SECRETS_MASTER_KEY_NEXT, which seals nothing yet.

    Then restart every worker with this setting, and run `hookseal key promote`.

    Example: SECRETS_MASTER_KEY_NEXT_FILE=next.key hookseal key stage
    """
    moved = _stage(start(NEEDS))
    key_id = moved.life.key_id
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {key_id} is staged: restart every worker with {NEXT_KEY}, then run\n"
        f"  hookseal key promote {key_id}",
    )


def promote(key_id: KeyId, *, as_json: Json = False) -> None:
    """Encrypt new secrets with this key from now on, in every process; the key before it only decrypts.

    It fails with exit code 4 while a live worker does not have the key. To undo it, promote the older key again.

    Example: hookseal key promote 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved, older = operate(start(NEEDS), lambda operator: _promote(operator, wanted))
    _emit(
        moved,
        as_json=as_json,
        text=_promoted(moved, older),
    )


def retire(key_id: KeyId, *, as_json: Json = False) -> None:
    """Stop using this key for decryption.

    It fails with exit code 4 while a record needs the key: run `hookseal key rewrap` first.

    Example: hookseal key retire 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved = operate(start(NEEDS), lambda operator: retire_key(operator, wanted))
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.life.key_id} is retired: it decrypts nothing any more\n{_backups(moved.life)}",
    )


def destroy(key_id: KeyId, *, as_json: Json = False) -> None:
    """Mark a retired key as destroyed, after you destroyed its material: a process that has it will not start.

    It fails with exit code 4 unless the key is retired, and while these settings or a live worker have it.

    Example: hookseal key destroy 0123456789abcdef
    """
    wanted = key_id_of(key_id)
    moved = operate(start(NEEDS), lambda operator: destroy_key(operator, wanted))
    _emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.life.key_id} is destroyed: a process that has it will not start\n"
        f"{_backups(moved.life)}",
    )


def _stage(settings: Settings) -> MovedKey:
    key = settings.secrets.next_key
    if key is None:
        raise Refused(f"{NEXT_KEY} is not set: set it to the key that is to seal next", field=NEXT_KEY)
    is_known = key.key_id in {row.key_id for row in reading(settings, registered)}
    # Only this command may have a key that is not registered.
    keyring = None if is_known else settings.secrets.registered_keyring
    return operate(settings, lambda operator: stage_key(operator, key), keyring=keyring)


async def _promote(operator: Operator, key_id: str) -> tuple[MovedKey, list[str]]:
    """Return the move, and the ids of the keys whose records must be re-wrapped."""
    moved = await promote_key(operator, key_id)
    rows = await registered(operator.connection)
    return moved, [row.key_id for row in rows if row.state is KeyState.DECRYPT_ONLY]


def _promoted(moved: MovedKey, older: list[str]) -> str:
    key_id = moved.life.key_id
    done = f"master key {key_id} is active. Now"
    if moved.was is KeyState.ACTIVE:
        done = f"master key {key_id} was active already: nothing was changed. "
        if not older:
            return f"{done}No other key has records to re-wrap."
        done += "If you have not done so yet,"
    return (
        f"{done} set SECRETS_MASTER_KEY to it, and\nSECRETS_MASTER_KEY_PREVIOUS to the older one; "
        "restart every worker, and run\n" + "\n".join(f"  hookseal key rewrap {each}" for each in older)
    )


def _backups(life: KeyLife) -> str:
    if life.promoted_at is None:
        return "it never sealed anything, so no backup needs it"
    first = rfc3339(life.promoted_at)
    made = f"since {first}" if life.drained_at is None else f"between {first} and {rfc3339(life.drained_at)}"
    return f"backups made {made} can be read only with this key: keep its material as long as you keep them"


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
