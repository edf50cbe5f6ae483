"""How a stopwatch adds up times."""

import pytest

from hookseal.ground.clock import Stopwatch
from tests.doubles.clock import FakeClock


def test_a_stopwatch_counts_overlapping_times_once() -> None:
    """What runs at the same time counts once, what still runs counts, and each block reports its own time."""
    clock = FakeClock()
    watch = Stopwatch(clock)
    ended: list[float] = []
    with watch.timed(ended.append):
        clock.elapsed += 2
        with watch.timed(ended.append):
            clock.elapsed += 3
        assert 5 == watch.seconds
    clock.elapsed += 10

    def fail() -> None:
        with watch.timed(ended.append):
            clock.elapsed += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (6, [3, 5, 1]) == (watch.seconds, ended)
