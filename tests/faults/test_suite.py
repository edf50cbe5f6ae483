"""The long form as a tool: what it would run, record and print."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hookseal.dispatcher.core.model import State
from tests.faults.comparison import Delivery, Evidence, ReceivedRequest, RecordedAttempt, Report, compare
from tests.faults.faulty_worker import POINTS, Action, Fault
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


# The comparison finds every kind of contradiction in the evidence.


ANSWERED = ReceivedRequest(delivery_id="d", attempt=2, path="/0", digest=b"x", is_verified=True, at=0.0, answered=204)
UNANSWERED = ReceivedRequest(delivery_id="d", attempt=1, path="/0", digest=b"x", is_verified=True, at=0.0)
DELIVERY = Delivery(id="d", state="delivered", attempts=2, digest=b"x", is_leased=False)
UNKNOWN = RecordedAttempt(delivery_id="d", number=1, outcome="unknown", status=None, worker="w1")
DELIVERED = RecordedAttempt(delivery_id="d", number=2, outcome="delivered", status=204, worker="w2")
# An attempt was sent, its worker was killed before the record, and the delivery was sent again.
CORRECT = Evidence(
    published=("d",),
    requests=(UNANSWERED, ANSWERED),
    deliveries=(DELIVERY,),
    attempts=(UNKNOWN, DELIVERED),
    redis_keys=(),
    dead=("w1",),
)


def changed(**changes: object) -> Callable[[Evidence], Evidence]:
    """Return a function that replaces these parts of the evidence."""
    return lambda evidence: replace(evidence, **changes)  # type: ignore[arg-type]


def changed_request(**changes: object) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, requests=(UNANSWERED, replace(ANSWERED, **changes)))  # type: ignore[arg-type]


def changed_attempt(**changes: object) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, attempts=(UNKNOWN, replace(DELIVERED, **changes)))  # type: ignore[arg-type]


def changed_delivery(**changes: object) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, deliveries=(replace(DELIVERY, **changes),))  # type: ignore[arg-type]


def test_correct_evidence_breaks_no_law() -> None:
    """A request that was sent and not recorded is a duplicate that the record explains."""
    found = compare(CORRECT)
    found.require(deliveries=1, requests=2, lost=0, duplicates=1, unexplained=0, unknown=1, wrong=0)
    assert "every law holds" in str(found)


@pytest.mark.parametrize(
    ("falsify", "law"),
    [
        pytest.param(changed(published=("d", "e")), "published and never received", id="lost"),
        pytest.param(changed(requests=()), "published and never received", id="never-received"),
        pytest.param(changed_delivery(state="pending"), "published and never received", id="not-ended"),
        pytest.param(changed_delivery(state="dead_letter"), "ended in the wrong state", id="state"),
        pytest.param(changed(ends={"d": State.FAILED}), "ended in the wrong state", id="other-state"),
        pytest.param(
            changed(requests=(UNANSWERED, ANSWERED, ANSWERED)),
            "without a reason",
            id="attempt-twice",
        ),
        pytest.param(changed_request(attempt=3), "without a reason", id="attempt-not-on-record"),
        pytest.param(changed(published=()), "never published", id="never-published"),
        pytest.param(changed_request(digest=b"y"), "another body", id="body"),
        pytest.param(changed_request(is_verified=False), "unsigned", id="signature"),
        pytest.param(changed_request(answered=503), "impossible outcome", id="answer"),
        pytest.param(changed_attempt(outcome="server_error", status=500), "impossible outcome", id="outcome"),
        pytest.param(changed_attempt(number=1), "attempt numbers", id="gap"),
        pytest.param(
            changed(attempts=(replace(DELIVERED, number=1), DELIVERED)),
            "impossible outcome",
            id="delivered-twice",
        ),
        pytest.param(changed(dead=()), "impossible outcome", id="unknown-without-a-death"),
        pytest.param(changed_delivery(attempts=3), "attempt numbers", id="too-few"),
        pytest.param(changed_delivery(is_leased=True), "still leased", id="lease"),
        pytest.param(changed(redis_keys=("arq:job:d",)), "left in Redis", id="redis"),
    ],
)
def test_every_contradiction_breaks_a_law(falsify: Callable[[Evidence], Evidence], law: str) -> None:
    """Every contradiction in the evidence breaks a law, which the report names."""
    found = compare(falsify(CORRECT))
    assert 0 < found.counts["wrong"]
    assert [] != [line for line in found.violations if law in line]
    with pytest.raises(AssertionError, match=law):
        found.require()


def test_a_wrong_count_fails() -> None:
    """A count that differs from the required one fails, with both numbers."""
    with pytest.raises(AssertionError, match=r"'duplicates': \(0, 1\)"):
        compare(CORRECT).require(duplicates=0)
