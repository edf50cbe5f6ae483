"""The records of benchmarks: what a run writes, and every reason why one does not prove a claim."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.governance.sample_runs import a_sample, a_soak
from tools import records, soak
from tools.bench import results
from tools.bench.plan import LISTEN, RING, SQL
from tools.bench_secrets import PROVES
from tools.governance.evidence import (
    BENCHMARKS,
    Evidence,
    Figure,
    Machine,
    Record,
    figure,
    misses,
    place,
    read,
    record_of,
    write,
)
from tools.governance.report import Case, Mark, Outcome, Report
from tools.governance.requirements import Requirement
from tools.governance.validate import proofs, recorded, traceability, unproven_by_records, unproven_by_tests
from tools.soak import Soak

pytestmark = pytest.mark.req("OPS-07", part="first-form")

CLAIMED = Requirement(id="PERF-06", status="claimed")
PLANNED = Requirement(id="PERF-06", status="planned")
COMMAND = BENCHMARKS["PERF-06"].command
RUN = Report(tree="t", cases=(Case(nodeid="tests/test_x.py::a", outcome=Outcome.PASSED),))


def _figures(**us: float) -> dict[str, Figure]:
    """Return figures that meet every bound exactly, except for the given ones."""
    microseconds = {**BENCHMARKS["PERF-06"].at_most_us, **us}
    return {name: figure([value, value - 1, value + 1], [2.0, 2.0, 2.0]) for name, value in microseconds.items()}


def _record(**us: float) -> Record:
    figures = _figures(**us)
    machine = Machine(cpu="a processor", cpus=2, python="3.12.1")
    is_met = not misses("PERF-06", figures)
    return Record(id="PERF-06", commit="c" * 40, is_dirty=False, machine=machine, figures=figures, is_met=is_met)


def _judge(evidence: Evidence, of: Requirement = CLAIMED) -> list[str]:
    return unproven_by_records((of,), evidence)


def test_a_claim_whose_record_meets_its_bounds_is_proven() -> None:
    """A figure equal to its bound meets it, and the page names the record as the proof."""
    evidence = {"PERF-06": _record()}

    assert [] == _judge(evidence)
    assert ("docs/EVIDENCE/PERF-06.json",) == recorded(CLAIMED, evidence)
    page = traceability((CLAIMED,), {"PERF-06": []}, evidence)
    assert "| PERF-06 | claimed | 0 |  | `docs/EVIDENCE/PERF-06.json` |" in page


@pytest.mark.parametrize("name", BENCHMARKS["PERF-06"].at_most_us)
def test_a_claim_whose_record_misses_one_bound_is_unproven(name: str) -> None:
    """For any missed bound the line gives the figure, and the page names no proof."""
    evidence = {"PERF-06": _record(**{name: 500.5})}
    (line,) = _judge(evidence)

    assert line.startswith(f"PERF-06: {name} took 500.5 us, ")
    assert () == recorded(CLAIMED, evidence)


def test_a_bound_that_was_not_measured_is_missed() -> None:
    """A record without a required figure proves nothing."""
    lacking = _record()
    del lacking.figures["open"]
    found = _judge({"PERF-06": replace(lacking, is_met=False)})

    assert ["PERF-06: open was not measured"] == [line[: len("PERF-06: open was not measured")] for line in found]


def test_a_record_of_no_commit_proves_nothing() -> None:
    """A measurement with uncommitted changes cannot be repeated."""
    found = _judge({"PERF-06": replace(_record(), is_dirty=True)})

    assert [f"PERF-06: its record has uncommitted changes: commit first, then run `{COMMAND}`"] == found


@pytest.mark.parametrize("status", [CLAIMED, PLANNED])
def test_a_record_of_another_history_is_unsound(status: Requirement) -> None:
    """A record of a commit outside the history of this tree cannot be repeated, even if nothing is claimed."""
    found = unproven_by_records((status,), {"PERF-06": _record()}, unknown={"c" * 40})

    message = "its commit is not in the history of this tree, so the measurement cannot be repeated"
    assert [f"docs/EVIDENCE/PERF-06.json: {message}: run `{COMMAND}`"] == found


@pytest.mark.parametrize("status", [CLAIMED, PLANNED])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: replace(r, is_met=not r.is_met), "its verdict does not follow from its figures and the bounds"),
        (lambda r: _with(r, us=1.0), "its figure open does not follow from its rounds"),
        (lambda r: _with(r, baseline_us=1.0), "its figure open does not follow from its rounds"),
        (lambda r: _with(r, ratio=1.0), "its figure open does not follow from its rounds"),
        (lambda r: _with(r, rounds_us=(9.0, 9.0, 9.0)), "its figure open does not follow from its rounds"),
        (lambda r: _with(r, rounds_us=(25.0,)), "its figure open does not have rounds of both sides"),
        (lambda r: _with(r, rounds_us=(), baseline_rounds_us=()), "its figure open does not have rounds of both sides"),
        (lambda r: _with(r, rounds_us=(25.0, 0.0, 26.0)), "its figure open does not have rounds of both sides"),
    ],
)
def test_a_record_that_was_edited_contradicts_itself(
    edit: Callable[[Record], Record], message: str, status: Requirement
) -> None:
    """A figure, a ratio, a round or a verdict that was edited by hand is found, even if nothing is claimed."""
    assert f"docs/EVIDENCE/PERF-06.json: {message}: run `{COMMAND}`" in _judge({"PERF-06": edit(_record())}, status)


def _with(record: Record, **changes: Any) -> Record:
    return replace(record, figures={**record.figures, "open": replace(record.figures["open"], **changes)})


def test_a_record_that_met_an_older_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are in the code: after one is tightened, a record that met the old one is invalid."""
    record = _record()
    tighter = replace(BENCHMARKS["PERF-06"], at_most_us={"open": 24.9})
    monkeypatch.setattr("tools.governance.evidence.BENCHMARKS", {"PERF-06": tighter})

    assert 2 == len(_judge({"PERF-06": record}))


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("PERF-99", _record(), "docs/EVIDENCE/PERF-99.json: docs/requirements.md does not know PERF-99: remove"),
        ("SEC-03", _record(), "docs/EVIDENCE/SEC-03.json: no benchmark writes a record of SEC-03: remove"),
        ("PERF-06", None, "docs/EVIDENCE/PERF-06.json: is not a valid record of PERF-06: run"),
        (
            "PERF-06",
            replace(_record(), id="PERF-01"),
            "docs/EVIDENCE/PERF-06.json: is not a valid record of PERF-06: run",
        ),
    ],
)
def test_a_record_that_nothing_can_be_held_to_is_a_problem(name: str, record: Record | None, message: str) -> None:
    """A record of an unknown id, an id without a benchmark, another id, or another form."""
    known = (PLANNED, Requirement(id="SEC-03", status="planned"))
    (line,) = unproven_by_records(known, {name: record})

    assert line.startswith(message)


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        (Requirement(id="PERF-99", status="claimed"), "PERF-99: has no benchmark that writes a record"),
        (Requirement(id="PERF-06", status="partial", parts=("open",)), "PERF-06: a benchmark's record proves all"),
    ],
)
def test_a_speed_is_claimed_whole_and_only_where_it_is_measured(requirement: Requirement, message: str) -> None:
    """A claimed id without a benchmark, and a part of a measured one, are problems."""
    (line,) = _judge({"PERF-06": _record()} if requirement.parts else {}, requirement)

    assert line.startswith(message)


def test_a_speed_is_not_claimed_by_a_test() -> None:
    """A test that is marked with a PERF id is a problem, and the page does not name it."""
    case = Case(nodeid="tests/test_x.py::a", outcome=Outcome.PASSED, marks=(Mark(id="PERF-06"),))
    run = Report(tree="t", cases=(case,))
    found = unproven_by_tests((CLAIMED,), run, frozenset())

    assert [
        "tests/test_x.py::a: is marked PERF-06, which only the record of a benchmark proves: remove the mark"
    ] == found
    assert [] == proofs(CLAIMED, run, frozenset())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Writing and reading are inverse, and a newer record replaces the older one."""
    write(tmp_path, _record(open=99.0))
    write(tmp_path, _record())

    assert {"PERF-06": _record()} == read(tmp_path)
    assert (tmp_path / "docs" / "EVIDENCE" / "PERF-06.json").read_text().endswith("}\n")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": "PERF-06", "commit": 1}', '{"id": "PERF-06", "is_met": "'])
def test_a_record_of_another_form_is_none(tmp_path: Path, content: str) -> None:
    """A truncated or foreign file is found, but is not a record."""
    write(tmp_path, _record())
    (tmp_path / place("PERF-06")).write_text(content)

    assert {"PERF-06": None} == read(tmp_path)


def _stored_run(root: Path, command: str = "make bench", **figures: float) -> None:
    """Store a run of a benchmark with the figures of PERF-02 and PERF-07 at their bounds, except for the given ones."""
    machine = records.Machine(
        cpu="a processor", cpus=2, memory_mb=1, kernel="Linux", python="3.12.1", postgresql="18", redis="8"
    )
    latency = {RING: {"p50_ms": 5.0, "p99_ms": 10.0}, SQL: {"p99_ms": 150.0}, LISTEN: {"p99_ms": 20.0}}
    idle = {"worker_cpu_percent": 0.6, "redis_commands_per_second": 5.0, "statements_per_second": 8.0, **figures}
    memory = {"memory-1kb": {"rest_mb": 100.0, "most_mb": 150.0}, "memory-256kb": {"most_mb": 200.0}}
    rows = [("latency-20", how, found) for how, found in latency.items()] + [("idle", "hookseal", idle)]
    rows += [("latency-half", RING, {"p50_ms": 15.0, "p99_ms": 60.0})]
    rows += [(scenario, "hookseal", found) for scenario, found in memory.items()]
    run = results.Run(
        commit="c" * 40,
        is_dirty=False,
        date="2026-01-31 12:00 UTC",
        command=command,
        is_quick=False,
        seconds=1.0,
        machine=machine,
        settings={},
        bodies="",
        versions={},
        rows=tuple(
            results.Row(scenario=scenario, contender=contender, rounds=(results.Round(figures=found),))
            for scenario, contender, found in rows
        ),
        left_out=(),
        titles={},
        conditions="",
    )
    records.write(root, {results.RESULTS: records.stored(run)})


def _problems(root: Path, claimed: str) -> list[str]:
    """Return the problems of this tree if one id with bars is claimed."""
    with_bars = [name for name, held_to in BENCHMARKS.items() if held_to.bars]
    status = {name: "claimed" if name == claimed else "planned" for name in with_bars}
    known = [Requirement(id=name, status=status[name]) for name in with_bars]
    return unproven_by_records(known, read(root))


def test_a_stored_run_of_the_benchmark_is_a_record(tmp_path: Path) -> None:
    """It proves an id whose bars it meets exactly, and no other one."""
    _stored_run(tmp_path)
    claimed = Requirement(id="PERF-02", status="claimed")

    assert [] == _problems(tmp_path, "PERF-02")
    assert ("docs/proof/performance.json",) == recorded(claimed, read(tmp_path))
    (line, *_) = _problems(tmp_path, "PERF-03")
    assert line.startswith("PERF-03: 400 hung, worker was not measured: make it faster, then run `make bench`, or")

    dirty = replace(results.read(tmp_path), is_dirty=True)
    records.write(tmp_path, {results.RESULTS: records.stored(dirty)})
    assert "PERF-02: its record has uncommitted changes: " in _problems(tmp_path, "PERF-02")[0]


@pytest.mark.parametrize(
    ("command", "redis", "message"),
    [
        ("make bench", 5.5, "PERF-02: idle, Redis: 5.5 /s, at most 5 is allowed: "),
        ("make bench ARGS='--quick'", 1.0, "PERF-02: 20/s by ring, p50 was not measured: "),
    ],
)
def test_a_run_that_misses_a_bar_proves_nothing(tmp_path: Path, command: str, redis: float, message: str) -> None:
    """A claim needs each of its bars, measured by a whole run."""
    _stored_run(tmp_path, command, redis_commands_per_second=redis)
    (line, *_) = _problems(tmp_path, "PERF-02")

    assert line.startswith(message)


SOAK = replace(
    a_soak(*(replace(a_sample(number), delivered=5_500 * number) for number in range(1, 361))), command="make soak"
)


def _grown(mb: float) -> Soak:
    """Return a soak whose worker has that much more memory in the last minutes."""
    *before, last = SOAK.samples
    return replace(SOAK, samples=(*before, replace(last, worker_mb=last.worker_mb + mb)))


@pytest.mark.parametrize(
    ("soaked", "message"),
    [
        (None, "length of the soak was not measured: fix what it found, then run `make bench soak`"),
        (replace(SOAK, command="make soak ARGS='--per-second 600'"), "length of the soak was not measured: "),
        (replace(SOAK, samples=SOAK.samples[:13]), "length of the soak was not measured: "),
        (_grown(-90.0), "length of the soak was not measured: "),
        (replace(SOAK, is_dirty=True), "its record has uncommitted changes: "),
        (replace(SOAK, samples=SOAK.samples[:-1]), "length of the soak: 59.83 minutes, at least 60 is required: "),
        (
            replace(SOAK, samples=(*SOAK.samples[:-1], replace(SOAK.last, delivered=1_979_999))),
            "number of deliveries in the soak: 1,979,999, at least 1,980,000 is required: ",
        ),
        (_grown(5.0), "memory in the soak, last third to the first: 1.056 x, at most 1.05 is allowed: "),
    ],
)
def test_a_whole_soak_is_a_part_of_the_record(tmp_path: Path, soaked: Soak | None, message: str) -> None:
    """PERF-07 needs a soak of an hour, too, in which the memory of the worker did not grow."""
    _stored_run(tmp_path)
    if soaked is not None:
        records.write(tmp_path, {soak.RECORD: records.stored(soaked)})
    (line, *_) = _problems(tmp_path, "PERF-07")

    assert line.startswith(f"PERF-07: {message}")
    assert [] == _problems(tmp_path, "PERF-02")  # it needs no soak


def test_a_run_and_a_soak_are_one_record(tmp_path: Path) -> None:
    """Both files are named as the proof, and each commit must be in the history."""
    _stored_run(tmp_path)
    records.write(tmp_path, {soak.RECORD: records.stored(SOAK)})
    claimed = Requirement(id="PERF-07", status="claimed")
    found = {"PERF-07": read(tmp_path)["PERF-07"]}
    [lost] = unproven_by_records((claimed,), found, unknown={SOAK.commit})

    assert [] == _problems(tmp_path, "PERF-07")
    assert ("docs/proof/performance.json", "docs/proof/soak.json") == recorded(claimed, found)
    assert "commit is not in the history" in lost


def test_a_stored_soak_of_another_form_is_no_record(tmp_path: Path) -> None:
    """It proves nothing, whatever the stored run has; what needs no soak is proven."""
    _stored_run(tmp_path)
    (tmp_path / soak.RECORD).write_bytes(b"\xff")

    assert "docs/proof/performance.json and docs/proof/soak.json: is not a valid record of PERF-07" in str(
        _problems(tmp_path, "PERF-07")
    )
    assert read(tmp_path)["PERF-02"] is not None


def test_a_stored_run_of_another_form_is_no_record(tmp_path: Path) -> None:
    """The line says which command writes a valid one."""
    (tmp_path / results.RESULTS).parent.mkdir(parents=True)
    (tmp_path / results.RESULTS).write_text("{}")
    found = _problems(tmp_path, "PERF-02")

    assert "docs/proof/performance.json: is not a valid record of PERF-02: run `make bench`" in found


def test_a_record_names_commit_and_machine_and_nothing_private(tmp_path: Path) -> None:
    """A changed file makes it dirty, except records and generated pages. It has no path and no host name."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", "-C", str(tmp_path), *who, *arguments], text=True).strip()

    git("init", "--quiet")
    (tmp_path / "code.py").write_text("")
    git("add", ".")
    git("commit", "--quiet", "--message=x")
    clean = record_of(tmp_path, PROVES, _figures())
    write(tmp_path, clean)
    (tmp_path / "docs" / "TRACEABILITY.md").write_text("")
    (tmp_path / "docs" / "proof").mkdir()
    (tmp_path / soak.RECORD).write_text("")
    (tmp_path / "docs" / "scaling.md").write_text("")
    again = record_of(tmp_path, PROVES, _figures())
    (tmp_path / "docs" / "new.md").write_text("")

    assert clean == again
    assert (git("rev-parse", "HEAD"), False, True) == (clean.commit, clean.is_dirty, clean.is_met)
    assert record_of(tmp_path, PROVES, _figures()).is_dirty
    stored = json.loads((tmp_path / place(PROVES)).read_text())
    results_of = {"figures", "is_met", "counts", "measured"}
    of_tree = {"commit", "soak_commit", "digest", "soak_digest", "tools", "soak_tools", "is_dirty"}
    assert {"id", "machine", *of_tree, *results_of} == stored.keys()
    assert {"cpu", "cpus", "python"} == stored["machine"].keys()
    assert "/" not in json.dumps(stored["machine"])


def test_a_figure_outside_perf_needs_tests_and_a_record() -> None:
    """An id of another group with a benchmark needs both its tests and its record."""
    claimed = Requirement(id="SEC-05", status="claimed")
    bound = BENCHMARKS["SEC-05"].at_most_us["rewrap"]
    command = BENCHMARKS["SEC-05"].command
    figures = {"rewrap": figure([bound] * 3, [40.0] * 3)}
    record = replace(_record(), id="SEC-05", figures=figures, is_met=True)
    slower = replace(record, figures={"rewrap": figure([bound + 1] * 3, [40.0] * 3)}, is_met=False)
    tested = Case(nodeid="tests/test_x.py::a", outcome=Outcome.PASSED, marks=(Mark(id="SEC-05", part=None),))
    with_test = Report(tree="t", cases=(tested,))

    assert [] == unproven_by_records((claimed,), {"SEC-05": record}) + unproven_by_tests((claimed,), with_test, ())
    assert ("docs/EVIDENCE/SEC-05.json",) == recorded(claimed, {"SEC-05": record})
    assert [(None, "tests/test_x.py::a")] == proofs(claimed, with_test, ())
    [lacking] = unproven_by_records((claimed,), {})
    assert lacking == f"SEC-05: has no record: run `{command}`, or set its status to `planned`"
    [missed] = unproven_by_records((claimed,), {"SEC-05": slower})
    assert missed.startswith("SEC-05: rewrap took 101 us, at most 100 us are allowed")
    [untested] = unproven_by_tests((claimed,), RUN, ())
    assert untested.startswith("SEC-05: has no passing test")


SUITE = BENCHMARKS["DUR-03"].suite
SURVIVED = Requirement(id="DUR-03", status="claimed")


def _counted(**changes: int) -> Record:
    """Return the record of a suite that meets its bounds exactly, except for the given counts of its first scenario."""
    assert SUITE is not None
    first, *others = SUITE.scenarios
    whole = {**SUITE.at_least, "requests": SUITE.at_least["deliveries"], **SUITE.at_most, **changes}
    counts = {first: whole, **{scenario: {"deliveries": 0, "requests": 0} for scenario in others}}
    is_met = not misses("DUR-03", {}, counts)
    return replace(_record(), id="DUR-03", figures={}, counts=counts, is_met=is_met)


def _survived(record: Record) -> list[str]:
    return unproven_by_records((SURVIVED,), {"DUR-03": record})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (_counted(lost=1), "DUR-03: 1 lost, at most 0 are allowed: fix what it found, then run `make test-faults"),
        (_counted(deliveries=39_999), "DUR-03: 39999 deliveries, at least 40000 are required: fix"),
        (replace(_counted(), counts={"killed": _counted().counts["killed"]}, is_met=False), "DUR-03: killed-at-each-"),
        (replace(_counted(), counts={}, is_met=False), "DUR-03: killed was not run"),
        (
            replace(_counted(lost=1), is_met=True),
            "docs/EVIDENCE/DUR-03.json: its verdict does not follow from its figures",
        ),
        (_counted(requests=7), "docs/EVIDENCE/DUR-03.json: its scenario killed has impossible counts"),
        (_counted(unknown=-1), "docs/EVIDENCE/DUR-03.json: its scenario killed has impossible counts"),
    ],
)
def test_a_suite_that_missed_a_bound_is_found(record: Record, message: str) -> None:
    """A lost delivery, too few of them, a missing scenario, and an edited count."""
    assert [] != [line for line in _survived(record) if line.startswith(message)]
