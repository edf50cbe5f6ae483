"""The rules for moving a master key: every state and every move in one table, and a refusal that says what to do."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from hookseal.errors import Conflict, HooksealError, Refused, with_advice
from hookseal.secrets.core.key_rules import (
    KeyState,
    Use,
    may_be_drained,
    must_destroy,
    must_promote,
    must_register,
    must_retire,
    must_rewrap,
    require_replaced,
)

pytestmark = pytest.mark.req("SEC-05")

KEY = "0123456789abcdef"
NOTHING = Use(records=0, deliveries=0)
SOME = Use(records=3, deliveries=7)
SIX = [f"w-{number}" for number in range(1, 7)]
Move = Callable[[KeyState], object]
STATES = list(KeyState)
STAGED, ACTIVE, DECRYPT_ONLY, RETIRED, DESTROYED = STATES

# For each state, in their order: True if the move has something to do, False if not, or the reason for a refusal.
TABLE: dict[str, tuple[Move, list[bool | str]]] = {
    "stage": (
        lambda state: must_register(state, KEY, is_compromised=False),
        [False, "is active already", "is decrypt_only already", "is retired already", "is destroyed already"],
    ),
    "stage what others may know": (
        lambda state: must_register(state, KEY, is_compromised=True),
        ["is compromised", "is compromised", "is compromised", "is compromised", "is compromised"],
    ),
    "promote": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=True, lacking=[]),
        [True, False, True, "is retired: it never seals again", "is destroyed: it never seals again"],
    ),
    "promote what others may know": (
        lambda state: must_promote(state, KEY, is_compromised=True, held=True, lacking=[]),
        ["is compromised", False, "is compromised", "is compromised", "is compromised"],
    ),
    "promote without it": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=False, lacking=[]),
        ["supply it in SECRETS_MASTER_KEY_NEXT", False, "supply it in SECRETS_MASTER_KEY_NEXT", "is ret", "is des"],
    ),
    "promote while workers lack it": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=True, lacking=["w-1"]),
        [
            "1 live worker does not hold master key 0123456789abcdef: w-1: start them again with it in",
            False,
            "or wait until they are gone",
            "is retired",
            "is destroyed",
        ],
    ),
    "rewrap": (
        lambda state: must_rewrap(state, KEY, held=True, drained=False),
        [False, "promote another first", True, False, False],
    ),
    "rewrap once drained": (
        lambda state: must_rewrap(state, KEY, held=True, drained=True),
        [False, "promote another first", False, False, False],
    ),
    "rewrap without it": (
        lambda state: must_rewrap(state, KEY, held=False, drained=False),
        [False, "promote another first", "supply it in SECRETS_MASTER_KEY_PREVIOUS", False, False],
    ),
    "drain": (may_be_drained, [False, False, True, False, False]),
    "retire": (
        lambda state: must_retire(state, KEY, NOTHING),
        [True, "promote another first", True, False, False],
    ),
    "retire while something needs it": (
        lambda state: must_retire(state, KEY, SOME),
        [
            "3 records are sealed under master key 0123456789abcdef, and 7 pending deliveries need them: run",
            "promote another first",
            "run `hookseal key rewrap",
            False,
            False,
        ],
    ),
    "retire while a record needs it for which no delivery waits": (
        lambda state: must_retire(state, KEY, Use(records=1, deliveries=0)),
        ["1 record is sealed", "promote another first", "0 pending deliveries need them: run", False, False],
    ),
    "destroy": (
        lambda state: must_destroy(state, KEY, held=False, holding=[]),
        ["is staged: retire it first", "is active: retire", "is decrypt_only: retire it first", True, False],
    ),
    "destroy while this process holds it": (
        lambda state: must_destroy(state, KEY, held=True, holding=[]),
        ["retire", "retire", "retire", "this process holds master key 0123456789abcdef: take it out", False],
    ),
    "destroy while workers hold it": (
        lambda state: must_destroy(state, KEY, held=False, holding=SIX),
        [
            *["retire"] * 3,
            "could not start again: w-1, w-2, w-3, w-4, w-5 and 1 more: take it out of their settings first",
            False,
        ],
    ),
}


@pytest.mark.parametrize(
    ("move", "state", "expected"),
    [
        pytest.param(move, state, expected, id=f"{name}-{state}")
        for name, (move, row) in TABLE.items()
        for state, expected in zip(STATES, row, strict=True)
    ],
)
def test_every_move_of_every_state(move: Move, state: KeyState, expected: bool | str) -> None:
    """Each move in each state is to be done, is done already, or is refused with the key and what to do."""
    if isinstance(expected, bool):
        assert expected is move(state)
        return
    with pytest.raises(HooksealError) as caught:
        move(state)
    assert isinstance(caught.value, Refused if "supply it" in expected else Conflict)
    assert expected in with_advice(caught.value)
    assert KEY in str(caught.value)


def test_an_unknown_key_is_registered() -> None:
    """A key without a row is to be registered."""
    assert must_register(None, KEY, is_compromised=False)


@pytest.mark.parametrize("state", STATES)
def test_the_active_key_cannot_be_replaced(state: KeyState) -> None:
    """The active key cannot be replaced, since new secrets would be sealed under it; any other key can."""
    with nullcontext() if state is not ACTIVE else pytest.raises(Conflict, match="promote another first"):
        require_replaced(state, KEY)


def test_no_move_reopens_a_key() -> None:
    """No move reopens a retired or destroyed key; a retired one can only be marked as destroyed."""
    for state in (RETIRED, DESTROYED):
        done = {}
        for name, (move, _) in TABLE.items():
            try:
                done[name] = move(state)
            except HooksealError:
                done[name] = None
        moved = {name for name, what in done.items() if what is True}
        assert ({"destroy"} if state is RETIRED else set()) == moved
