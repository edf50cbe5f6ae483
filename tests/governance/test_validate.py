"""`make validate` and `make docs` on a small tree."""

from pathlib import Path

import pytest

from hookseal.config.page import settings_page
from hookseal.dispatcher.outcome_page import outcomes_page
from hookseal.worker.metrics.page import metrics_page
from tools.governance import report, tree
from tools.governance.report import Case, Mark, Outcome, Report
from tools.governance.validate import FROM_SOURCE, main, stored
from tools.soak import record

pytestmark = pytest.mark.req("OPS-07", part="first-form")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """Create a tree that requires SEC-03, with a test report of this tree that proves it."""
    for folder in ("docs", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "settings.md").write_text("# Settings\n")
    (tmp_path / ".gitignore").write_text("/.reports/\n")
    (tmp_path / "docs" / "requirements.md").write_text("| SEC-03 | claimed | sealed | seed |\n")
    (tmp_path / "tests" / "may_skip.txt").write_text("# none\n")
    (tmp_path / "Makefile").write_text("test:\n\t@touch .reports/was-run\n")
    _record(tmp_path)
    return tmp_path


def _record(root: Path) -> None:
    case = Case(nodeid="tests/a.py::b", outcome=Outcome.PASSED, marks=(Mark(id="SEC-03"),))
    report.write(root / report.REPORT, Report(tree=tree.identity(root), cases=(case,)))


def _run(root: Path, *arguments: str) -> int:
    return main(root, list(arguments), {"docs/settings.md": lambda: "# Settings\n"})


def test_a_proven_tree_passes(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With a current page everything is proven without another test run, and the summary counts the claims."""
    written, validated = _run(root, "--write"), _run(root)

    assert "| SEC-03 | claimed |  | `tests/a.py::b` |" in (root / ".reports" / "traceability.md").read_text()
    assert "| SEC-03 | claimed | 1 |  |  |" in (root / "docs" / "TRACEABILITY.md").read_text()
    assert (0, 0) == (written, validated)
    assert "validate: 1 tests prove 1 requirements (1 claimed)\n" in capfd.readouterr().out
    assert not (root / ".reports" / "was-run").exists()


def test_an_outdated_page_fails(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that is missing, or differs in one byte, is out of date."""
    missing = _run(root)
    _run(root, "--write")
    with (root / "docs" / "TRACEABILITY.md").open("a") as page:
        page.write("\n")

    assert (1, 1) == (missing, _run(root))
    assert 2 == capfd.readouterr().err.count("docs/TRACEABILITY.md is stale: run `make docs`")


def test_a_page_made_from_the_sources_fails_when_stale(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that does not depend on the tests is compared, and written before they run."""
    (root / "docs" / "settings.md").write_text("# Old\n")
    _record(root)
    validated = _run(root)
    errors = capfd.readouterr().err
    _run(root, "--write")

    assert 1 == validated
    assert "docs/settings.md is stale: run `make docs`" in errors
    assert "# Settings\n" == (root / "docs" / "settings.md").read_text()


def test_pages_are_written_from_the_sources() -> None:
    """Settings, outcomes and metrics are written from the tables that the product uses."""
    assert {
        "docs/metrics.md": metrics_page,
        "docs/outcomes.md": outcomes_page,
        "docs/settings.md": settings_page,
    } == FROM_SOURCE


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b"{}"])
def test_a_page_whose_record_cannot_be_read_fails(
    root: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    """A record that is missing, damaged or of another form is named, with what to do."""
    if content is not None:
        (root / record.RECORD).parent.mkdir()
        (root / record.RECORD).write_bytes(content)
    pages = {"docs/soak.md": lambda: str(stored(record.RECORD, lambda: record.read(root), record.COMMAND))}

    assert (1, 1) == (main(root, [], pages), main(root, ["--write"], pages))
    advice = "validate: docs/proof/soak.json cannot be read: restore it with git, or run `make soak`\n"
    assert 2 == capfd.readouterr().err.count(advice)


def test_an_unproven_claim_fails(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A claim that the run does not prove fails, even if the page is current."""
    (root / "docs" / "requirements.md").write_text("| SEC-03 | claimed | x |\n| SEC-02 | claimed | x |\n")
    _record(root)
    _run(root, "--write")

    assert 1 == _run(root)
    assert "validate: SEC-02: has no passing test" in capfd.readouterr().err


def test_a_record_of_a_benchmark_is_judged(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The records in `docs/EVIDENCE/` are read with the tree, and an invalid one fails."""
    (root / "docs" / "EVIDENCE").mkdir()
    (root / "docs" / "EVIDENCE" / "PERF-99.json").write_text("{}")
    _record(root)
    _run(root, "--write")

    assert 1 == _run(root)
    assert "validate: docs/EVIDENCE/PERF-99.json: docs/requirements.md does not know" in capfd.readouterr().err


def test_a_record_of_another_tree_is_not_used(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After any change the tests run again; if they write no report of this tree, it fails."""
    (root / "tests" / "new.py").write_text("")

    assert 1 == _run(root)
    assert (root / ".reports" / "was-run").exists()
    assert "validate: the test run wrote no report" in capfd.readouterr().err


def test_requirements_that_cannot_be_read_fail(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A malformed row fails with its line."""
    (root / "docs" / "requirements.md").write_text("| SEC-03 | done | sealed | seed |\n")

    assert 1 == _run(root)
    assert "validate: docs/requirements.md: line 1: SEC-03 must be" in capfd.readouterr().err
