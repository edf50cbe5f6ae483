"""The stack of the demo, staying up: both servers, a worker, and a receiver that answers 204 to everything."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from hookseal.demo import state
from hookseal.demo.installation import install
from hookseal.demo.process import worker_process
from hookseal.demo.sink import sinking
from hookseal.embedded.stack import stack


async def stay_up(folder: Path, say: Callable[[dict[str, object]], None]) -> None:
    """Hold everything up until SIGINT, SIGTERM or SIGHUP; what was published stays under the folder for the next time.

    The folder must be named by an absolute path, so that another process can be told of it.
    `say` is told once that everything is up, and then of each request that the receiver got. Raises
    `Unavailable` if a part does not start or the worker ends by itself, `Refused` if one is up already.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with state.taken(folder):
        await _hold(folder, say, stop)


async def _hold(folder: Path, say: Callable[[dict[str, object]], None], stop: asyncio.Event) -> None:
    log_file = folder / "worker.log"
    async with stack(folder) as both, sinking(say, state.receiver_port(folder)) as receiver_url:
        installation = await install(both, folder)
        async with worker_process(installation.environment(os.environ), log_file) as worker:
            with state.published(folder, installation.settings):
                say(
                    {
                        "event": "up.ready",
                        "receiver_url": receiver_url,
                        "health_url": worker.ready["health_url"],
                        "worker_log": str(log_file),
                    }
                )
                await worker.ended_or(stop)
