"""What limits a worker, decided from two samples; and the time that each limit stopped it."""

import pytest
import structlog

from hookseal.dispatcher.core.concerns import Limit
from hookseal.worker.saturation import RECENT, Sample, Saturation, limits_between
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("OPS-02", part="saturation")

CALM = Sample(
    at=0.0,
    waits=False,
    has_slot=True,
    has_bytes=True,
    records_late=False,
    cpu_seconds=0.0,
    connection_seconds=0.0,
    claim_seconds=0.0,
    redis_seconds=0.0,
)
FULL = replace(CALM, waits=True, has_slot=False)
BIG = replace(FULL, has_bytes=False)
LATE = replace(FULL, records_late=True)


def after(before: Sample, seconds: float = 1.0, **changes: float) -> Sample:
    return replace(before, at=before.at + seconds, **changes)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(CALM, after(CALM), set(), id="calm"),
        pytest.param(FULL, after(FULL), {Limit.REQUESTS}, id="all slots are taken and something waits"),
        pytest.param(CALM, after(FULL), set(), id="only at one of both times"),
        pytest.param(
            replace(FULL, waits=False), after(replace(FULL, waits=False)), set(), id="full, but nothing waits"
        ),
        pytest.param(BIG, after(BIG), {Limit.BYTES}, id="bodies have no room"),
        pytest.param(LATE, after(LATE), {Limit.POSTGRESQL}, id="outcomes that wait for their record take all slots"),
        pytest.param(CALM, after(CALM, claim_seconds=0.9), {Limit.POSTGRESQL}, id="claims take all the time"),
        pytest.param(CALM, after(CALM, claim_seconds=0.89), set(), id="claims take nearly all the time"),
        pytest.param(CALM, after(CALM, connection_seconds=0.5), {Limit.POSTGRESQL}, id="a connection is waited for"),
        pytest.param(CALM, after(CALM, redis_seconds=0.5), {Limit.REDIS}, id="Redis is slow"),
        pytest.param(
            CALM, after(CALM, 2.0, redis_seconds=0.9), set(), id="Redis is slow for less than half of the time"
        ),
        pytest.param(CALM, after(CALM, cpu_seconds=0.95), {Limit.CPU}, id="one core is used"),
        pytest.param(
            LATE,
            after(LATE, cpu_seconds=0.95, claim_seconds=1.0, connection_seconds=1.0, redis_seconds=1.0),
            {Limit.CPU},
            id="without CPU answers are read late",
        ),
        pytest.param(FULL, after(FULL, cpu_seconds=0.95), {Limit.REQUESTS, Limit.CPU}, id="both"),
        pytest.param(FULL, after(FULL, 0.0, cpu_seconds=1.0), set(), id="no time has passed"),
    ],
)
def test_what_limits_a_worker_follows_from_two_samples(before: Sample, now: Sample, expected: set[Limit]) -> None:
    assert expected == limits_between(before, now)


async def test_the_time_between_two_looks_is_added_to_each_limit() -> None:
    clock, state = FakeClock(), [FULL]
    saturation = Saturation(lambda: replace(state[0], at=clock.monotonic()), clock=clock, log=structlog.get_logger())
    for seconds, seen in ((0, FULL), (0.5, FULL), (2, BIG), (3, BIG), (1, CALM), (1, CALM)):
        clock.elapsed += seconds
        state[0] = seen
        await saturation.once()

    assert {"requests": 2.5, "bytes": 3.0, "postgresql": 0.0, "redis": 0.0, "cpu": 0.0} == saturation.seconds


@pytest.mark.req("OPS-15", part="status")
async def test_a_worker_is_limited_by_what_stopped_it_in_half_of_the_last_looks() -> None:
    """Not by what a single look found, and not by what is long over."""
    clock, state = FakeClock(), [FULL]
    saturation = Saturation(lambda: replace(state[0], at=clock.monotonic()), clock=clock, log=structlog.get_logger())

    async def after_looks(number: int, seen: Sample) -> list[Limit]:
        state[0] = seen
        for _ in range(number):
            clock.elapsed += 0.5
            await saturation.once()
        return saturation.limits

    assert [] == await after_looks(1, FULL)
    assert [Limit.REQUESTS] == await after_looks(RECENT, FULL)
    assert [Limit.REQUESTS] == await after_looks(RECENT // 2, CALM)
    assert [] == await after_looks(1, CALM)
    assert [Limit.BYTES] == await after_looks(RECENT, BIG)
