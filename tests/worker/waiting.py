"""How tests wait for what another process or server does: by looking again, up to a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS: Final = 60.0  # it only ends what hangs: a busy machine takes many times what an idle one does
_LONGEST_PAUSE: Final = 0.08


async def eventually(look: Callable[[], Awaitable[T | None]], *, within: float = PATIENCE_SECONDS) -> T:
    """Return the first answer of `look` that is true; fail with the last one if there is none in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause = 0.005  # soon at first, then seldom enough to leave the machine to what is waited for
    while not (found := await look()):
        assert loop.time() < deadline, f"still {found!r} after {within:g} s"
        await asyncio.sleep(pause)  # neither another process nor a table says when it changes
        pause = min(2 * pause, _LONGEST_PAUSE)
    return found
