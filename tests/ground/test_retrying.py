"""A call that succeeds at once does without tenacity; for one that fails, tenacity decides."""

import pytest
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_incrementing

from hookseal.errors import Unavailable
from hookseal.ground.clock import retried


class Call:
    """Fails with these errors, one after another, then returns how often it was called. `slept` has the waits."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.number = 0
        self.slept: list[float] = []

    async def __call__(self) -> int:
        """Fail or return."""
        self.number += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.number

    async def sleep(self, seconds: float) -> None:
        """Record the wait."""
        self.slept.append(seconds)

    def retrying(self) -> AsyncRetrying:
        """Return what tries three times, with a wait of one second and then of two."""
        return AsyncRetrying(
            sleep=self.sleep,
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(3),
            wait=wait_incrementing(start=1, increment=1),
            reraise=True,
        )


def never() -> AsyncRetrying:
    """Fail: nothing is to be retried."""
    pytest.fail("tenacity was asked although the call succeeded")


async def test_a_call_that_succeeds_asks_nobody() -> None:
    """It returns the result, and no object of tenacity is made."""
    assert await retried(Call(), on=Unavailable, retrying=never) == 1


async def test_a_failure_counts_as_the_first_try() -> None:
    """The waits and the number of tries are those that tenacity was told."""
    call = Call(Unavailable("one"), Unavailable("two"))
    assert await retried(call, on=Unavailable, retrying=call.retrying) == 3
    assert [1, 2] == call.slept


async def test_the_last_error_is_raised() -> None:
    """When tenacity stops, the caller gets the error of the last try."""
    call = Call(Unavailable("one"), Unavailable("two"), Unavailable("three"), Unavailable("four"))
    with pytest.raises(Unavailable, match="three"):
        await retried(call, on=Unavailable, retrying=call.retrying)
    assert call.number == 3


@pytest.mark.parametrize("errors", [(ValueError("bad"),), (Unavailable("one"), ValueError("bad"))])
async def test_other_errors_are_not_retried(errors: tuple[Exception, ...]) -> None:
    """An error of another kind is raised at once, on the first try and on a later one."""
    call = Call(*errors)
    with pytest.raises(ValueError, match="bad"):
        await retried(call, on=Unavailable, retrying=call.retrying)
    assert call.number == len(errors)
