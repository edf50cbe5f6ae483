"""Decides which change of state a master key may make. Pure.

    staged -> active -> decrypt_only -> retired -> destroyed

A staged key may be retired, and a `decrypt_only` key may be promoted again. Each function returns whether there is
something to do: a command that was already carried out succeeds again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.errors import Conflict, Refused
from hookseal.ground.ids import plural

_SHOWN: Final = 5


class KeyState(StrEnum):
    """What a registered master key may do."""

    STAGED = "staged"
    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt_only"
    RETIRED = "retired"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What depends on a key: the records under it, and the pending deliveries that need one of them."""

    records: int
    deliveries: int


def must_register(state: KeyState | None, key_id: str, *, is_compromised: bool) -> bool:
    """Return whether the next key must still be registered.

    Raises `Conflict` if it was active before or is compromised: it may then not become the active key.
    """
    if state in (None, KeyState.STAGED) and not is_compromised:
        return state is None
    raise Conflict(
        f"master key {key_id} is {'compromised' if is_compromised else f'{state} already'}, so it cannot be the next "
        "one: give SECRETS_MASTER_KEY_NEXT a new key, or remove it"
    )


def must_promote(state: KeyState, key_id: str, *, is_compromised: bool, held: bool, lacking: Sequence[str]) -> bool:
    """Return whether the key must still become the active one; `lacking` are the live workers without it.

    Raises `Conflict` if it is retired or compromised, or if a worker lacks it, and `Refused` if this process lacks it.
    """
    if state is KeyState.ACTIVE:
        return False
    if is_compromised or state not in (KeyState.STAGED, KeyState.DECRYPT_ONLY):
        raise Conflict(
            f"master key {key_id} is {'compromised' if is_compromised else state}: it never seals again, "
            "so stage a new one"
        )
    if not held:
        raise _not_held(key_id, "SECRETS_MASTER_KEY_NEXT")
    if lacking:
        raise Conflict(
            f"{plural(len(lacking), 'live worker does', 'live workers do')} not hold master key {key_id}: "
            f"{_named(lacking)}: start them again with it in SECRETS_MASTER_KEY_NEXT, or wait until they are gone"
        )
    return True


def must_rewrap(state: KeyState, key_id: str, *, held: bool, drained: bool) -> bool:
    """Return whether records may be left under the key, to re-wrap under the active one.

    Raises `Conflict` if it is the active key, and `Refused` if this process does not have it.
    """
    if state is KeyState.ACTIVE:
        raise _active(key_id)
    if state is not KeyState.DECRYPT_ONLY or drained:
        return False
    if not held:
        raise _not_held(key_id, "SECRETS_MASTER_KEY_PREVIOUS")
    return True


def may_be_drained(state: KeyState) -> bool:
    """Return whether a key in this state, once it has no records, gets no new ones."""
    return state is KeyState.DECRYPT_ONLY


def must_retire(state: KeyState, key_id: str, use: Use) -> bool:
    """Return whether the key must still be retired. Raises `Conflict` if it is active or a record needs it."""
    if state in (KeyState.RETIRED, KeyState.DESTROYED):
        return False
    if state is KeyState.ACTIVE:
        raise _active(key_id)
    if use.records:
        raise Conflict(
            f"{plural(use.records, 'record is', 'records are')} sealed under master key {key_id}, and "
            f"{plural(use.deliveries, 'pending delivery needs', 'pending deliveries need')} them",
            advice=f"run `hookseal key rewrap {key_id}` first",
        )
    return True


def must_destroy(state: KeyState, key_id: str, *, held: bool, holding: Sequence[str]) -> bool:
    """Return whether the key must still be marked as destroyed; `holding` are the live workers that have it.

    Raises `Conflict` unless it is retired, and while this process or a worker has it: it could not start again.
    """
    if state is KeyState.DESTROYED:
        return False
    if state is not KeyState.RETIRED:
        raise Conflict(f"master key {key_id} is {state}: retire it first")
    if held:
        raise Conflict(f"this process holds master key {key_id}: take it out of the settings first")
    if holding:
        raise Conflict(
            f"{plural(len(holding), 'live worker holds', 'live workers hold')} master key {key_id}, and could not "
            f"start again: {_named(holding)}: take it out of their settings first"
        )
    return True


def require_replaced(state: KeyState, key_id: str) -> None:
    """Raise `Conflict` if the key is active: replaced secrets would be sealed under it again."""
    if state is KeyState.ACTIVE:
        raise _active(key_id)


def _active(key_id: str) -> Conflict:
    return Conflict(f"master key {key_id} is the active one, under which new secrets are sealed: promote another first")


def _not_held(key_id: str, variable: str) -> Refused:
    return Refused(f"master key {key_id} is not among the keys of this process: supply it in {variable}")


def _named(workers: Sequence[str]) -> str:
    more = len(workers) - _SHOWN
    return ", ".join(workers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
