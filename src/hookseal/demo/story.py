"""The story that `hookseal demo` tells, on real parts."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hookseal.demo import traffic
from hookseal.demo.chapters import dead_letter, master_key, put_back, retries, rotation, x_webhook
from hookseal.demo.installation import Installation, install, with_next_key
from hookseal.demo.process import worker_process
from hookseal.demo.receiver import Receiver, receiving
from hookseal.demo.result import Result
from hookseal.demo.stage import Stage, side_by_side
from hookseal.embedded.stack import passing_stack
from hookseal.ground.clock import Clock
from hookseal.queue.bell import bell
from hookseal.schema.connect import connection_pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.ref import Provider

_CHAPTERS: Final = (rotation.tell, retries.tell, dead_letter.tell, x_webhook.tell, put_back.tell, master_key.tell)
_CONNECTIONS: Final = 12  # two for each chapter


async def tell(say: Callable[[str], None], clock: Clock) -> Result:
    """Run the whole story and return how it ended; nothing is left running, and no file. Raises `Unavailable`."""
    started = clock.monotonic()
    say("starting an embedded PostgreSQL and Valkey")
    with tempfile.TemporaryDirectory(prefix="hookseal-demo-") as name:
        folder = Path(name)
        async with passing_stack() as stack, receiving(clock) as receiver:
            say("migrating, and making a master key and the next one")
            installation = await with_next_key(await install(stack, folder), folder)
            say("starting a worker process")
            environment = installation.environment(os.environ)
            async with (
                worker_process(environment, folder / "worker.log"),
                _stage(installation, receiver, clock) as stage,
            ):
                say(f"publishing {traffic.EVENTS} events for two tenants")
                lines = await traffic.tell(stage)
                say("changing secrets and keys; failing, replaying; putting a row back")
                chapters = await side_by_side(*(chapter(stage) for chapter in _CHAPTERS))
        say("stopped everything")
    return Result(
        events=traffic.EVENTS, lines=tuple(lines), chapters=tuple(chapters), seconds=clock.monotonic() - started
    )


@asynccontextmanager
async def _stage(installation: Installation, receiver: Receiver, clock: Clock) -> AsyncIterator[Stage]:
    ringing = bell(installation.redis_url)
    try:
        async with connection_pool(installation.database_url, size=_CONNECTIONS) as pool:
            unlocked = await unlock(pool, Provider.DB, installation.keyring)
            yield Stage(pool=pool, unlocked=unlocked, ringing=ringing, receiver=receiver, clock=clock)
    finally:
        await ringing.close()
