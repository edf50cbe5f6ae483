"""The table of mutants matches this tree, and a trial reports the result of one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.mutants.__main__ import ROOT, main
from tools.mutants.table import Mutant, mutants, problems
from tools.mutants.trial import Ended, Verdict, copied, tried

TRIED = Mutant(
    name="n",
    law="one is one",
    file="src/hookseal/one.py",
    old="return 1\n",
    new="return 2\n",
    tests=("tests/test_one.py::test_one",),
)
TEST = """
from hookseal.one import one

def test_one():
    assert 1 == one()
"""


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    """Return a tree with one function, its test, and a build product."""
    root = tmp_path / "checkout"
    for name, text in {
        "src/hookseal/__init__.py": "",
        "src/hookseal/one.py": "def one() -> int:\n    return 1\n",
        "tests/test_one.py": TEST,
        ".venv/large": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_table_matches_this_tree() -> None:
    """Every old text occurs exactly once, every test exists, and the laws of the issue are covered."""
    table = mutants()

    assert [] == problems(table, ROOT)
    assert 200 <= len(table)
    assert {
        *("raw-not-admitted", "lease-ended-early", "contexts-outlive-the-epoch", "record-without-its-outcome"),
        *(
            "may-publish-asks-usage",
            "socket-does-not-check",
            "look-ups-shared-between-tenants",
            "stop-forgets-what-waits",
        ),
        *("askings-shared-between-tenants", "apart-at-three-seconds"),
    } <= {mutant.name for mutant in table}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"old": "return 3\n"}, "its old text occurs 0 times in src/hookseal/one.py: update the row"),
        ({"old": "n"}, "its old text occurs 3 times in src/hookseal/one.py: update the row"),
        ({"old": ""}, "its old text occurs 0 times in src/hookseal/one.py: update the row"),
        ({"file": "src/gone.py"}, "its old text occurs 0 times in src/gone.py: update the row"),
        ({"new": "return 1\n"}, "it changes nothing"),
        ({"tests": ()}, "it names no test"),
        ({"tests": ("tests/test_gone.py",)}, "the test tests/test_gone.py does not exist"),
        ({"tests": ("tests/test_one.py::test_on",)}, "the test tests/test_one.py::test_on does not exist"),
    ],
)
def test_an_outdated_row_is_reported(change: dict[str, object], problem: str, tree: Path) -> None:
    """A row that no longer matches the tree is reported, with what to do."""
    assert [] == problems([TRIED], tree)
    assert [f"n: {problem}"] == problems([replace(TRIED, **change)], tree)  # type: ignore[arg-type]


def test_a_function_that_a_later_migration_replaces(tree: Path) -> None:
    """A change of the older definition has no effect: the error names the file with the current one."""
    body = "CREATE OR REPLACE FUNCTION hookseal.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;\n"
    for name, text in {"0001_f.sql": f"{body}SELECT 2;\n", "0002_g.sql": body.replace("f()", "g()")}.items():
        (tree / name).write_text(text)
    within, outside = (
        replace(TRIED, file="0001_f.sql", old="SELECT 1"),
        replace(TRIED, file="0001_f.sql", old="SELECT 2"),
    )
    assert [] == problems([within], tree)
    (tree / "0003_f.sql").write_text(body)

    assert ["n: 0003_f.sql replaces the function: change it there"] == problems([within], tree)
    assert [] == problems([outside], tree)


def test_the_name_of_a_mutant_is_unique(tree: Path) -> None:
    """The name of a mutant is unique."""
    assert ["n: the name is not unique"] == problems([TRIED, TRIED], tree)


@pytest.mark.parametrize(
    ("new", "verdict"),
    [("return 2\n", Verdict.KILLED), ("return 0 + 1\n", Verdict.SURVIVED), ("return (\n", Verdict.BROKEN)],
)
def test_a_failing_test_kills_the_mutant(
    new: str, verdict: Verdict, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing test kills the mutant, a passing one does not, one that cannot run does neither. The tree stays."""
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # this tree needs no plugins, and loading them takes longest
    monkeypatch.setenv("PYTEST_PLUGINS", "xdist.plugin")
    with copied(tree) as copy:
        assert verdict is tried(copy, replace(TRIED, new=new)).verdict
        assert (tree / TRIED.file).read_text() == (copy / TRIED.file).read_text()
        assert not (copy / ".venv").exists()
    assert "def one() -> int:\n    return 1\n" == (tree / TRIED.file).read_text()
    assert not copy.exists()


def test_a_run_that_takes_too_long_proves_nothing() -> None:
    """A run that takes too long proves nothing."""
    assert Verdict.BROKEN is Ended(None, "it took longer than 600 s").verdict


def test_an_unknown_mutant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown mutant is reported by name, and nothing is run."""
    assert 1 == main(["--only", "no-such"])
    assert "no-such: this mutant does not exist\n" == capsys.readouterr().err


def test_make_mutants_runs_the_table() -> None:
    """`make mutants` runs the whole table."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.mutants", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "make mutants ARGS=" in " ".join(done.stdout.split())
