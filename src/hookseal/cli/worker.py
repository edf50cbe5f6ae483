"""`hookseal worker`: the process that delivers."""

import asyncio
import signal
from typing import Annotated

import typer
import uvloop

from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.worker.run import STOP_SIGNALS
from hookseal.worker.run import run as run_worker


def worker(
    *,
    # The line that says ready is always JSON; for errors, `main.answer` looks for the flag itself.
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print an error as JSON too.")] = False,  # noqa: ARG001
) -> None:
    """Deliver until SIGTERM, then finish what is in flight and exit.

    One JSON line on standard output tells that it is ready and where its probes answer: /livez,
    /readyz, /startupz and /metrics on HOOKSEAL_HEALTH_HOST and HOOKSEAL_HEALTH_PORT; `hookseal check`
    asks them. Logs go to standard error.

    Example: HOOKSEAL_HEALTH_PORT=8080 hookseal worker
    """
    run(_until_told(start()), loop_factory=uvloop.new_event_loop)


async def _until_told(settings: Settings) -> None:
    await run_worker(settings)
    # Closing, the loop would let them kill us: whoever asks again would have a drained worker end as if it had not.
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
