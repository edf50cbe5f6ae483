"""The threat model says for every attack what prevents it and what remains, and the tests of each attack exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
PROOF = (ROOT / "docs" / "proof" / "attacks.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE + PROOF)))
_ATTACK = re.compile(r"^## (A\d+ .*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ATTACKS, TESTS = dict(_ATTACK.findall(PAGE)), dict(_ATTACK.findall(PROOF))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_every_named_test_exists(file: str, test: str) -> None:
    """A test that a page names is in that file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert test in found


def test_every_attack_has_all_parts() -> None:
    """A1 to A22 each say what the attacker does, what prevents it, which test shows it, and what remains."""
    assert [f"A{number}" for number in range(1, 23)] == [heading.split()[0] for heading in ATTACKS]
    for name, text in ATTACKS.items():
        headings = re.findall(r"^\*\*([A-Z][a-z]+ [a-z]+)", text, re.MULTILINE)
        assert ["The attacker", "What holds", "What remains"] == headings, name
        assert re.search(r"^- `tests/.+::test_", text, re.MULTILINE), name


def test_every_attack_has_its_list_of_tests() -> None:
    """The page of tests has each attack by its heading, with the test that the threat model names among them."""
    lists = {name: re.findall(r"^- (`tests/.+`)$", text, re.MULTILINE) for name, text in TESTS.items()}

    assert list(ATTACKS) == list(lists)
    for name, text in ATTACKS.items():
        assert set(re.findall(r"^- (`tests/.+`)$", text, re.MULTILINE)) <= set(lists[name]), name


def test_no_named_test_is_overlooked() -> None:
    """No test is named in a form that the check would miss."""
    pages = PAGE + PROOF

    assert len(re.findall(r"test_\w+\.py::", pages)) == len(re.findall(r"`tests/[\w/]+\.py::\w+`", pages))
