"""The long form as a tool: what it would run, record and print."""

import pytest

from tests.faults.comparison import Report
from tests.faults.fault import POINTS, Action, Fault
from tests.faults.suite import SUITE
from tools.faults.__main__ import main, proven_by, table
from tools.governance.evidence import BENCHMARKS


def test_a_fault_is_read_back() -> None:
    """A fault that is written as text and read again is the same; an unknown point or action is refused."""
    for point in POINTS:
        fault = Fault(point=point, action=Action.STALL, number=17, seconds=9.5)
        assert fault == Fault.parse(str(fault))
    assert Fault(point="send.after", action=Action.KILL) == Fault.parse("send.after=kill")
    for text in ("send=kill", "send.after=sleep", "send.after"):
        with pytest.raises(ValueError, match=r"no point|not a valid"):
            Fault.parse(text)


def test_the_whole_suite_proves_its_claims() -> None:
    """Each scenario is part of a proof, all have 100,000 deliveries, and a proof needs all of its scenarios."""
    wanted = proven_by(set(SUITE))
    suites = {name: suite for name in wanted if (suite := BENCHMARKS[name].suite) is not None}
    deliveries = sum(each.size.events * each.endpoints for each in SUITE.values())

    assert {"DUR-01", "DUR-02", "DUR-03", "DUR-04", "DUR-05", "DUR-07"} <= set(wanted)
    assert set(SUITE) == {scenario for suite in suites.values() for scenario in suite.scenarios}
    assert 100_000 <= deliveries
    for suite in suites.values():
        own = sum(SUITE[scenario].size.events * SUITE[scenario].endpoints for scenario in suite.scenarios)
        assert suite.at_least["deliveries"] <= own
    assert "DUR-03" not in proven_by(set(SUITE) - {"killed"})


def test_the_table_shows_every_count() -> None:
    """The table has a column for every count of any scenario."""
    found = {
        "killed": Report(counts={"lost": 0, "faults": 3}, violations=()),
        "flushed": Report(counts={"lost": 0, "late": 1}, violations=()),
    }

    assert [["lost", "faults", "late"], ["killed", "0", "3"], ["flushed", "0", "1"]] == [
        line.split() for line in table(found).splitlines()
    ]


def test_a_smaller_run_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """`--record` with a smaller size is refused before anything runs."""
    with pytest.raises(SystemExit) as ended:
        main(["--record", "--scale", "0.5"])

    assert 2 == ended.value.code
    assert "and the whole size" in capsys.readouterr().err
