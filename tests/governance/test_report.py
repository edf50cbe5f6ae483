"""The record of a test run is written by whole runs only, reports what happened, and names the tree."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.governance import report
from tools.governance.report import Case, Mark, Outcome, Report, identity

pytestmark = pytest.mark.req("OPS-07", part="first-form")

ROOT = Path(__file__).parents[2]
PROBE = """
import pytest

pytestmark = pytest.mark.req("SEC-03")

def test_passes(): pass

@pytest.mark.req("SEC-01", part="db")
@pytest.mark.parametrize("n", [1])
def test_fails(n): assert n == 2

def test_skips(): pytest.skip("why")

@pytest.mark.xfail
def test_known(): assert False

@pytest.fixture
def broken():
    yield
    raise OSError

def test_ends_badly(broken): pass
"""


# Each run is a fork of one process that has loaded pytest, because loading it takes longer than the run.
RUNNER = """
import json, os, sys
import pytest, tests.plugins.requirements, xdist.dsession
for folder, arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        os.chdir(folder)
        os._exit(pytest.main(["-p", "xdist.plugin", "-p", "tests.plugins.requirements", *arguments]))
    os.wait()
"""


def _recorded(folder: Path, files: dict[str, str], *runs: str) -> list[Report | None]:
    """Run a project with these tests as a user does, once with each of these arguments, and return the records.

    Only the plugins under test are loaded: the others take four times as long as the run itself.
    """
    projects = [folder / str(number) for number in range(len(runs))]
    for project in projects:
        (project / "checks").mkdir(parents=True)
        (project / "pytest.ini").write_text("[pytest]\ntestpaths = checks\n")
        (project / ".gitignore").write_text("/.reports/\n__pycache__/\n.pytest_cache/\n")
        for name, text in files.items():
            (project / "checks" / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    asked = [(str(project), run.split()) for project, run in zip(projects, runs, strict=True)]
    subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(asked)],
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        check=True,
    )
    return [report.read(project / report.REPORT) for project in projects]


def test_a_full_run_is_recorded(tmp_path: Path) -> None:
    """Every test is recorded with its outcome and marks, in one process or several, and a skipped module, too."""
    absent = "import pytest\npytest.importorskip('no_such_module')\n"
    files = {"test_probe.py": PROBE, "test_absent.py": absent}
    alone, shared = _recorded(tmp_path, files, "-n 0 --strict-markers", "-n 2 --strict-markers")

    whole, part = Mark(id="SEC-03"), Mark(id="SEC-01", part="db")
    assert alone is not None
    assert shared is not None
    assert {
        Case(nodeid="checks/test_absent.py", outcome=Outcome.SKIPPED),
        Case(nodeid="checks/test_probe.py::test_passes", outcome=Outcome.PASSED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_fails[1]", outcome=Outcome.FAILED, marks=(part, whole)),
        Case(nodeid="checks/test_probe.py::test_skips", outcome=Outcome.SKIPPED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_known", outcome=Outcome.XFAILED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_ends_badly", outcome=Outcome.FAILED, marks=(whole,)),
    } == set(alone.cases)
    assert set(alone.cases) == set(shared.cases)


def test_a_module_that_cannot_be_imported_is_a_failure(tmp_path: Path) -> None:
    """Tests that could not be collected either prevent the record or are recorded as a failure."""
    files = {"test_probe.py": PROBE, "test_broken.py": "import no_such_module\n"}
    failed = Case(nodeid="checks/test_broken.py", outcome=Outcome.FAILED)

    assert all(each is None or failed in each.cases for each in _recorded(tmp_path, files, "-n 0", "-n 1"))


def test_a_run_that_leaves_something_out_is_not_recorded(tmp_path: Path) -> None:
    """A run of some tests, or an interrupted one, is not recorded; one of all is."""
    whole, *others = _recorded(
        tmp_path,
        {"test_probe.py": PROBE},
        "",
        "-k passes",
        "-m marked",
        "checks/test_probe.py",
        "--deselect checks/test_probe.py::test_skips -n 1",
        "-x -n 1",
        "--collect-only",
        "--setup-plan",
        "-o testpaths=checks",
    )

    assert whole is not None
    assert [None] * 8 == others


def test_a_run_with_a_changed_tree_is_not_recorded(tmp_path: Path) -> None:
    """If a file changes during the run, the run belongs to neither tree."""
    writes = "def test_writes():\n    open('new.txt', 'w').close()\n"

    assert [None] == _recorded(tmp_path, {"test_probe.py": writes}, "")


@pytest.mark.parametrize("processes", ["0", "1"])
def test_each_failure_names_the_seed_of_its_order(tmp_path: Path, processes: str) -> None:
    """Also in a process of a parallel run, and without the head of the run, where the seed stands once."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_both.py").write_text("def test_fails(): assert False\n\ndef test_passes(): pass\n")
    plugins = [f"-p{name}" for name in ("xdist", "pytest_randomly", "tests.plugins.requirements")]

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", processes, *plugins, "--randomly-seed=7"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, 1) == (run.returncode, run.stdout.count("make test ARGS='--randomly-seed=7'")), run.stdout


def test_a_mark_of_another_form_stops_the_run(tmp_path: Path) -> None:
    """A mark without an id, with two ids and a part, or with another argument is a usage error."""
    for number, mark in enumerate(("req()", "req(3)", "req('A-1', 'A-2', part='x')", "req('A-1', prt='x')")):
        marked = f"import pytest\n\n@pytest.mark.{mark}\ndef test_passes(): pass\n"
        assert (mark, [None]) == (mark, _recorded(tmp_path / str(number), {"test_probe.py": marked}, ""))


@pytest.mark.parametrize("content", ["", "{}", '{"tree": 1, "cases": [{}]}', '{"tree": "t", "cases": [{"nodeid": 1}]}'])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    """A truncated or foreign file is not a record, so the tests are run again."""
    (tmp_path / "tests.json").write_text(content)

    assert None is report.read(tmp_path / "tests.json")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Writing and reading are inverse."""
    marks = (Mark(id="SEC-01", part="db"), Mark(id="SEC-03"))
    written = Report(tree="t", cases=(Case(nodeid="a.py::b[c]", outcome=Outcome.PASSED, marks=marks),))
    report.write(tmp_path / "deep" / "tests.json", written)

    assert written == report.read(tmp_path / "deep" / "tests.json")


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / ".gitignore").write_text("/.venv/\n__pycache__/\n*.py[co]\n")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "src" / "a.py").write_text("a = 2\n"),
        lambda tree: (tree / "src" / "b.py").write_text(""),
        lambda tree: (tree / "src" / "a.py").rename(tree / "src" / "c.py"),
        lambda tree: (tree / "src" / "a.py").unlink(),
        lambda tree: (tree / "run").chmod(0o755),
        lambda tree: (tree / "link").symlink_to("run"),
    ],
    ids=["content", "new file", "name", "deletion", "mode", "link"],
)
@pytest.mark.parametrize("with_git", [True, False])
def test_every_change_is_seen(tree: Path, with_git: bool, change: Callable[[Path], object]) -> None:
    """Another content, name, mode or set of files gives another identity."""
    if with_git:
        _git_init(tree)
    before = identity(tree)
    change(tree)

    assert before != identity(tree)


def test_ignored_files_do_not_count(tree: Path) -> None:
    """Ignored files and the generated page do not change the identity, and it is the same without git."""
    before = identity(tree)
    for name in (".venv/lib/x.py", "src/__pycache__/a.cpython-311.pyc", "src/b.pyc", "docs/TRACEABILITY.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    walked = identity(tree)
    _git_init(tree)

    assert (before, before) == (walked, identity(tree))


def _git_init(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "--all"], check=True)
