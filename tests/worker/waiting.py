"""How tests wait for another process or server: by polling, up to a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS: Final = 60.0  # a limit for what hangs: a busy machine takes many times as long as an idle one
_LONGEST_PAUSE: Final = 0.08


async def eventually(look: Callable[[], Awaitable[T | None]], *, within: float = PATIENCE_SECONDS) -> T:
    """Return the first true answer of `look`; fail with the last one at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause = 0.005  # short at first, then long enough to leave the CPU to others
    while not (found := await look()):
        assert loop.time() < deadline, f"still {found!r} after {within:g} s"
        await asyncio.sleep(pause)  # neither another process nor a table signals a change
        pause = min(2 * pause, _LONGEST_PAUSE)
    return found
