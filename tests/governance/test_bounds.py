"""No bound, and no number of a requirement, goes without a decision: each way to lower one is tried in a copy."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.governance import bounds, requirements
from tools.governance.evidence import BENCHMARKS, read
from tools.governance.validate import main
from tools.records import ROOT

pytestmark = pytest.mark.req("OPS-07", part="bounds")

REQUIRED, BOUNDS = requirements.PAGE, bounds.PAGE
DECISION = "docs/decisions/0001-slower.md"
Edit = Callable[[Path], None]


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always")
    return subprocess.check_output(["git", "-C", str(root), *who, *arguments], text=True).strip()


def commit(root: Path, message: str = "x") -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", f"--message={message}")
    return git(root, "rev-parse", "HEAD")[:12]


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def change(name: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        changed = re.sub(old, new, text, count=1)
        assert changed != text
        write(root, name, changed)

    return edit


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in (REQUIRED, BOUNDS):
        write(root, name, (ROOT / name).read_text(encoding="utf-8"))
    write(root, DECISION, "# 1. A decision\n\nPERF-02 may be slower.\n")
    git(root, "init", "--quiet")
    commit(root)
    return root


LIES: dict[str, tuple[str, list[Edit]]] = {
    "both": (
        "PERF-02",
        [change(REQUIRED, "p99 <= 10 ms", "p99 <= 12 ms"), change(BOUNDS, "at most 10 ms", "at most 12 ms")],
    ),
    "the bound alone, to another number of the row": ("PERF-02", [change(BOUNDS, "at most 5 ms", "at most 150 ms")]),
    "the text alone": ("SEC-10", [change(REQUIRED, "0 to 7 days", "0 to 9 days")]),
    "a row less": ("DUR-05", [change(REQUIRED, r"\| DUR-05 .*\n", "")]),
    "a scenario less": ("DUR-03", [change(BOUNDS, r"\| DUR-03 \| scenario killed .*\n", "")]),
    "the page less": ("UX-04", [lambda root: (root / BOUNDS).unlink()]),
}


@pytest.mark.parametrize(("name", "edits"), LIES.values(), ids=LIES)
def test_a_bound_goes_only_with_a_decision(tree: Path, name: str, edits: list[Edit]) -> None:
    """It is found before the commit and ever after. A decision that names the id is enough, in the same commit."""
    assert [] == bounds.undecided(tree)
    for edit in edits:
        edit(tree)
    assert f"what is not committed: {name} has no more: " in "\n".join(bounds.undecided(tree))
    before = git(tree, "rev-parse", "HEAD")
    lied = commit(tree)
    write(tree, DECISION, f"# 1. A decision\n\n{name} was lowered before.\n")
    commit(tree, "a decision that comes late")
    assert f"commit {lied}: {name} has no more: " in "\n".join(bounds.undecided(tree))

    git(tree, "reset", "--quiet", "--soft", before)
    assert [] == [line for line in bounds.undecided(tree) if f": {name} " in line]
    commit(tree, "both in one commit")
    assert [] == [line for line in bounds.undecided(tree) if f": {name} " in line]


def test_a_new_decision_counts_and_one_about_another_id_does_not(tree: Path) -> None:
    change(REQUIRED, "p99 <= 10 ms", "p99 <= 12 ms")(tree)
    write(tree, "docs/decisions/0002-other.md", "PERF-03 and PERF-021 may be slower.\n")
    assert 1 == len(bounds.undecided(tree))
    write(tree, "docs/decisions/0003-this.md", "PERF-02 may be slower.\n")
    assert [] == bounds.undecided(tree)
    commit(tree)
    assert [] == bounds.undecided(tree)


def test_what_is_added_needs_no_decision(tree: Path) -> None:
    change(REQUIRED, r"(\| PERF-03 \|[^|]*\|[^|]*)\|", r"\1, and 3 % of memory |")(tree)
    change(BOUNDS, r"(\| PERF-03 .*\n)", r"\1| PERF-03 | memory | at most 3 % |\n")(tree)
    commit(tree)
    assert [] == bounds.undecided(tree)


def test_a_merge_hides_no_change(tree: Path) -> None:
    """A merge of two honest branches passes; one that lowers a bound by itself does not."""
    start = git(tree, "rev-parse", "HEAD")
    change(REQUIRED, "p99 <= 10 ms", "p99 <= 12 ms")(tree)
    write(tree, DECISION, "PERF-02 may be slower still.\n")
    commit(tree)
    git(tree, "checkout", "--quiet", "-b", "aside", start)
    write(tree, "other", "")
    commit(tree)
    git(tree, "merge", "--quiet", "--no-edit", "@{-1}")
    assert [] == bounds.undecided(tree)
    change(REQUIRED, "0 to 7 days", "0 to 9 days")(tree)
    git(tree, "commit", "--quiet", "--all", "--amend", "--no-edit")
    [line] = bounds.undecided(tree)
    assert "SEC-10 has no more: 7: add a decision" in line


def test_a_page_that_comes_back_has_its_past(tree: Path) -> None:
    """The rule holds from the first commit that added the page, also if it was deleted and added again."""
    (tree / BOUNDS).unlink()
    commit(tree)
    write(tree, BOUNDS, (ROOT / BOUNDS).read_text(encoding="utf-8").replace("at most 5 ms", "at most 50 ms"))
    commit(tree)
    assert any("PERF-02 has no more" in line for line in bounds.undecided(tree))


def test_a_missing_history_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a shallow clone only its own commits are compared, and the checker says so. The work tree always is."""
    change(REQUIRED, "0 to 7 days", "0 to 9 days")(tree)
    commit(tree)
    git(tmp_path, "clone", "--quiet", "--depth=1", tree.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    assert [] == bounds.undecided(shallow)
    change(REQUIRED, "p99 <= 10 ms", "p99 <= 12 ms")(shallow)
    assert 1 == main(shallow, ["--only", "evidence"], {}, {})
    said = capfd.readouterr()
    assert "note: this clone lacks earlier commits" in said.out
    assert "what is not committed: PERF-02 has no more: 10" in said.err

    assert None is bounds.unseen(tree)
    monkeypatch.setenv("PATH", "")
    assert [] == bounds.undecided(tree)
    assert "without git" in str(bounds.unseen(tree))


def test_the_page_has_every_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of any kind that is lowered in the code changes the page, which the checker compares."""
    assert bounds.page(read(ROOT)) == (ROOT / BOUNDS).read_text(encoding="utf-8")
    bars = BENCHMARKS["PERF-07"]
    lowered = {
        "OPS-15": replace(BENCHMARKS["OPS-15"], at_most_us={"status": 2e6}),
        "DUR-01": replace(BENCHMARKS["DUR-01"], suite=BENCHMARKS["DUR-02"].suite),
        "PERF-01": replace(BENCHMARKS["PERF-01"], bars=BENCHMARKS["PERF-01"].bars[1:]),
        "PERF-07": replace(bars, soak_bars=(replace(bars.soak_bars[0], gate=1.0), *bars.soak_bars[1:])),
    }
    before = bounds.numbers("", bounds.page({}))
    monkeypatch.setattr(bounds, "BENCHMARKS", {**BENCHMARKS, **lowered})
    assert set(lowered) == set(bounds.gone(before, bounds.numbers("", bounds.page({}))))
