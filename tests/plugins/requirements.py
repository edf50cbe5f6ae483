"""The mark `req`, the record of a full run in `.reports/tests.json` (see docs/requirements.md), the seed of a failure.

A run that omits any test (a path, -k, -m, --deselect, an early stop) writes no record:
a part of the suite proves nothing about the whole.
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from tools.governance import report
from tools.governance.report import Case, Mark, Outcome, Report

_PROPERTY: Final = "req"
_LEFT_OUT: Final = "left_out"
_MODULES: Final = "modules"
# Options that omit tests, do not run them, or change the suite.
_NARROWING: Final = (
    "keyword",
    "markexpr",
    "deselect",
    "ignore",
    "ignore_glob",
    "lf",
    "stepwise",
    "collectonly",
    "setuponly",
    "setupplan",
    "inifilename",
)


def pytest_configure(config: pytest.Config) -> None:
    """Record this run; under xdist the controller does, with what its workers report to it."""
    config.addinivalue_line("markers", "req(id, ..., part=None): the requirements, or the one part, that it proves")
    omissions = Omissions(config)
    config.pluginmanager.register(omissions, "hookseal-omissions")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config, omissions), "hookseal-recorder")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Add the marks of a test to the properties in its report."""
    for mark in item.iter_markers("req"):
        item.user_properties += [(_PROPERTY, asdict(found)) for found in marks_of(mark)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Name in the report of each failure the seed that repeats the order of the tests."""
    report = yield
    if report.failed and (seed := item.config.getoption("randomly_seed", None)) is not None:
        report.sections.append(("Order of the tests", f"make test ARGS='--randomly-seed={seed}'"))
    return report


def marks_of(mark: pytest.Mark) -> list[Mark]:
    """Return the requirements that a mark names. Raises `pytest.UsageError` if it is malformed."""
    part = mark.kwargs.get("part")
    is_named = bool(mark.args) and all(isinstance(name, str) for name in mark.args)
    if not is_named or mark.kwargs.keys() - {"part"} or (part is not None and len(mark.args) != 1):
        raise pytest.UsageError(f"write req('SEC-03', ...), or req('SEC-01', part='db') for one part, not {mark}")
    return [Mark(id=name, part=part) for name in mark.args]


class Omissions:
    """Notes what is omitted in one process, and reports it to the controller if that process is a worker."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left_out = 0
        self.modules: dict[str, str] = {}

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count the deselected tests."""
        self.left_out += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note modules whose tests are unknown, because they were skipped or could not be imported."""
        if not report.passed:
            self.modules[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Send the notes to the controller."""
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output |= {_LEFT_OUT: self.left_out, _MODULES: self.modules}


class Recorder:
    """Collects the outcomes, and writes the record if the run was a full one."""

    def __init__(self, config: pytest.Config, omissions: Omissions) -> None:
        self.config = config
        self.omissions = omissions
        self.tree = report.identity(config.rootpath)
        self.cases: dict[str, Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store the worst outcome of a test's three phases; only the call phase can pass."""
        has_result = report.when == "call" or not report.passed
        if has_result and (report.failed or report.nodeid not in self.cases):
            self.cases[report.nodeid] = Case(nodeid=report.nodeid, outcome=_outcome(report), marks=_marks(report))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the notes of a worker."""
        output = getattr(node, "workeroutput", {})
        self.omissions.left_out += output.get(_LEFT_OUT, 0)
        self.omissions.modules |= output.get(_MODULES, {})

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
        """Write the record after the last worker, if nothing was omitted and the tree did not change."""
        result = yield
        if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and self._is_full(session):
            modules = (Case(nodeid=name, outcome=Outcome(end)) for name, end in self.omissions.modules.items())
            cases = sorted([*self.cases.values(), *modules], key=lambda case: case.nodeid)
            root = self.config.rootpath
            if report.identity(root) == self.tree:
                report.write(root / report.REPORT, Report(tree=self.tree, cases=tuple(cases)))
        return result

    def _is_full(self, session: pytest.Session) -> bool:
        options = self.config.option
        is_narrowed = any(getattr(options, name, None) for name in _NARROWING)
        # options such as --strict-markers appear as overrides, too
        is_altered = any(not setting.startswith("strict_") for setting in options.override_ini or ())
        testpaths = [Path(path) for path in self.config.getini("testpaths")]
        is_elsewhere = bool(testpaths) and [Path(argument) for argument in self.config.args] != testpaths
        was_stopped = bool(session.shouldstop or session.shouldfail)
        return not (is_narrowed or is_altered or is_elsewhere or was_stopped or self.omissions.left_out)


def _marks(report: pytest.TestReport) -> tuple[Mark, ...]:
    found = [value for name, value in report.user_properties if name == _PROPERTY]
    return tuple(Mark(**value) for value in found if isinstance(value, dict))


def _outcome(report: pytest.TestReport) -> Outcome:
    if hasattr(report, "wasxfail"):
        return Outcome.XFAILED if report.skipped else Outcome.PASSED
    return Outcome(report.outcome)
