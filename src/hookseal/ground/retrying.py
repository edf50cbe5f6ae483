"""Repeats a call that fails, by tenacity, which is used from the first failure on."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

_Answer = TypeVar("_Answer")
Retrying: TypeAlias = Callable[[Callable[[], Awaitable[_Answer]]], Awaitable[_Answer]]


async def retried(
    call: Callable[[], Awaitable[_Answer]], *, on: type[Exception], retrying: Callable[[], Retrying[_Answer]]
) -> _Answer:
    """Return the result of `call`; if it raises `on`, repeat it by `retrying()`, for which this is the first try.

    `retrying` returns an `AsyncRetrying` of tenacity. It must retry `on`, and have a deadline of its own, because the
    clock of tenacity begins after the first try. Each of them leaves 26 objects in reference cycles, which only the
    garbage collector frees. Nearly every call succeeds at once, and then needs none of them.
    """
    try:
        return await call()
    except on as error:
        failed = [error]

    async def again() -> _Answer:  # tenacity awaits only functions that are declared async
        if failed:
            raise failed.pop()
        return await call()

    return await retrying()(again)
