"""A `hookseal worker` with a defect: each pass of the loop that BROKEN names ends in a `TypeError`.

It stands for a library whose new version has other parameters. The command itself is unchanged. A loop counts as stuck
after a second, so that no test has to wait for half a minute.
"""

import inspect
import os
import sys
from typing import Any, Never

from hookseal.cli.main import main
from hookseal.worker import health
from hookseal.worker.engine import Taker
from hookseal.worker.outbox import Outbox
from hookseal.worker.periodic import Pulse
from hookseal.worker.ring_handler import RingHandler

CANARY = "canary of an argument, 9b1e"
_PASSES: dict[str, tuple[Any, str]] = {
    "taking": (Taker, "_rings"),
    "handling": (RingHandler, "_next_rings"),
    "outbox": (Outbox, "once"),
    "pulse": (Pulse, "run"),
}


def fail(*_: object, **__: object) -> Never:
    """Fail as a call does that gives an argument which the function does not have."""
    raise TypeError(f"unexpected argument {CANARY}")


async def fail_later(*_: object, **__: object) -> None:
    """Fail in the same way, once it is awaited."""
    fail()


if __name__ == "__main__":
    part, name = _PASSES[os.environ["BROKEN"]]
    setattr(part, name, fail_later if inspect.iscoroutinefunction(getattr(part, name)) else fail)
    health.BEAT_SECONDS = 1.0  # type: ignore[misc]
    sys.argv[0] = "hookseal"
    main()
