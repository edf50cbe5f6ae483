"""The table of mutants matches this tree, and a trial reports the result of one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools import records
from tools.governance import validate
from tools.mutants import record
from tools.mutants.__main__ import ROOT, main
from tools.mutants.record import Keeper
from tools.mutants.table import Mutant, mutants, problems
from tools.mutants.trial import Ended, Trial, Verdict, copied, tried, try_all

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


def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests of the tree start without plugins: they need none, and loading them takes longest."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "xdist.plugin")


@pytest.mark.parametrize(
    ("new", "verdict"),
    [("return 2\n", Verdict.KILLED), ("return 0 + 1\n", Verdict.SURVIVED), ("return (\n", Verdict.BROKEN)],
)
def test_a_failing_test_kills_the_mutant(
    new: str, verdict: Verdict, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing test kills the mutant, a passing one does not, one that cannot run does neither. The tree stays."""
    without_plugins(monkeypatch)
    with copied(tree) as copy:
        ended = tried(copy, replace(TRIED, new=new))
        assert verdict is ended.verdict
        assert ("tests/test_one.py::test_one" if verdict is Verdict.KILLED else None) == ended.killed_by
        assert (tree / TRIED.file).read_text() == (copy / TRIED.file).read_text()
        assert not (copy / ".venv").exists()
    assert "def one() -> int:\n    return 1\n" == (tree / TRIED.file).read_text()
    assert not copy.exists()


def test_a_run_that_takes_too_long_proves_nothing() -> None:
    """A run that takes too long proves nothing."""
    assert Verdict.BROKEN is Ended(None, "it took longer than 600 s").verdict


def test_each_is_tried_where_its_tests_pass(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once, each in its own copy; a mutant whose tests fail without it proves nothing."""
    (tree / "tests/test_two.py").write_text(TEST.replace("1 ==", "2 =="))
    wanted = [
        TRIED,
        replace(TRIED, name="equal", new="return 0 + 1\n"),
        replace(TRIED, name="failing", new="return 3\n", tests=("tests/test_two.py",)),
    ]
    trials: list[Trial] = []
    without_plugins(monkeypatch)
    try_all(tree, wanted, jobs=2, report=trials.append)

    verdicts = {trial.mutant.name: trial.ended.verdict for trial in trials}
    assert {"n": Verdict.KILLED, "equal": Verdict.SURVIVED, "failing": Verdict.BROKEN} == verdicts
    assert "without a mutant:" in next(trial.ended.out for trial in trials if trial.mutant.name == "failing")


TABLE = """
[[mutant]]
name = "n"
law = "one is one"
file = "src/hookseal/one.py"
old = "return 1\\n"
new = "return 2\\n"
tests = ["tests/test_one.py::test_one"]

[[mutant]]
name = "other"
law = "two is two"
file = "src/hookseal/two.py"
old = "2"
new = "3"
tests = ["tests/test_two.py"]
"""
KILLED = Trial(mutant=TRIED, ended=Ended(1, "FAILED tests/test_one.py::test_one[1] - assert\n1 failed"), seconds=1.04)
SURVIVED = replace(KILLED, ended=Ended(0, "1 passed"))
BROKEN = replace(KILLED, ended=Ended(None, "it took longer than 600 s"))
REQUIRED = {"docs/requirements.md": "| SEC-03 | planned | sealed |\n"}
WHO = ("-c", "user.name=x", "-c", "user.email=x@example.com")


def committed(tree: Path, texts: dict[str, str]) -> str:
    """Write and commit these files; return the commit."""
    for name, text in texts.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    for command in (("init", "--quiet"), ("add", "--all"), (*WHO, "commit", "--quiet", "--message=x")):
        subprocess.run(["git", "-C", str(tree), *command], check=True)
    return subprocess.check_output(["git", "-C", str(tree), "rev-parse", "HEAD"], text=True).strip()


@pytest.fixture(name="recorded")
def _recorded(tree: Path) -> Path:
    """Return the tree as a commit with a table, and no trial yet."""
    (tree / "docs/proof").mkdir(parents=True)
    committed(tree, {"tools/mutants/mutants.toml": TABLE, "src/hookseal/two.py": "2\n", "tests/test_two.py": ""})
    return tree


def evidence(tree: Path, *more: str) -> int:
    return validate.main(tree, ["--only", "evidence", *more], {}, {})


@pytest.mark.req("OPS-07", part="mutants")
def test_a_run_leaves_a_record_and_goes_on_from_it(recorded: Path) -> None:
    """It says which test killed a mutant, and at which commit. What has a kill is not tried again."""
    keeper = Keeper(recorded)
    assert not keeper.is_known(TRIED)
    for trial in (SURVIVED, KILLED, BROKEN):
        keeper.keep(trial)

    (kept,) = record.read(recorded).tried
    head = subprocess.check_output(["git", "-C", str(recorded), "rev-parse", "HEAD"], text=True).strip()
    assert (Verdict.KILLED, "tests/test_one.py::test_one", 1.0, head) == (
        kept.verdict,
        kept.killed_by,
        kept.seconds,
        kept.commit,
    )
    assert Keeper(recorded).is_known(TRIED)
    page = (recorded / record.PAGE).read_text()
    assert page == record.page(record.read(recorded))
    assert "- `n`: one is one; killed by `tests/test_one.py::test_one` in 1 s\n" in page
    assert "**1 of the 2 mutants of the table are known to be killed.**" in page
    assert f"1 tried at commit {head[:12]}, in\n0 minutes of tests." in page


@pytest.mark.req("OPS-07", part="mutants")
@pytest.mark.parametrize(
    ("change", "is_known"),
    [
        ({"src/hookseal/one.py": "def one() -> int:\n    return 1\n\n"}, False),
        ({"tests/test_one.py": f"{TEST}\n"}, False),
        ({"tools/mutants/mutants.toml": TABLE.replace("return 2", "return 4")}, False),
        ({"tools/mutants/mutants.toml": TABLE.replace("one is one", "one is not two")}, True),
        ({"src/hookseal/two.py": "2\n\n"}, True),
    ],
)
def test_what_may_have_changed_the_result_is_tried_again(
    change: dict[str, str], is_known: bool, recorded: Path
) -> None:
    Keeper(recorded).keep(KILLED)
    committed(recorded, change)

    assert is_known is Keeper(recorded).is_known(TRIED)


def test_a_record_has_the_words_of_the_table(recorded: Path) -> None:
    """A law that is only worded anew needs no new trial, and the record says it in the new words."""
    Keeper(recorded).keep(KILLED)
    committed(recorded, {"tools/mutants/mutants.toml": TABLE.replace("one is one", "one is not two")})
    Keeper(recorded).keep(replace(KILLED, mutant=replace(TRIED, name="other", law="two is two")))

    assert ["one is not two", "two is two"] == [each.law for each in record.read(recorded).tried]


@pytest.mark.req("OPS-07", part="mutants")
def test_changes_without_a_commit_have_no_record(recorded: Path) -> None:
    (recorded / "src/hookseal/one.py").write_text("")
    with pytest.raises(ValueError, match="commit the changes of this tree"):
        Keeper(recorded)


@pytest.mark.req("OPS-07", part="mutants")
def test_what_was_not_tried_as_it_is_now_is_said_and_stops_a_release(
    recorded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A survivor stops every validation."""
    Keeper(recorded).keep(KILLED)
    committed(recorded, REQUIRED)
    codes = [evidence(recorded), evidence(recorded, "--unchanged")]
    said = capfd.readouterr()
    assert [0, 1] == codes
    left = "1 of 2 mutants were not tried as they are now: other"
    assert f"validate: note: {left}\n" in said.out
    assert f"validate: {left}: run `make mutants ARGS=--record`\n" in said.err

    Keeper(recorded).keep(SURVIVED)
    assert 1 == evidence(recorded)
    assert "mutants.json: n survived: write a test that notices: one is one; then run `make" in capfd.readouterr().err


@pytest.mark.req("OPS-07", part="mutants")
def test_a_record_that_no_run_wrote_is_found(recorded: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Edited by hand, so that the kill seems to be of what the file is now, of another commit, or by no test."""
    Keeper(recorded).keep(KILLED)
    (honest,) = record.read(recorded).tried
    committed(recorded, {"src/hookseal/one.py": "def one() -> int:\n    return 1\n\n", **REQUIRED})
    now = record.snapshot(recorded, "HEAD")
    assert now is not None
    for edited, said in (
        ({"digest": now.digest("n")}, "n: its digest is not that of its commit"),
        ({"commit": "0" * 40}, f"{'0' * 40} is not in the history of this tree"),
        ({"killed_by": None}, "n was killed by no test"),
    ):
        found = replace(record.read(recorded), tried=(replace(honest, **edited),))
        (recorded / record.RECORD).write_text(records.stored(found))
        assert 1 == evidence(recorded)
        assert f"validate: docs/proof/mutants.json: {said}: run `make mutants ARGS=--record`" in capfd.readouterr().err


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
