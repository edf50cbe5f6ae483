"""The checker finds every way in which a requirement is not proven, on a small tree; and this tree passes it."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.governance.sample_runs import a_run
from tools import records, soak
from tools.bench import results
from tools.governance import report, work_items
from tools.governance.assertions import that_assert_nothing
from tools.governance.evidence import contradictions, read
from tools.governance.report import Case, Mark, Outcome, Report
from tools.governance.requirements import Requirement, parse
from tools.governance.validate import (
    changed_since,
    impossible,
    main,
    may_skip_names,
    misnamed,
    misquoted,
    proofs,
    traceability,
    unfounded,
    unknown_commits,
    unproven_by_tests,
    unstated,
)
from tools.records import stored

pytestmark = pytest.mark.req("OPS-07", part="first-form")

ROOT = Path(__file__).parents[2]
CLAIMED = Requirement(id="SEC-03", status="claimed")
PARTIAL = Requirement(id="SEC-01", status="partial", parts=("dev", "db"))
PLANNED = Requirement(id="SEC-05", status="planned")
NOWHERE = "0" * 40


def _case(name: str, *marks: Mark, outcome: Outcome = Outcome.PASSED) -> Case:
    return Case(nodeid=f"tests/test_x.py::{name}", outcome=outcome, marks=marks)


def _judge(
    *cases: Case,
    of: tuple[Requirement, ...] = (),
    may_skip: frozenset[str] = frozenset(),
    empty: tuple[str, ...] = (),
) -> list[str]:
    return unproven_by_tests(of, Report(tree="t", cases=cases), may_skip, empty)


def test_proven_claims_are_no_problem() -> None:
    """A claimed id and every named part with a passing test, and a planned id without, are no problem."""
    cases = (
        _case("a", Mark(id="SEC-03", part="envelope"), Mark(id="SEC-01", part="dev")),
        _case("b[1]", Mark(id="SEC-01", part="db")),
        _case("c"),
    )
    either = (_case("a", Mark(id="SEC-03")), _case("b[root]", Mark(id="SEC-03"), outcome=Outcome.SKIPPED))

    assert [] == _judge(*cases, of=(CLAIMED, PARTIAL, PLANNED))
    assert [] == _judge(*either, of=(CLAIMED,), may_skip=frozenset({"tests/test_x.py::b"}))


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.XFAILED, Outcome.FAILED])
def test_only_a_pass_proves_a_claim(outcome: Outcome) -> None:
    """A claimed id whose only test was skipped, xfailed or xpassed is unproven, and so is a part without a test."""
    of_id = _judge(_case("a", Mark(id="SEC-03"), outcome=outcome), _case("b"), of=(CLAIMED,))
    of_part = _judge(_case("a", Mark(id="SEC-01", part="dev")), of=(PARTIAL,))

    assert "SEC-03: has no passing test: write one with its mark, or set its status to `planned`" in of_id
    assert ["SEC-01 (db): has no passing test: write one with its mark, or set its status to `planned`"] == of_part


@pytest.mark.parametrize(
    ("mark", "fault"),
    [
        (Mark(id="SEC-99"), "is marked SEC-99, which is not in docs/requirements.md"),
        (Mark(id="SEC-05", part="x"), "is marked SEC-05, which is `planned`"),
        (Mark(id="SEC-01"), "is marked SEC-01, but SEC-01 is partial"),
        (Mark(id="SEC-01", part="aws"), "is marked SEC-01 (aws), but SEC-01 is partial"),
    ],
)
def test_a_mark_must_fit_its_requirement(mark: Mark, fault: str) -> None:
    """A mark with an unknown or planned id, or without a named part of a partial one, is a problem."""
    proven = _case("p", Mark(id="SEC-03"), Mark(id="SEC-01", part="dev"), Mark(id="SEC-01", part="db"))
    (line,) = _judge(proven, _case("a", mark), of=(CLAIMED, PARTIAL, PLANNED))

    assert line.startswith(f"tests/test_x.py::a: {fault}")


def test_a_failure_a_silent_skip_and_an_empty_run_are_problems() -> None:
    """Even without marks."""
    failed, skipped = _judge(_case("a[3]", outcome=Outcome.FAILED), _case("b", outcome=Outcome.SKIPPED))

    assert failed == "tests/test_x.py::a[3]: failed: fix the code or the test, then run `make test`"
    assert skipped.startswith("tests/test_x.py::b: was skipped")
    assert ["the run held no test: fix the test setup, then run `make test`"] == _judge()
    assert frozenset({"tests/a.py::x"}) == may_skip_names("# a comment\n\ntests/a.py::x  needs root\n")


def test_the_pages_count_and_name_the_tests() -> None:
    """A parametrised test counts once, one that may be skipped does not; the order of the run changes nothing."""
    of = (PARTIAL, PLANNED, Requirement(id="DEL-01", status="claimed"))
    both = _case("both", Mark(id="SEC-01", part="db"), Mark(id="SEC-01", part="dev"))
    cases = (both, *(_case(name, Mark(id="SEC-01", part="db")) for name in ("b[2]", "b[1]", "m")))
    now, again = (
        {each.id: proofs(each, Report(tree="t", cases=run), {"tests/test_x.py::m"}) for each in of}
        for run in (cases, cases[::-1])
    )

    assert now == again
    assert [
        "## SEC",
        "| SEC-01 | partial | 2 | db 2, dev 1 |  |",
        "| SEC-05 | planned | 0 |  |  |",
        "## DEL",
        "| DEL-01 | claimed | 0 |  |  |",
    ] == [line for line in traceability(of, now, {}).splitlines() if line.startswith(("##", "| SEC", "| DEL"))]
    assert [
        "## SEC-01",
        "- db: `tests/test_x.py::b`",
        "- db: `tests/test_x.py::both`",
        "- dev: `tests/test_x.py::both`",
        "## SEC-05",
    ] == [
        line
        for line in work_items.pages(of, now, {}, {})["docs/WORK_ITEMS/SEC.md"].splitlines()
        if line.startswith(("##", "- "))
    ]


def test_requirements_are_read_from_their_tables() -> None:
    """Each row has an id, a status and the parts of a partial one; other tables are ignored."""
    page = "| status | means |\n|---|---|\n| SEC-01 | partial: dev, db | a | seed |\n\n| SEC-03 | claimed | a `ref` |\n"

    assert [replace(PARTIAL, text="a"), replace(CLAIMED, text="a `ref`")] == parse(page)
    for status in ("", "done", "partial", "partial:", "partial: Dev", "partial: a,b", "claimed: a"):
        with pytest.raises(ValueError, match=r"^line 1: SEC-01 must be"):
            parse(f"| SEC-01 | {status} | text | seed |\n| SEC-02 | planned | x |")
    with pytest.raises(ValueError, match=r"^SEC-01 is in more than one row$"):
        parse("| SEC-01 | planned | x |\n| SEC-01 | claimed | x |")
    with pytest.raises(ValueError, match="no row of the form"):
        parse("# Requirements\n")


def test_every_figure_of_speed_in_the_readme_is_one_of_the_record() -> None:
    """A rate or a ratio is quoted with its range in the record, and so is each row of the base case."""
    text, run = (ROOT / "README.md").read_text(encoding="utf-8"), results.read(ROOT)
    quotes = "It sent 2,000 deliveries a second: 4.00 times as many"

    assert [] == misquoted(text, run)
    assert [] == misquoted(f"{quotes}, and 0.50 times. With an older one 1,000 a second.", a_run())
    assert ["9.00 is not in docs/proof/performance.json"] == misquoted(f"{quotes}, 0.50 times, 9.00 times.", a_run())
    assert "hookseal, as installed is not quoted" in misquoted(quotes, a_run())
    assert "the first figures are not" in misquoted(f"1,000 a second. {quotes}, and 0.50 times.", a_run())[0]


def test_the_records_of_this_tree_are_of_its_history() -> None:
    """Each names commits before this one, and follows from its rounds and counts, and so do the runs that are kept."""
    found = read(ROOT)
    commits = [commit for record in found.values() if record is not None for commit in record.commits]
    runs = results.read(ROOT).runs

    assert None not in found.values()
    assert [] == [line for record in found.values() if record is not None for line in contradictions(record)]
    assert frozenset() == unknown_commits(ROOT, [*commits, *(each.commit for each in runs)])
    assert results.headline(results.read(ROOT)) == runs[-1]


def _git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always")
    return subprocess.check_output(["git", "-C", str(root), *who, *arguments], text=True).strip()


def _commit(root: Path, message: str = "x") -> str:
    _git(root, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return _git(root, "rev-parse", "HEAD")


def test_only_head_and_its_ancestors_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another branch, an absent commit and what is no commit are not; where nothing is known, none is refused."""
    (tree := tmp_path / "tree").mkdir()
    _git(tree, "init", "--quiet")
    assert {"HEAD"} == unknown_commits(tree, ["HEAD", NOWHERE])
    first, second = _commit(tree), _commit(tree)
    _git(tree, "checkout", "--quiet", "-b", "aside", first)
    aside = _commit(tree, "another")
    _git(tree, "checkout", "--quiet", "--detach", second)
    no_commit = _git(tree, "rev-parse", "HEAD^{tree}")
    _git(tmp_path, "clone", "--quiet", "--depth=1", tree.as_uri(), "shallow")
    (within := tree / "within").mkdir()

    assert {aside, NOWHERE, no_commit} == unknown_commits(tree, [first, second, aside, NOWHERE, no_commit])
    for place in (tmp_path / "shallow", within):
        assert {"--help"} == unknown_commits(place, ["--help", first, NOWHERE])
    monkeypatch.setenv("PATH", "")
    assert frozenset() == unknown_commits(tree, [NOWHERE])


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
    report.write(root / report.REPORT, Report(tree=report.identity(root), cases=(case,)))


def _run(root: Path, *arguments: str) -> int:
    return main(root, list(arguments), {"docs/settings.md": lambda: "# Settings\n"}, {})


def test_a_proven_tree_passes(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With current pages everything is proven without another test run, and the summary counts the claims."""
    written, validated = _run(root, "--write"), _run(root)

    assert "- `tests/a.py::b`\n" in (root / "docs" / "WORK_ITEMS" / "SEC.md").read_text()
    assert "| SEC-03 | claimed | 1 |  |  |" in (root / "docs" / "TRACEABILITY.md").read_text()
    assert (0, 0) == (written, validated)
    assert "validate: 1 tests prove 1 requirements (1 claimed)\n" in capfd.readouterr().out
    assert not (root / ".reports" / "was-run").exists()


def test_an_outdated_page_fails(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that is missing, or differs in one byte, is out of date, whether of the tests or of the sources."""
    missing = _run(root)
    _run(root, "--write")
    with (root / "docs" / "TRACEABILITY.md").open("a") as page:
        page.write("\n")
    differs = _run(root)
    (root / "docs" / "settings.md").write_text("# Old\n")
    _record(root)
    old = _run(root)
    errors = capfd.readouterr().err
    _run(root, "--write")

    assert (1, 1, 1) == (missing, differs, old)
    assert 3 == errors.count("docs/TRACEABILITY.md is stale: run `make docs`")
    assert "docs/settings.md is stale: run `make docs`" in errors
    assert "# Settings\n" == (root / "docs" / "settings.md").read_text()


def test_what_is_not_proven_or_not_readable_fails(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A claim without a test, a record of no id, a damaged record, a malformed row, and figures of no run."""
    (root / "docs" / "requirements.md").write_text("| SEC-03 | claimed | x |\n| SEC-02 | claimed | x |\n")
    (root / "docs" / "EVIDENCE").mkdir()
    (root / "docs" / "EVIDENCE" / "PERF-99.json").write_text("{}")
    (root / "docs" / "proof").mkdir()
    (root / "docs" / "proof" / "performance.json").write_text(stored(replace(a_run(), rows=())))
    (root / "README.md").write_text("It sent 9 deliveries a second.\n")
    _record(root)
    _run(root, "--write")
    codes = [_run(root)]

    def unreadable() -> str:
        return (root / "docs" / "none.json").read_text()

    codes.append(main(root, [], {}, {"docs/soak.md": unreadable}))
    (root / "docs" / "requirements.md").write_text("| SEC-03 | done | sealed | seed |\n")
    codes.append(_run(root))
    errors = capfd.readouterr().err

    assert [1, 1, 1] == codes
    for text in (
        "SEC-02: has no passing test",
        "docs/EVIDENCE/PERF-99.json: docs/requirements.md does not know",
        "README.md: 9 is not in docs/proof/performance.json",
        "a record cannot be read",
        "docs/requirements.md: line 1: SEC-03 must be",
    ):
        assert f"validate: {text}" in errors


def test_a_report_of_another_tree_is_not_used(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After any change the tests run again; if they write no report of this tree, it fails."""
    (root / "tests" / "new.py").write_text("")

    assert 1 == _run(root)
    assert (root / ".reports" / "was-run").exists()
    assert "validate: the test run wrote no report" in capfd.readouterr().err


@pytest.mark.req("OPS-07", part="names")
def test_a_proof_that_is_gone_fails_until_its_line_is_removed_by_hand(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`make docs` keeps the line, so nobody loses a proof without a change that a reviewer sees."""
    page = root / "docs" / "WORK_ITEMS" / "SEC.md"
    page.parent.mkdir()
    page.write_text("## SEC-03\n\n- `tests/a.py::b`\n- lost: `tests/a.py::gone`\n")
    _run(root, "--write")
    kept = _run(root)
    page.write_text(page.read_text().replace("- lost: `tests/a.py::gone`\n", ""))

    assert (1, 0) == (kept, _run(root))
    assert "docs/WORK_ITEMS/SEC.md: tests/a.py::gone proves SEC-03 (lost) no longer" in capfd.readouterr().err


@pytest.mark.req("OPS-07", part="assertions")
def test_a_test_that_asserts_nothing_proves_nothing(tmp_path: Path) -> None:
    """An empty one, a constant, and a call of what asserts nothing; a helper or pytest may assert in its place."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "helpers.py").write_text("def check(x):\n    assert x\n\ndef look(x):\n    return x\n")
    (tmp_path / "tests" / "test_x.py").write_text(
        """
import helpers
from helpers import check, look

def test_empty(): pass
def test_constant(): assert True
def test_looks(): look(1)
def test_by_helper(): check(1)
def test_by_module(): helpers.check(1)
def test_through_another(): _middle()
def _middle(): check(1)
def test_raises():
    with pytest.raises(ValueError):
        look(1)
class TestThose:
    async def test_within(self): assert look(1)
"""
    )
    names = [f"tests/test_x.py::test_{name}" for name in ("empty", "constant", "looks", "by_helper", "by_module")]
    names += [f"tests/test_x.py::{name}" for name in ("test_through_another", "test_raises", "TestThose::test_within")]

    found = that_assert_nothing(tmp_path, [*names, "tests/test_x.py::Machine::runTest"])

    assert [f"tests/test_x.py::test_{name}" for name in ("constant", "empty", "looks")] == found
    (line,) = _judge(_case("a", Mark(id="SEC-03")), of=(CLAIMED,), empty=("tests/test_x.py::a",))
    assert "tests/test_x.py::a: asserts nothing, so it cannot fail: assert what it proves" == line


@pytest.mark.req("OPS-07", part="bounds")
def test_a_bound_is_a_number_in_the_text_of_its_requirement() -> None:
    """Text and bound are two copies; so neither changes alone. All of this tree agree."""
    text = "open a record <= 25 us; resolve <= 30 us; fetch <= 500 us"
    required = Requirement(id="PERF-06", status="claimed", text=text)
    weaker = replace(required, text=text.replace("25", "250"))

    assert ([], ["25"]) == (unstated(required), unstated(weaker))
    assert ["20,000"] == unstated(Requirement(id="DUR-01", status="claimed", text="20 deliveries, 1 fault, 0 lost"))
    of_this_tree = parse((ROOT / "docs" / "requirements.md").read_text(encoding="utf-8"))
    assert [] == [f"{each.id}: {bound}" for each in of_this_tree for bound in unstated(each)]


@pytest.mark.req("OPS-07", part="changes")
def test_what_changed_since_a_record_is_said_and_stops_a_release(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only files that the record measured count."""
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "src" / "hookseal").mkdir(parents=True)
    first = _commit(tmp_path)
    record = read(ROOT)["DUR-03"]
    assert record is not None
    tools = ("tests/faults",)
    digest = records.digest_of(tmp_path, first, records.SOURCE, *tools)
    evidence = {"DUR-03": replace(record, commit=first, digest=digest, tools=tools)}
    nameless = {"DUR-03": replace(record, commit=first)}
    assert changed_since(tmp_path, nameless)[0].endswith(": nothing; it names no tools")
    (tmp_path / "other.py").write_text("")
    _git(tmp_path, "add", ".")
    _commit(tmp_path)
    before = changed_since(tmp_path, evidence)
    (tmp_path / "src" / "hookseal" / "a.py").write_text("a\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "requirements.md").write_text("| DUR-03 | claimed | 40,000 deliveries, 2 faults, 0 lost |\n")
    (tmp_path / "docs" / "EVIDENCE").mkdir()
    (tmp_path / "docs" / "EVIDENCE" / "DUR-03.json").write_text(stored(evidence["DUR-03"]))
    _git(tmp_path, "add", ".")
    _commit(tmp_path)
    codes = [main(tmp_path, ["--only", "evidence", *more], {}, {}) for more in ([], ["--unchanged"])]
    said = capfd.readouterr()

    assert [f"DUR-03: measured at {first[:12]}; changed since in src/hookseal: nothing"] == before
    assert [0, 1] == codes
    changed = "changed since in src/hookseal: 1 file changed, 1 insertion(+)"
    assert changed in said.out
    assert f"{changed}: measure again by `make test-faults" in said.err


@pytest.mark.req("OPS-07", part="digests")
def test_a_record_whose_commit_was_edited_is_found(tmp_path: Path) -> None:
    """A record names the digest of what it measured; set to a newer commit by hand, it has other files."""
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "src" / "hookseal").mkdir(parents=True)
    (tmp_path / "src" / "hookseal" / "a.py").write_text("a\n")
    _git(tmp_path, "add", ".")
    first = _commit(tmp_path)
    (tmp_path / "src" / "hookseal" / "a.py").write_text("b\n")
    _git(tmp_path, "commit", "--quiet", "--all", "--message=y")
    record = read(ROOT)["DUR-03"]
    assert record is not None
    honest = replace(record, commit=first, digest=records.digest_of(tmp_path, first, records.SOURCE))
    edited = replace(honest, commit=_git(tmp_path, "rev-parse", "HEAD"))

    assert [] == misnamed(tmp_path, {"DUR-03": honest})
    (line,) = misnamed(tmp_path, {"DUR-03": edited})
    assert line.startswith("docs/EVIDENCE/DUR-03.json: the files that it measured are not those of its commit: run")
    assert [] == misnamed(ROOT, read(ROOT))
    (line,) = misnamed(tmp_path, {"DUR-03": replace(honest, digest=None)})
    assert "the files that it measured are not those of its commit" in line


@pytest.mark.req("OPS-07", part="digests")
def test_a_record_names_the_tools_that_measured_it(tmp_path: Path) -> None:
    """A record of a commit whose runs name them may not leave them out, nor name others."""
    _git(tmp_path, "init", "--quiet")
    for name in ("src/hookseal/a.py", "tests/faults/a.py", "tools/governance/evidence.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("tools: tuple[str, ...] = ()\n")
    _git(tmp_path, "add", ".")
    commit = _commit(tmp_path)
    record = read(ROOT)["DUR-03"]
    assert record is not None

    def of(*tools: str) -> list[str]:
        digest = records.digest_of(tmp_path, commit, records.SOURCE, *tools)
        return misnamed(tmp_path, {"DUR-03": replace(record, commit=commit, digest=digest, tools=tools)})

    assert [] == of("tests/faults")
    lacking = "docs/EVIDENCE/DUR-03.json: it does not name the tools that measured it (tests/faults): run `make test-"
    assert all(line.startswith(lacking) for line in (*of(), *of("tools/other")))
    assert 2 == len([*of(), *of("tools/other")])


@pytest.mark.req("OPS-07", part="digests")
def test_a_quoted_figure_follows_from_the_rounds_of_its_run(tmp_path: Path) -> None:
    """A figure of the run, or of an earlier one, that is not that of its rounds is found; an earlier one by git."""
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "docs" / "proof").mkdir(parents=True)

    def told(run: results.Run) -> list[str]:
        (tmp_path / results.RESULTS).write_text(stored(run))
        return unfounded(tmp_path, run)

    first = results.kept(replace(a_run(), commit="1" * 40), None)
    assert [] == told(first)
    _git(tmp_path, "add", ".")
    _commit(tmp_path)
    second = results.kept(replace(a_run(), commit="2" * 40), first)
    assert ["1" * 40, "2" * 40] == [each.commit for each in second.runs]
    assert [] == told(second)
    for number in (0, 1):
        faster = {name: {of: 2 * value for of, value in each.items()} for name, each in second.runs[0].figures.items()}
        runs = list(second.runs)
        runs[number] = replace(runs[number], figures=faster)
        (line,) = told(replace(second, runs=tuple(runs)))
        assert f"the figures of the run of {runs[number].commit[:12]} do not follow from its rounds" in line
    (line,) = told(replace(second, runs=(replace(first.runs[0], commit=NOWHERE), second.runs[1])))
    assert f"of the run of {NOWHERE[:12]} do not follow" in line
    assert [] == unfounded(ROOT, results.read(ROOT))


def _faster(run: results.Run) -> results.Run:
    def of(row: results.Row) -> results.Row:
        return replace(row, rounds=tuple(replace(each, seconds=each.seconds / 3) for each in row.rounds))

    return replace(run, rows=tuple(map(of, run.rows)))


@pytest.mark.req("OPS-07", part="digests")
@pytest.mark.parametrize(
    ("told", "named"),
    [
        (_faster, "used more CPU than the machine has"),
        (lambda run: replace(run, rows=run.rows * 3), "its rounds took longer than the run"),
    ],
)
def test_rounds_that_no_run_can_have_made_are_found(told: Callable[[results.Run], results.Run], named: str) -> None:
    """Those of the stored run are possible; three times as fast with the same CPU, or three times as many, are not."""
    run = results.read(ROOT)
    assert [] == impossible(run, None)
    assert named in "\n".join(impossible(told(run), None))


@pytest.mark.req("OPS-07", part="digests")
@pytest.mark.parametrize("field", ["delivered", "removed", "vacuums", "seconds"])
def test_samples_that_no_soak_can_have_made_are_found(field: str) -> None:
    """Each counts on, and delivers no more than was published; one sample that was swapped with another is named."""
    run, soaked = results.read(ROOT), soak.read(ROOT)
    assert [] == impossible(run, soaked)
    samples = list(soaked.samples)
    samples[5] = replace(samples[5], **{field: getattr(soaked.last, field) + 1})
    lines = impossible(run, replace(soaked, samples=tuple(samples)))
    assert any(line.startswith("docs/proof/soak.json: its sample at ") for line in lines)
