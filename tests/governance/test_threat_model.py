"""The threat model says for every attack what prevents it and what remains, and the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ATTACKS = dict(re.findall(r"^## (A\d+) .*?\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_every_named_test_exists(file: str, test: str) -> None:
    """A test that the page names is in that file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert test in found


def test_every_attack_has_all_parts() -> None:
    """A1 to A21 each say what the attacker does, what prevents it, which tests show it, and what remains."""
    assert [f"A{number}" for number in range(1, 22)] == list(ATTACKS)
    for name, text in ATTACKS.items():
        headings = re.findall(r"^\*\*([A-Z][a-z]+ [a-z]+)", text, re.MULTILINE)
        assert ["The attacker", "What holds", "What remains"] == headings, name
        assert re.search(r"^- `tests/.+::test_", text, re.MULTILINE), name


def test_no_named_test_is_overlooked() -> None:
    """No test is named in a form that the check would miss."""
    assert len(re.findall(r"test_\w+\.py::", PAGE)) == len(re.findall(r"`tests/[\w/]+\.py::\w+`", PAGE))
