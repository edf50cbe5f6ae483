"""The record of a test run is written by whole runs only, and reports what happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.governance import report
from tools.governance.report import Case, Mark, Outcome, Report

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


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = checks\n")
    (tmp_path / ".gitignore").write_text("/.reports/\n__pycache__/\n.pytest_cache/\n")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_probe.py").write_text(PROBE)
    return tmp_path


def _run(project: Path, *arguments: str) -> Report | None:
    """Run the project's tests as a user does, and return the record, if there is one.

    Only the plugins under test are loaded: the others take four times as long as the run itself.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-p", "tests.plugins.requirements", *arguments],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        check=False,
    )
    return report.read(project / report.REPORT)


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_full_run_is_recorded(project: Path, processes: str) -> None:
    """Every test is recorded with its outcome and marks, in one process or several, and a skipped module, too."""
    (project / "checks" / "test_absent.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    recorded = _run(project, "-n", processes, "--strict-markers")

    whole, part = Mark(id="SEC-03"), Mark(id="SEC-01", part="db")
    assert recorded is not None
    assert {
        Case(nodeid="checks/test_absent.py", outcome=Outcome.SKIPPED),
        Case(nodeid="checks/test_probe.py::test_passes", outcome=Outcome.PASSED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_fails[1]", outcome=Outcome.FAILED, marks=(part, whole)),
        Case(nodeid="checks/test_probe.py::test_skips", outcome=Outcome.SKIPPED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_known", outcome=Outcome.XFAILED, marks=(whole,)),
        Case(nodeid="checks/test_probe.py::test_ends_badly", outcome=Outcome.FAILED, marks=(whole,)),
    } == set(recorded.cases)


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_module_that_cannot_be_imported_is_a_failure(project: Path, processes: str) -> None:
    """Tests that could not be collected either prevent the record or are recorded as a failure."""
    (project / "checks" / "test_broken.py").write_text("import no_such_module\n")
    recorded = _run(project, "-n", processes)

    assert recorded is None or Case(nodeid="checks/test_broken.py", outcome=Outcome.FAILED) in recorded.cases


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "passes"],
        ["-m", "not slow"],
        ["checks/test_probe.py"],
        ["--deselect", "checks/test_probe.py::test_skips", "-n", "2"],
        ["-x", "-n", "2"],
        ["--collect-only"],
        ["--setup-plan"],
        ["-o", "testpaths=checks"],
    ],
    ids=" ".join,
)
def test_a_run_that_leaves_something_out_is_not_recorded(project: Path, arguments: list[str]) -> None:
    """A run of some tests, or an interrupted one, is not recorded."""
    assert None is _run(project, *arguments)


def test_a_run_with_a_changed_tree_is_not_recorded(project: Path) -> None:
    """If a file changes during the run, the run belongs to neither tree."""
    (project / "checks" / "test_probe.py").write_text("def test_writes():\n    open('new.txt', 'w').close()\n")

    assert None is _run(project)


@pytest.mark.parametrize("mark", ["req()", "req(3)", "req('A-1', 'A-2', part='x')", "req('A-1', prt='x')"])
def test_a_mark_of_another_form_stops_the_run(project: Path, mark: str) -> None:
    """A mark without an id, with two ids and a part, or with another argument is a usage error."""
    (project / "checks" / "test_probe.py").write_text(
        f"import pytest\n\n@pytest.mark.{mark}\ndef test_passes(): pass\n"
    )

    assert None is _run(project)


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
