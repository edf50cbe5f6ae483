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
    """Hold everything up until SIGINT or SIGTERM; what was published stays under the folder for the next time.

    The folder must be named by an absolute path, so that another process can be told of it.
    `say` is told once that everything is up, and then of each request that the receiver got. Raises
    `Unavailable` if a part does not start or the worker ends by itself, `Refused` if one is up already.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    state.take(folder)
    async with stack(folder) as both, sinking(say) as receiver_url:
        installation = await install(both, folder)
        async with worker_process(installation.environment(os.environ), folder / "worker.log") as worker:
            state.publish(folder, installation.settings)
            try:
                say(
                    {
                        "event": "up.ready",
                        "receiver_url": receiver_url,
                        "health_url": worker.ready["health_url"],
                        "worker_log": str(folder / "worker.log"),
                    }
                )
                await worker.ended_or(stop)
            finally:
                state.withdraw(folder)
