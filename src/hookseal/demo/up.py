"""The stack of `hookseal up`: both servers, a worker, and a receiver that verifies every request."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hookseal.demo import state
from hookseal.demo.installation import Installation, install
from hookseal.demo.process import STOP_SECONDS, worker_process
from hookseal.demo.sink import run_sink
from hookseal.demo.verdicts import verified_by_endpoint
from hookseal.demo.watch import watch
from hookseal.embedded.stack import stack
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.postgres.connect import connection_pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider

_CONNECTIONS: Final = 4  # of the receiver, to read secrets
_OTHER_PORT: Final = (
    "free the port, or delete .hookseal/receiver.port: the receiver then gets another one, and the endpoints that send "
    "to it need its new URL"
)
_ENDING: Final = (
    "ending ... the worker finishes its requests in flight, for at most "
    f"{STOP_SECONDS:.0f} s (Ctrl-C again ends it now)"
)


async def stay_up(folder: Path, say: Callable[[dict[str, object]], None], *, report: Callable[[str], None]) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP. Published events stay in the folder for the next run.

    At the first signal `report` is called with what it waits for then; a second one kills the worker. The folder must
    be an absolute path, since other processes use it. `say` is called once when everything is up, and then for each
    request to the receiver. Raises `Unavailable` if a part does not start or ends, `Refused` if another `up` is
    running in the folder.
    """
    stop, at_once = asyncio.Event(), asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            at_once.set()
            return
        stop.set()
        report(_ENDING)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    # The receiver's pool logs a traceback for each attempt to reach a PostgreSQL that died, which `up` itself reports.
    logging.getLogger("asyncpg.pool").disabled = True
    with state.lock_folder(folder):
        state.keep_logs(folder)
        await _hold(folder, say, stop, at_once)


@asynccontextmanager
async def _receiver(
    installation: Installation, port: int, say: Callable[[dict[str, object]], None], at_once: asyncio.Event
) -> AsyncIterator[str]:
    """Run the receiver on this port for the length of the block, and yield its url."""
    async with connection_pool(installation.database_url, size=_CONNECTIONS) as pool:
        unlocked = await unlock(pool, Provider.DB, installation.keyring)
        judge = verified_by_endpoint(pool, unlocked, SystemClock())
        async with run_sink(say, port, judge=judge, advice=_OTHER_PORT, at_once=at_once) as url:
            yield url


async def _hold(
    folder: Path, say: Callable[[dict[str, object]], None], stop: asyncio.Event, at_once: asyncio.Event
) -> None:
    log_file = folder / "worker.log"
    async with stack(folder) as both:
        installation = await install(both, folder)
        async with (
            _receiver(installation, state.receiver_port(folder), say, at_once) as receiver_url,
            worker_process(installation.environment(os.environ), log_file, at_once=at_once) as worker,
        ):
            health_url = worker.ready["health_url"]
            with state.publish_settings(folder, installation.settings | {"HOOKSEAL_HEALTH_URL": health_url}):
                say(
                    {
                        "event": "up.ready",
                        "receiver_url": receiver_url,
                        "health_url": health_url,
                        "worker_log": str(log_file),
                    }
                )
                try:
                    await watch((both.postgres, both.valkey), worker, stop)
                except Unavailable:
                    at_once.set()  # without a server the worker could wait for it until the end of its drain
                    raise
