"""How tests wait for another process or server: by polling, up to a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")
PATIENCE_SECONDS: Final = 60.0  # a limit for what hangs: a busy machine takes many times as long as an idle one
_LONGEST_PAUSE: Final = 0.08


@overload
async def eventually(look: Callable[[], Awaitable[T | None]], *, within: float = PATIENCE_SECONDS) -> T: ...
@overload
async def eventually(look: Callable[[], T | None], *, within: float = PATIENCE_SECONDS) -> T: ...
async def eventually(look: Callable[[], Any], *, within: float = PATIENCE_SECONDS) -> Any:
    """Return the first true answer of `look`, which may be awaitable; fail with the last one at the deadline."""
    return await _polled(look, bool, "true", within)


async def eventually_equals(expected: object, look: Callable[[], Any], *, within: float = PATIENCE_SECONDS) -> None:
    """Return when the answer of `look`, which may be awaitable, equals that; fail with the last one at the deadline."""
    await _polled(look, lambda found: found == expected, repr(expected), within)


async def _polled(look: Callable[[], Any], is_enough: Callable[[Any], bool], wanted: str, within: float) -> Any:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause = 0.005  # short at first, then long enough to leave the CPU to others
    while True:
        found = look()
        if isawaitable(found):
            found = await found
        if is_enough(found):
            return found
        assert loop.time() < deadline, f"still {found!r}, not {wanted}, after {within:g} s"
        await asyncio.sleep(pause)  # neither another process nor a table signals a change
        pause = min(2 * pause, _LONGEST_PAUSE)
