"""The whole run of `hookseal demo`, on real servers."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hookseal.demo import traffic
from hookseal.demo.chapters import dead_letter, master_key, retries, rotation, stale, x_webhook
from hookseal.demo.installation import Installation, install, with_next_key
from hookseal.demo.process import worker_process
from hookseal.demo.receiver import Receiver, run_receiver
from hookseal.demo.result import Result
from hookseal.demo.stage import Stage, side_by_side
from hookseal.embedded.stack import temporary_stack
from hookseal.ground.clock import Clock
from hookseal.postgres.connect import connection_pool
from hookseal.queue.bell import bell
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider

_CHAPTERS: Final = (rotation.run, retries.run, dead_letter.run, x_webhook.run, stale.run, master_key.run)
_CONNECTIONS: Final = 12  # two for each chapter


async def run_demo(say: Callable[[str], None], clock: Clock) -> Result:
    """Run the demo and return its result; no process and no file is left. Raises `Unavailable`."""
    started = clock.monotonic()
    say("starting an embedded PostgreSQL and Valkey")
    with tempfile.TemporaryDirectory(prefix="hookseal-demo-") as name:
        folder = Path(name)
        async with temporary_stack() as stack, run_receiver(clock) as receiver:
            say("migrating, and creating a master key and the next one")
            installation = await with_next_key(await install(stack, folder), folder)
            say("starting a worker process")
            environment = installation.environment(os.environ)
            async with (
                worker_process(environment, folder / "worker.log"),
                _stage(installation, receiver, clock) as stage,
            ):
                say(f"publishing {traffic.EVENTS} events for two tenants")
                lines = await traffic.run_traffic(stage)
                say("rotating secrets and keys, retrying, replaying, writing a stale row")
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
