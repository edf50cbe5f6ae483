"""`hookseal api`: the process that serves the HTTP API, or the parent of several."""

import asyncio
import os
import sys
from typing import Annotated, Final

import structlog
import typer

from hookseal.cli.shared.starting import begin
from hookseal.config.load import SplitEnvironment, harden_process, split_environment
from hookseal.config.producer import api_needs
from hookseal.config.settings import MAX_PROCESSES, Settings
from hookseal.errors import Defect, HooksealError
from hookseal.worker.stopping import ignore_stop, unwritable

_CHILD: Final = (sys.executable, "-P", "-m", "hookseal", "api", "--parent-channel")


def api(
    *,
    processes: Annotated[int, typer.Option(min=1, max=MAX_PROCESSES, metavar="N", help="The number of processes.")] = 1,
    # Set only by the parent: the descriptor of the socket on which it sends the settings to this process.
    parent_channel: Annotated[int | None, typer.Option(hidden=True)] = None,
    # The ready line is always JSON; `main.run_command` looks for the flag itself when it prints an error.
    as_json: Annotated[bool, typer.Option("--json", help="Print an error as JSON, too.")] = False,  # noqa: ARG001
) -> None:
    """Serve the HTTP API and the pages until SIGTERM; then answer the requests that were begun, and exit.

    It speaks as Svix does, so the client libraries of Svix can use it (docs/api.md). The pages are under /portal
    (docs/pages.md). It listens on HOOKSEAL_API_HOST and HOOKSEAL_API_PORT, without TLS: put a proxy before it. Make a
    token with `hookseal token add`.

    When it is ready, it prints one JSON line on standard output, with its URL and that of its probes, which are those
    of a worker. Without a master key it only reads and publishes. Without Redis the workers find what it publishes by
    themselves. With two processes or more, a parent starts them, restarts those that end, and answers the probes; they
    share the port. Each process opens up to 15 connections to PostgreSQL.

    Example: HOOKSEAL_HEALTH_PORT=8081 hookseal api --processes 2
    """
    if parent_channel is not None:
        _run_child(parent_channel)
        return
    if sys.stdout is None:  # the descriptor was closed before the start
        raise unwritable("it is closed")
    if processes == 1:
        _run_single(begin(api_needs(os.environ)))
        return
    needs, environment = api_needs(os.environ), split_environment()
    settings = begin(needs)
    if settings.loaded_secrets is not None:
        environment = environment.with_unwrapped(settings.secrets)
    _run_parent(settings, environment, processes)


def _run_single(settings: Settings) -> None:
    import uvloop  # noqa: PLC0415 -- wrong settings are refused before the server is loaded

    from hookseal.api.serving import run as serve  # noqa: PLC0415 -- the same
    from hookseal.cli.shared.runtime import run  # noqa: PLC0415 -- the same
    from hookseal.pages.serving import beside  # noqa: PLC0415 -- the same

    async def answer() -> None:
        await serve(settings, extended=beside(settings))
        ignore_stop()

    run(answer(), loop_factory=uvloop.new_event_loop)


def _run_parent(settings: Settings, environment: SplitEnvironment, number: int) -> None:
    from hookseal.worker.listening import of_the_api  # noqa: PLC0415 -- a child and a single process do not need it
    from hookseal.worker.processes.parent import Parent  # noqa: PLC0415 -- the same

    async def supervise() -> None:
        with of_the_api(settings) as server:
            await Parent(settings, environment, number, kind="api", command=_CHILD, listening=server).run()
        ignore_stop()

    asyncio.run(supervise())


def _run_child(descriptor: int) -> None:
    import socket  # noqa: PLC0415 -- a parent does not need the others

    import uvloop  # noqa: PLC0415 -- the same

    from hookseal.api.serving import METRICS  # noqa: PLC0415 -- the same
    from hookseal.api.serving import run as serve  # noqa: PLC0415 -- the same
    from hookseal.cli.shared.runtime import run  # noqa: PLC0415 -- the same
    from hookseal.pages.serving import beside  # noqa: PLC0415 -- the same
    from hookseal.worker.processes.child import ParentProcess  # noqa: PLC0415 -- the same

    harden_process()  # before it receives a key
    parent = ParentProcess(descriptor)
    start = parent.start()
    structlog.contextvars.bind_contextvars(process=start.number)
    opening, output = parent.opening(start.health_url, METRICS)

    async def answer() -> None:
        with socket.socket(fileno=start.listening) as server:
            await serve(settings, extended=beside(settings), output=output, opening=opening, server=server)
        ignore_stop()

    try:
        settings = begin(api_needs(start.variables), dict(start.variables), files=start.files)
        run(answer(), loop_factory=uvloop.new_event_loop)
    except HooksealError as error:
        parent.refuse(error)
        if isinstance(error, Defect):
            raise
        raise typer.Exit(error.exit_code) from None
