"""`hookseal api`: the process that serves the HTTP API."""

import os
import sys
from typing import Annotated

import typer

from hookseal.cli.shared.starting import begin
from hookseal.config.producer import api_needs
from hookseal.worker.stopping import ignore_stop, unwritable


def api(
    *,
    # The ready line is always JSON; `main.run_command` looks for the flag itself when it prints an error.
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print an error as JSON, too.")] = False,  # noqa: ARG001
) -> None:
    """Serve the HTTP API until SIGTERM; then answer the requests that were begun, and exit.

    It speaks as Svix does, so the client libraries of Svix can use it (docs/api.md). It listens on HOOKSEAL_API_HOST
    and HOOKSEAL_API_PORT, without TLS: put a proxy before it. Make a token with `hookseal token add`.

    When it is ready, it prints one JSON line on standard output, with its URL and that of its probes, which are those
    of a worker. Without a master key it only reads and publishes. Without Redis the workers find what it publishes by
    themselves.

    Example: HOOKSEAL_HEALTH_PORT=8081 hookseal api
    """
    if sys.stdout is None:  # the descriptor was closed before the start
        raise unwritable("it is closed")
    settings = begin(api_needs(os.environ))

    import uvloop  # noqa: PLC0415 -- wrong settings are refused before the server is loaded

    from hookseal.api.serving import run as serve  # noqa: PLC0415 -- the same
    from hookseal.cli.shared.runtime import run  # noqa: PLC0415 -- the same

    async def answer() -> None:
        await serve(settings)
        ignore_stop()

    run(answer(), loop_factory=uvloop.new_event_loop)
