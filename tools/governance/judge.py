"""The judgement: which requirements are not proven by a test run and the records of benchmarks.

Pure functions; no file is read here.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final, assert_never

from tools.governance.benchmarks import BENCHMARKS, GROUP
from tools.governance.evidence import Evidence, Record, contradictions, misses, places
from tools.governance.report import Case, Mark, Outcome, Report
from tools.governance.requirements import Requirement, Status

_NOT_IN_HISTORY: Final = "its commit is not in the history of this tree, so the measurement cannot be repeated"
_UNPROVEN: Final = "has no passing test: write one with its mark, or set its status to `planned`"


def problems(
    requirements: Sequence[Requirement],
    report: Report,
    may_skip: Collection[str],
    evidence: Evidence,
    *,
    unknown: Collection[str] = frozenset(),
) -> list[str]:
    """Return one line for every problem, which says who must do what; none if everything is proven.

    `unknown` are the commits that are not in the history of this tree.
    """
    known = {requirement.id: requirement for requirement in requirements}
    found = [
        *_failures(report),
        *_silent_skips(report, may_skip),
        *(f"{case.name}: {fault}" for case, mark in _marked(report) if (fault := _fault(mark, known.get(mark.id)))),
        *(
            f"{' and '.join(places(name))}: {fault}"
            for name, of in evidence.items()
            for fault in _unsound(name, of, known, unknown)
        ),
        *(line for requirement in requirements for line in _unproven(requirement, report, evidence)),
    ]
    return list(dict.fromkeys(found))


def proofs(
    requirement: Requirement, report: Report, may_skip: Collection[str], evidence: Evidence
) -> list[tuple[str | None, str]]:
    """Return (part, test) for every test that proves a part of the requirement on any machine, in a fixed order.

    For a requirement with a benchmark the record takes the place of tests, or is added to them in another group than
    PERF.
    """
    recorded: list[tuple[str | None, str]] = []
    is_recorded = requirement.id in BENCHMARKS and requirement.status is Status.CLAIMED
    if is_recorded and not list(_unproven(requirement, report, evidence)):
        recorded = [(None, each) for each in places(requirement.id)]
    if requirement.group == GROUP:
        return recorded
    return recorded + sorted(
        {
            (mark.part, case.name)
            for case, mark in _marked(report)
            if mark.id == requirement.id and case.outcome is Outcome.PASSED and case.name not in may_skip
        },
        key=lambda proof: (proof[0] or "", proof[1]),
    )


def _failures(report: Report) -> Iterator[str]:
    if not report.cases:
        yield "the run held no test: fix the test setup, then run `make test`"
    for case in report.cases:
        if case.outcome is Outcome.FAILED:
            yield f"{case.nodeid}: failed: fix the code or the test, then run `make test`"


def _silent_skips(report: Report, may_skip: Collection[str]) -> Iterator[str]:
    for case in report.cases:
        if case.outcome is Outcome.SKIPPED and case.name not in may_skip:
            yield (
                f"{case.name}: was skipped: make it run here, or, if it may be skipped on some machines, "
                "name it with its reason in tests/may_skip.txt"
            )


def _marked(report: Report) -> Iterator[tuple[Case, Mark]]:
    return ((case, mark) for case in report.cases for mark in case.marks)


def _fault(mark: Mark, requirement: Requirement | None) -> str | None:
    """Return what is wrong with a mark, or None."""
    if requirement is None:
        return f"is marked {mark.id}, which is not in docs/requirements.md: correct the mark"
    if requirement.group == GROUP:
        return f"is marked {mark.id}, which only the record of a benchmark proves: remove the mark"
    match requirement.status:
        case Status.PLANNED:
            return (
                f"is marked {mark.id}, which is `planned`: set its status in docs/requirements.md to `claimed`, "
                "or to `partial: ...` naming the part, or remove the mark"
            )
        case Status.PARTIAL if mark.part not in requirement.parts:
            named = ", ".join(requirement.parts)
            return f"is marked {mark}, but {mark.id} is partial ({named}): mark a part, or name the new one there"
        case Status.PARTIAL | Status.CLAIMED:
            return None
        case _ as never:
            assert_never(never)


def _unsound(name: str, record: Record | None, known: Collection[str], unknown: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with a record, even if nothing is claimed."""
    if name not in known:
        yield f"docs/requirements.md does not know {name}: remove the file"
    elif name not in BENCHMARKS:
        yield f"no benchmark writes a record of {name}: remove the file"
    elif record is None or record.id != name:
        yield f"is not a valid record of {name}: run `{BENCHMARKS[name].command}`"
    else:
        is_known = not any(each in unknown for each in record.commits)
        found = [*([] if is_known else [_NOT_IN_HISTORY]), *contradictions(record)]
        yield from (f"{line}: run `{BENCHMARKS[name].command}`" for line in found)


def _unproven(requirement: Requirement, report: Report, evidence: Evidence) -> Iterator[str]:
    """Yield a line for every part of this requirement that no passing test and no record proves."""
    passed = {mark for case, mark in _marked(report) if case.outcome is Outcome.PASSED and mark.id == requirement.id}
    match requirement.status:
        case Status.PLANNED:
            return
        case Status.PARTIAL if requirement.group == GROUP:
            yield f"{requirement.id}: a benchmark's record proves all of it or nothing: set it to `planned`"
        case Status.CLAIMED if requirement.group == GROUP:
            yield from _unrecorded(requirement.id, evidence.get(requirement.id))
        case Status.CLAIMED if not passed:
            yield f"{requirement.id}: {_UNPROVEN}"
        case Status.CLAIMED if requirement.id in BENCHMARKS:
            yield from _unrecorded(requirement.id, evidence.get(requirement.id))
        case Status.CLAIMED:
            return
        case Status.PARTIAL:
            promises = (Mark(id=requirement.id, part=part) for part in requirement.parts)
            yield from (f"{promise}: {_UNPROVEN}" for promise in promises if promise not in passed)
        case _ as never:
            assert_never(never)


def _unrecorded(name: str, record: Record | None) -> Iterator[str]:
    """Yield why the record of a claimed id does not prove it."""
    if name not in BENCHMARKS:
        yield f"{name}: has no benchmark that writes a record: set it to `planned`"
    elif record is None:
        yield f"{name}: has no record: run `{BENCHMARKS[name].command}`, or set its status to `planned`"
    elif record.is_dirty:
        yield f"{name}: its record has uncommitted changes: commit first, then run `{BENCHMARKS[name].command}`"
    else:
        held_to = BENCHMARKS[name]
        first = "fix what it found" if held_to.suite is not None or held_to.soak_bars else "make it faster"
        then = f"{first}, then run `{BENCHMARKS[name].command}`, or set its status to `planned`"
        yield from (f"{name}: {line}: {then}" for line in misses(name, record.figures, record.counts, record.measured))
