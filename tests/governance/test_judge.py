"""The judgement finds every way in which a requirement is not proven."""

import pytest

from tools.governance.judge import problems, proofs
from tools.governance.page import render, render_list
from tools.governance.report import Case, Mark, Outcome, Report
from tools.governance.requirements import Requirement, Status
from tools.governance.validate import may_skip_names

pytestmark = pytest.mark.req("OPS-07", part="first-form")

CLAIMED = Requirement(id="SEC-03", status=Status.CLAIMED)
PARTIAL = Requirement(id="SEC-01", status=Status.PARTIAL, parts=("dev", "db"))
PLANNED = Requirement(id="SEC-05", status=Status.PLANNED)


def _case(name: str, *marks: Mark, outcome: Outcome = Outcome.PASSED) -> Case:
    return Case(nodeid=f"tests/test_x.py::{name}", outcome=outcome, marks=marks)


def _judge(*cases: Case, of: tuple[Requirement, ...] = (), may_skip: frozenset[str] = frozenset()) -> list[str]:
    return problems(of, Report(tree="t", cases=cases), may_skip, {})


def test_proven_claims_are_no_problem() -> None:
    """A claimed id and every named part with a passing test, and a planned id without, are no problem."""
    cases = (
        _case("a", Mark(id="SEC-03"), Mark(id="SEC-01", part="dev")),
        _case("b[1]", Mark(id="SEC-01", part="db")),
        _case("c"),
    )

    assert [] == _judge(*cases, of=(CLAIMED, PARTIAL, PLANNED))


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.XFAILED, Outcome.FAILED])
def test_only_a_pass_proves_a_claim(outcome: Outcome) -> None:
    """A claimed id whose only test was skipped, xfailed or xpassed is unproven."""
    found = _judge(_case("a", Mark(id="SEC-03"), outcome=outcome), _case("b"), of=(CLAIMED,))

    assert "SEC-03: has no passing test: write one with its mark, or set its status to `planned`" in found


def test_one_pass_beside_an_allowed_skip_is_enough() -> None:
    """A claim with one passing and one skipped test, which may be skipped, is proven."""
    cases = (_case("a", Mark(id="SEC-03")), _case("b[root]", Mark(id="SEC-03"), outcome=Outcome.SKIPPED))

    assert [] == _judge(*cases, of=(CLAIMED,), may_skip=frozenset({"tests/test_x.py::b"}))


def test_every_named_part_needs_a_test() -> None:
    """A part that no passing test proves is reported."""
    expected = ["SEC-01 (db): has no passing test: write one with its mark, or set its status to `planned`"]

    assert expected == _judge(_case("a", Mark(id="SEC-01", part="dev")), of=(PARTIAL,))


@pytest.mark.parametrize(
    ("mark", "fault"),
    [
        (Mark(id="SEC-99"), "is marked SEC-99, which is not in docs/requirements.md"),
        (Mark(id="SEC-05"), "is marked SEC-05, which is `planned`"),
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


def test_a_claim_is_proven_in_parts_too() -> None:
    """A mark of a claimed id may name the part that the test proves."""
    assert [] == _judge(_case("a", Mark(id="SEC-03", part="envelope")), of=(CLAIMED,))


def test_every_failed_test_is_a_problem() -> None:
    """A failed test is a problem even without marks."""
    found = _judge(_case("a[3]", outcome=Outcome.FAILED), _case("b"))

    assert ["tests/test_x.py::a[3]: failed: fix the code or the test, then run `make test`"] == found


def test_an_unlisted_skip_is_a_problem() -> None:
    """A skipped test that is not in the list of allowed skips is a problem."""
    (line,) = _judge(_case("a", outcome=Outcome.SKIPPED), _case("b"))

    assert line.startswith("tests/test_x.py::a: was skipped")


def test_a_run_without_tests_is_a_problem() -> None:
    """An empty run proves nothing."""
    assert ["the run held no test: fix the test setup, then run `make test`"] == _judge()


def test_a_parametrised_test_is_one_proof() -> None:
    """Tests are listed once, without values, in a fixed order; those that may be skipped elsewhere are not."""
    marks = Mark(id="SEC-03")
    cases = (_case("z[2]", marks), _case("z[1]", marks), _case("a", marks), _case("m", marks))

    found = proofs(CLAIMED, Report(tree="t", cases=cases), frozenset({"tests/test_x.py::m"}), {})

    assert [(None, "tests/test_x.py::a"), (None, "tests/test_x.py::z")] == found


def test_the_page_counts_tests_and_parts() -> None:
    """The page has one row an id, with its status, how many tests prove it and each part of it, and its record."""
    both = _case("both", Mark(id="SEC-01", part="db"), Mark(id="SEC-01", part="dev"))
    cases = (both, _case("b[2]", Mark(id="SEC-01", part="db")), _case("b[1]", Mark(id="SEC-01", part="db")))
    requirements = (PARTIAL, PLANNED, Requirement(id="DEL-01", status=Status.CLAIMED))

    page = render(requirements, Report(tree="t", cases=cases), frozenset(), {})

    assert page == render(requirements, Report(tree="u", cases=cases[::-1]), frozenset(), {})
    assert [
        "## SEC",
        "| SEC-01 | partial | 2 | db 2, dev 1 |  |",
        "| SEC-05 | planned | 0 |  |  |",
        "## DEL",
        "| DEL-01 | claimed | 0 |  |  |",
    ] == [line for line in page.splitlines() if line.startswith(("##", "| SEC", "| DEL"))]


def test_the_list_names_status_part_and_proof() -> None:
    """The list has one row a proof, a bare row where there is none, and does not depend on the order of the run."""
    cases = (_case("b", Mark(id="SEC-01", part="db")), _case("a", Mark(id="SEC-01", part="dev")))
    requirements = (PARTIAL, PLANNED, Requirement(id="DEL-01", status=Status.CLAIMED))

    listed = render_list(requirements, Report(tree="t", cases=cases), frozenset(), {})

    assert listed == render_list(requirements, Report(tree="u", cases=cases[::-1]), frozenset(), {})
    assert [
        "| SEC-01 | partial | db | `tests/test_x.py::b` |",
        "| SEC-01 | partial | dev | `tests/test_x.py::a` |",
        "| SEC-05 | planned | | |",
        "| DEL-01 | claimed | | |",
    ] == [line for line in listed.splitlines() if line.startswith(("| SEC", "| DEL"))]


def test_the_list_of_skips_holds_names_and_reasons() -> None:
    """The first word of each line is a test that may be skipped; comments and empty lines are ignored."""
    assert frozenset({"tests/a.py::x"}) == may_skip_names("# a comment\n\ntests/a.py::x  needs root\n")
