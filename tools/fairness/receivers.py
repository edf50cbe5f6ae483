"""Receivers of a simulation: those that answer, those that hang, and those that do both."""

from hookseal.dispatcher.core.model import Outcome
from tools.fairness.rows import Receiver


def healthy(seconds: float = 0.02) -> Receiver:
    """Return a receiver that answers."""
    return lambda _now: (seconds, Outcome.DELIVERED)


def hanging(timeout: float = 5.0) -> Receiver:
    """Return a receiver that never answers."""
    return lambda _now: (timeout, Outcome.TIMEOUT)


def failing_between(begin: float, end: float, *, seconds: float = 0.02, timeout: float = 5.0) -> Receiver:
    """Return a receiver that answers, except that it hangs in between."""
    return lambda now: (timeout, Outcome.TIMEOUT) if begin <= now < end else (seconds, Outcome.DELIVERED)
