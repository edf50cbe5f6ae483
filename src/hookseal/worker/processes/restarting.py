"""Decides what follows when a process has ended unexpectedly: a restart after a pause, or the end of all. Pure."""

from dataclasses import dataclass
from typing import Final, assert_never

from hookseal.ground.errors import ConfigError, Defect, Refused
from hookseal.worker.metrics.runtime import Ending
from hookseal.worker.processes.line import Refusal

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 60.0  # a process that was ready for this time starts again with the first pause
# Another start would fail in the same way: only a person can change settings, schema, keys and rights.
_PERMANENT: Final = frozenset({ConfigError.exit_code, Refused.exit_code})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended. `ready_seconds` is how long it was ready, None if it never was."""

    code: int
    was_stuck: bool = False
    refusal: Refusal | None = None
    ready_seconds: float | None = None

    @property
    def ending(self) -> Ending:
        """The label under which it is counted."""
        if self.was_stuck:
            return Ending.STUCK
        return Ending.KILLED if self.code < 0 else Ending.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Restart it after `pause_seconds`; this was failure number `failures` in a row."""

    pause_seconds: float
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """End all processes, and the parent with this error."""

    refusal: Refusal


def after(ended: Ended, *, number: int, failures: int, began: bool) -> Restart | GiveUp:
    """Return what follows the end of a process; `failures` is the number of failures in a row before it.

    `began` says whether every process has been ready once. Until then the worker as a whole has not started, and a
    failure ends it, as with a single process.
    """
    if ended.refusal is not None and (not began or ended.refusal.exit_code in _PERMANENT):
        return GiveUp(refusal=ended.refusal)
    if not began:
        return GiveUp(refusal=_unready(ended, number))
    if ended.ready_seconds is not None and ended.ready_seconds >= STABLE_SECONDS:
        failures = 0
    # The exponent is bounded, because the number of failures is not.
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), LONGEST_PAUSE_SECONDS)
    return Restart(pause_seconds=pause, failures=failures + 1)


def failure_of_drain(ended: Ended, *, number: int) -> Refusal | None:
    """Return the error if a process that was asked to end did not drain, None if it did."""
    ended_before_ready = ended.ready_seconds is None and ended.code < 0
    if ended.refusal is not None or ended.code == 0 or ended_before_ready:
        return ended.refusal
    return _internal(
        f"process {number} {_how(ended)} when it was asked to drain: its requests in flight are sent again"
    )


def _unready(ended: Ended, number: int) -> Refusal:
    return _internal(f"process {number} {_how(ended)} before all processes were ready: see its log")


def _how(ended: Ended) -> str:
    match ended.ending:
        case Ending.STUCK:
            return "gave no answer and was killed"
        case Ending.KILLED:
            return f"was killed by signal {-ended.code}"
        case Ending.EXITED:
            return f"ended with exit code {ended.code}"
        case _:
            assert_never(ended.ending)


def _internal(message: str) -> Refusal:
    return Refusal(code=Defect.code, exit_code=Defect.exit_code, message=message)
