"""No statement of hookseal leaves a trace in its session, which the pool returns without a reset."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "hookseal"
THE_PATH = SOURCE / "postgres" / "connect.py"  # it sets our search path for good where a proxy dropped it
# Beginnings of statements, and calls, whose effect outlives their transaction.
_LEAVES = re.compile(
    r"""(?:\A|;)\s*(?:SET\s+(?!LOCAL\b)(?:SESSION\s+|TIME\s|ROLE\s|\w+\s*(?:=|TO\s))|RESET\s|DISCARD\s+(?!PLANS\b)|LISTEN\s|PREPARE\s|LOAD\s)
      | \bWITH\s+HOLD\b | \bCREATE\s+(?:TEMP|TEMPORARY)\b | \bpg_(?:try_)?advisory_lock | \bset_config\([^)]*,\s*false\)
      | \badd_listener\( """,
    re.VERBOSE,
)
_ON_ITS_OWN = {"worker/outbox.py"}  # uses a connection outside of any pool, closed at the end


def _texts(file: Path) -> Iterator[str]:
    """Yield the statements of an SQL file without comments, or the strings and calls of a module."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sql":
        yield from (re.sub(r"--[^\n]*", "", part) for part in re.split(r"^-- name:.*$", text, flags=re.MULTILINE))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Call):
            yield f"{getattr(node.func, 'attr', '')}("


def _leaving(file: Path) -> bool:
    return any(_LEAVES.search(text) for text in _texts(file))


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        ("SET lock_timeout = '2s'", True),
        ("BEGIN; SET search_path TO public", True),
        ("SET ROLE other", True),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", True),
        ("SELECT pg_advisory_lock(1)", True),
        ("SELECT set_config('a', 'b', false)", True),
        ("CREATE TEMP TABLE t ()", True),
        ("LISTEN hookseal", True),
        ("SET LOCAL lock_timeout = '2s'", False),
        ("SELECT set_config('a', 'b', true)", False),
        ("UPDATE t\nSET state = 'x', b = 1", False),
    ],
)
def test_the_pattern_matches_lasting_effects(statement: str, leaves: bool) -> None:
    assert leaves == bool(_LEAVES.search(statement))


def test_no_statement_has_a_lasting_effect() -> None:
    """No effect of a statement outlives its transaction, except the search path and the listener's own connection."""
    files = [*SOURCE.rglob("*.sql"), *SOURCE.rglob("*.py")]
    assert _leaving(THE_PATH)
    found = {str(file.relative_to(SOURCE)) for file in files if _leaving(file) and file != THE_PATH}

    assert _ON_ITS_OWN == found
