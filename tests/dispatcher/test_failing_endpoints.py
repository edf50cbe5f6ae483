"""Which endpoints a worker finds failing, and how seldom it writes that."""

import pytest

from hookseal.dispatcher.core.endpoint_health import (
    AGAIN_SECONDS,
    FAILING_SECONDS,
    MOST_REMEMBERED,
    Changes,
    FailingEndpoints,
)
from hookseal.dispatcher.core.model import Outcome, Target
from hookseal.ground.ids import EndpointId
from tests.doubles.claims import TARGET
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("DEL-08", part="health")
KEY = (TARGET.pointer.tenant_id, TARGET.pointer.endpoint_id)
MARKED = replace(TARGET, is_failing=True)
NOTHING = Changes(failing=[], recovered=[])


class Worker:
    """A worker that attempts, and the time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.failing = FailingEndpoints(self.clock)

    async def after(self, seconds: float, outcome: Outcome, target: Target = TARGET) -> Changes:
        """Attempt after that many seconds; return what is to be written then."""
        await self.clock.sleep(seconds)
        self.failing.attempted(target, outcome)
        return self.failing.take()


async def test_a_minute_of_failures_is_failing() -> None:
    """An endpoint is failing after a minute with failures only, and this is written again after ten minutes."""
    worker = Worker()

    assert NOTHING == await worker.after(0, Outcome.TIMEOUT)
    assert NOTHING == await worker.after(FAILING_SECONDS - 1, Outcome.SERVER_ERROR)
    assert [KEY] == (await worker.after(1, Outcome.CLIENT_ERROR)).failing
    assert NOTHING == await worker.after(AGAIN_SECONDS - 1, Outcome.TIMEOUT, MARKED)
    assert [KEY] == (await worker.after(1, Outcome.TIMEOUT, MARKED)).failing


async def test_a_success_restarts_the_minute() -> None:
    """A success restarts the minute, and costs no statement if nothing was written."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.DELIVERED)
    assert NOTHING == await worker.after(1, Outcome.TIMEOUT)


@pytest.mark.parametrize("target", [TARGET, MARKED])
async def test_a_success_clears_a_failing_row(target: Target) -> None:
    """A success is written if the row says failing, or if this worker has written that since the claim."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)

    assert Changes(failing=[], recovered=[KEY]) == await worker.after(1, Outcome.DELIVERED, target)


async def test_a_success_clears_another_workers_row() -> None:
    """A worker that has seen no failure clears what another worker wrote."""
    assert [KEY] == (await Worker().after(0, Outcome.DELIVERED, MARKED)).recovered


async def test_an_unknown_outcome_changes_nothing() -> None:
    """The outcome of a cancelled attempt changes nothing for the endpoint."""
    worker = Worker()
    await worker.after(0, Outcome.UNKNOWN)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.UNKNOWN)


async def test_unwritten_states_are_kept() -> None:
    """A state that could not be written is kept, unless a newer one was noticed since."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    unwritten = await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)

    worker.failing.put_back(unwritten)
    assert unwritten == worker.failing.take()
    recovered = await worker.after(1, Outcome.DELIVERED)
    worker.failing.put_back(unwritten)
    assert NOTHING == worker.failing.take()
    worker.failing.put_back(recovered)
    assert recovered == worker.failing.take()
    await worker.after(1, Outcome.TIMEOUT)
    worker.failing.put_back(recovered)
    assert NOTHING == worker.failing.take()


async def test_the_number_of_endpoints_is_bounded() -> None:
    """Beyond the limit the endpoint that failed first is forgotten, and its minute restarts."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    for number in range(MOST_REMEMBERED):
        pointer = replace(TARGET.pointer, endpoint_id=EndpointId(str(number)))
        worker.failing.attempted(replace(TARGET, pointer=pointer), Outcome.TIMEOUT)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)
