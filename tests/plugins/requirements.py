"""The mark `req`, and the record of a full run in `.reports/tests.json` (see docs/requirements.md).

A run that leaves anything out (a path, -k, -m, --deselect, a stop before the end) writes no record:
a part of the suite proves nothing about the whole.
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from tools.governance import report, tree
from tools.governance.report import Case, Mark, Outcome, Report

_PROPERTY: Final = "req"
_LEFT_OUT: Final = "left_out"
_MODULES: Final = "modules"
# Options that leave tests out, only pretend to run them, or change what the suite is.
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
    """Record this run; under xdist the controller does, and its workers tell it what only they see."""
    config.addinivalue_line("markers", "req(id, ..., part=None): the requirements, or the one part, that it proves")
    witness = Witness(config)
    config.pluginmanager.register(witness, "hookseal-witness")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config, witness), "hookseal-recorder")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put the marks of a test among the properties that travel with its report."""
    for mark in item.iter_markers("req"):
        item.user_properties += [(_PROPERTY, asdict(found)) for found in marks_of(mark)]


def marks_of(mark: pytest.Mark) -> list[Mark]:
    """Return what one mark names. Raises `pytest.UsageError` when it is not of its form."""
    part = mark.kwargs.get("part")
    is_named = bool(mark.args) and all(isinstance(name, str) for name in mark.args)
    if not is_named or mark.kwargs.keys() - {"part"} or (part is not None and len(mark.args) != 1):
        raise pytest.UsageError(f"write req('SEC-03', ...), or req('SEC-01', part='db') for one part, not {mark}")
    return [Mark(id=name, part=part) for name in mark.args]


class Witness:
    """Sees what is left out in one process, and tells the controller when that process is a worker."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left_out = 0
        self.modules: dict[str, str] = {}

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count the tests that something took away."""
        self.left_out += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember modules whose tests are unknown: they skipped themselves whole, or could not be imported."""
        if not report.passed:
            self.modules[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Send what was seen to the controller."""
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output |= {_LEFT_OUT: self.left_out, _MODULES: self.modules}


class Recorder:
    """Gathers the outcomes, and writes them down when the run was a full one."""

    def __init__(self, config: pytest.Config, witness: Witness) -> None:
        self.config = config
        self.witness = witness
        self.tree = tree.identity(config.rootpath)
        self.cases: dict[str, Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of a test's three phases; a pass is one of the call."""
        says_something = report.when == "call" or not report.passed
        if says_something and (report.failed or report.nodeid not in self.cases):
            self.cases[report.nodeid] = Case(nodeid=report.nodeid, outcome=_outcome(report), marks=_marks(report))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker saw."""
        output = getattr(node, "workeroutput", {})
        self.witness.left_out += output.get(_LEFT_OUT, 0)
        self.witness.modules |= output.get(_MODULES, {})

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
        """Write the record once every worker is down, if nothing was left out and the tree stood still."""
        result = yield
        if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and self._is_full(session):
            modules = (Case(nodeid=name, outcome=Outcome(end)) for name, end in self.witness.modules.items())
            cases = sorted([*self.cases.values(), *modules], key=lambda case: case.nodeid)
            root = self.config.rootpath
            if tree.identity(root) == self.tree:
                report.write(root / report.REPORT, Report(tree=self.tree, cases=tuple(cases)))
        return result

    def _is_full(self, session: pytest.Session) -> bool:
        options = self.config.option
        is_narrowed = any(getattr(options, name, None) for name in _NARROWING)
        # --strict-markers and its like come as overrides too
        is_altered = any(not setting.startswith("strict_") for setting in options.override_ini or ())
        testpaths = [Path(path) for path in self.config.getini("testpaths")]
        is_elsewhere = bool(testpaths) and [Path(argument) for argument in self.config.args] != testpaths
        was_stopped = bool(session.shouldstop or session.shouldfail)
        return not (is_narrowed or is_altered or is_elsewhere or was_stopped or self.witness.left_out)


def _marks(report: pytest.TestReport) -> tuple[Mark, ...]:
    found = [value for name, value in report.user_properties if name == _PROPERTY]
    return tuple(Mark(**value) for value in found if isinstance(value, dict))


def _outcome(report: pytest.TestReport) -> Outcome:
    if hasattr(report, "wasxfail"):
        return Outcome.XFAILED if report.skipped else Outcome.PASSED
    return Outcome(report.outcome)
