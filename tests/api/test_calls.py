"""The room `api` translates: it has no statement, and takes no step of an operation."""

import ast
from pathlib import Path

import pytest

import hookseal.api
from hookseal.api.calls import CALLS

ROOM = Path(hookseal.api.__file__).parent
NOT_ITS_OWN = ("asyncpg", "redis", "arq", "hookseal.dispatcher.store", "hookseal.operations", "hookseal.postgres")


def imported(file: Path) -> set[str]:
    """Return the modules that a file imports, and what it takes from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.req("API-01")
def test_no_call_takes_a_step_of_an_operation() -> None:
    taken = {
        (file.name, name)
        for file in ROOM.rglob("*.py")
        for name in imported(file)
        if name.startswith(tuple(f"{each}." for each in NOT_ITS_OWN)) or name in NOT_ITS_OWN
    }

    assert set() == taken
    assert [] == list(ROOM.rglob("*.sql"))


def test_no_two_calls_are_the_same() -> None:
    assert len(CALLS) == len({call.name for call in CALLS}) == len({(call.method, call.path) for call in CALLS})
