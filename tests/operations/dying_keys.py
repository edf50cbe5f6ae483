"""A program that moves master keys in a fresh process for each order, which may kill itself at any await.

Its orders and answers are those of `dying`; a key is named by the seed that the tests make it from.
"""

import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg

from hookseal.operations import compromise, keys, rewrap
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.ref import Provider
from hookseal.secrets.rewrap import BEGINNING
from tests.doubles.stored import keyring
from tests.operations.dying import Driven, Mortal, obey
from tests.secrets.samples import master_key

FIRST = "first of all"
MOVES: dict[str, Callable[[Operator, str], Coroutine[Any, Any, object]]] = {
    "promote": keys.promote_key,
    "finish": rewrap.finish_rewrap,
    "retire": keys.retire_key,
    "destroy": keys.destroy_key,
}
HOW = compromise.How(overlap_seconds=0, force=False, dry_run=False, random_bytes=os.urandom)


def key_of(seed: str) -> MasterKey:
    """Return the key of that seed; the first one is that which began the installation."""
    return keyring().sealing if seed == FIRST else master_key(seed)


def operation(operator: Operator, name: str, key: MasterKey) -> Coroutine[Any, Any, object]:
    """Return the operation of that name, as an operator would have it run."""
    match name:
        case "stage":
            return keys.stage_key(operator, key)
        case "rewrap":
            return rewrap.rewrap_batch(operator, key.key_id, BEGINNING, wait=False)
        case "compromise":
            return drilled(operator, key)
        case _:
            return MOVES[name](operator, key.key_id)


async def drilled(operator: Operator, key: MasterKey) -> None:
    """Replace all that the key had sealed; fail unless all of it was."""

    def replaced(each: compromise.Replaced) -> None:
        if each.error is not None:
            raise each.error

    await compromise.drill(operator, key.key_id, HOW, replaced)


async def changed(database_url: str, *, name: str, held: list[str], key: str, dies_at: int) -> int:
    """Do it with these keys, and return how many times it was left and entered."""
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "dying"})
    try:
        sealing, *others = (key_of(seed) for seed in held)
        unlocked = await unlock(connection, Provider.DB, KeyRing(sealing, tuple(others)))
        mortal = Mortal(dies_at)
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        await Driven(mortal, operation(operator, name, key_of(key)))
        return mortal.count
    finally:
        await connection.close()


if __name__ == "__main__":
    for line in sys.stdin:
        obey(json.loads(line), changed)
