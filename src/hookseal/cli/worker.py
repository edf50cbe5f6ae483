"""`hookseal worker`: the process that delivers."""

import uvloop

from hookseal.cli.runtime import run, start
from hookseal.worker.run import run as run_worker


def worker() -> None:
    """Deliver until SIGTERM, then finish what is in flight and exit.

    One JSON line on standard output tells that it is ready and where its probes answer; logs go to
    standard error. Probes: /livez and /readyz on HOOKSEAL_HEALTH_HOST and HOOKSEAL_HEALTH_PORT.
    """
    run(run_worker(start()), loop_factory=uvloop.new_event_loop)
