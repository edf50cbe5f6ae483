"""The reaction of a parent to the end of a process depends only on how the process ended."""

import pytest

from hookseal.errors import ConfigError, Refused, Unavailable
from hookseal.worker.metrics.runtime import Ending
from hookseal.worker.processes.messages import Refusal
from hookseal.worker.processes.process import (
    LONGEST_PAUSE_SECONDS,
    STABLE_SECONDS,
    Ended,
    GiveUp,
    Restart,
    after,
    failure_of_drain,
)


def refusal(exit_code: int) -> Refusal:
    return Refusal(code="x", exit_code=exit_code, message="because")


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    """Each failure in a row doubles the pause, up to its bound."""
    failures, pauses = 0, []
    for _ in range(9):
        follows = after(Ended(code=-9, ready_seconds=1.0), number=1, failures=failures, began=True)
        assert isinstance(follows, Restart)
        failures = follows.failures
        pauses.append(follows.pause_seconds)

    assert [0.5, 1, 2, 4, 8, 16, 30, 30, 30] == pauses
    forever = after(Ended(code=-9), number=1, failures=10**6, began=True)
    assert Restart(pause_seconds=LONGEST_PAUSE_SECONDS, failures=10**6 + 1) == forever


@pytest.mark.parametrize(("ready_seconds", "failures"), [(STABLE_SECONDS - 0.1, 8), (STABLE_SECONDS, 1), (None, 8)])
def test_a_ready_minute_resets_the_failures(ready_seconds: float | None, failures: int) -> None:
    follows = after(Ended(code=1, ready_seconds=ready_seconds), number=1, failures=7, began=True)

    assert isinstance(follows, Restart)
    assert failures == follows.failures


@pytest.mark.parametrize("exit_code", [ConfigError.exit_code, Refused.exit_code])
@pytest.mark.parametrize("began", [False, True])
def test_refused_settings_end_the_parent(exit_code: int, began: bool) -> None:
    """A process that refuses its settings or lacks a right ends the parent, at any time."""
    found = refusal(exit_code)

    assert GiveUp(refusal=found) == after(Ended(code=exit_code, refusal=found), number=1, failures=0, began=began)


def test_an_outage_ends_the_worker_at_the_start_only() -> None:
    """An unavailable dependency ends the worker at the start; later the process is started again."""
    found = refusal(Unavailable.exit_code)
    ended = Ended(code=Unavailable.exit_code, refusal=found)

    assert GiveUp(refusal=found) == after(ended, number=1, failures=0, began=False)
    assert Restart(pause_seconds=0.5, failures=1) == after(ended, number=1, failures=0, began=True)


@pytest.mark.parametrize(
    ("ended", "ending", "prefix"),
    [
        (Ended(code=1), Ending.EXITED, "process 3 ended with exit code 1 before"),
        (Ended(code=-11), Ending.KILLED, "process 3 was killed by signal 11 before"),
        (Ended(code=-9, was_stuck=True), Ending.STUCK, "process 3 gave no answer and was killed before"),
    ],
)
def test_a_silent_end_at_the_start_ends_the_worker(ended: Ended, ending: Ending, prefix: str) -> None:
    """A process that ends without a message before the worker has begun ends the worker, with its number."""
    follows = after(ended, number=3, failures=0, began=False)

    assert ending is ended.ending
    assert isinstance(follows, GiveUp)
    assert (70, "internal") == (follows.refusal.exit_code, follows.refusal.code)
    assert follows.refusal.message.startswith(prefix)


@pytest.mark.parametrize(
    ("ended", "prefix"),
    [
        (Ended(code=0, ready_seconds=9.0), None),
        (Ended(code=-15), None),  # ended by the signal before it handled it: it had claimed nothing
        (Ended(code=-9, ready_seconds=9.0), "process 2 was killed by signal 9 when it was asked to drain"),
        (Ended(code=70, ready_seconds=9.0), "process 2 ended with exit code 70 when it was asked to drain"),
        (Ended(code=69, refusal=refusal(69)), "because"),
    ],
)
def test_a_drain_ends_with_0(ended: Ended, prefix: str | None) -> None:
    """A drain ends well with 0, or by the signal before the process was ready; everything else is an error."""
    found = failure_of_drain(ended, number=2)

    assert prefix is None if found is None else prefix is not None and found.message.startswith(prefix)
