"""`hookseal worker`: the process that delivers, or the parent of several."""

import asyncio
import os
import sys
from typing import Annotated, Final

import structlog
import typer

from hookseal.cli.shared.starting import begin
from hookseal.config.load import EVERYTHING, SplitEnvironment, harden_process, split_environment
from hookseal.config.settings import MAX_PROCESSES, Settings
from hookseal.errors import Defect, HooksealError
from hookseal.worker.arq_versions import require_arq
from hookseal.worker.stopping import ignore_stop, unwritable

# If one of these is set, prometheus_client keeps its counters in files, and starts with what they contain.
_PROMETHEUS_FILES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def _require_processes(number: int | None) -> int | None:
    if number is not None and not 1 <= number <= MAX_PROCESSES:
        raise typer.BadParameter(f"must be 1 to {MAX_PROCESSES}; for more processes start another `hookseal worker`")
    return number


def worker(
    *,
    processes: Annotated[
        int | None,
        typer.Option(
            callback=_require_processes,
            metavar="N",
            help=f"The number of worker processes, 1 to {MAX_PROCESSES}. Default: HOOKSEAL_PROCESSES, or 1.",
        ),
    ] = None,
    # Set only by the parent: the descriptor of the socket on which it sends the settings to this process.
    parent_channel: Annotated[int | None, typer.Option(hidden=True)] = None,
    # Set by `up` and `demo`, which bring no arq: the same loop, without arq's worker around it.
    without_arq: Annotated[bool, typer.Option("--without-arq", hidden=True)] = False,
    # The ready line is always JSON; `main.run_command` looks for the flag itself when it prints an error.
    as_json: Annotated[bool, typer.Option("--json", help="Print an error as JSON, too.")] = False,  # noqa: ARG001
) -> None:
    """Deliver until SIGTERM; then finish the requests in flight and exit.

    When it is ready, it prints one JSON line on standard output, with the URL of its probes: /livez,
    /readyz, /startupz and /metrics on HOOKSEAL_HEALTH_HOST and HOOKSEAL_HEALTH_PORT. `hookseal check`
    asks them. Logs go to standard error. With two processes or more, a parent starts them, restarts
    those that end, and answers the probes. Each process opens up to 12 connections to PostgreSQL, or 13
    with HOOKSEAL_LISTEN.

    Example: HOOKSEAL_HEALTH_PORT=8080 hookseal worker --processes 2
    """
    for name in _PROMETHEUS_FILES:
        os.environ.pop(
            name, None
        )  # before prometheus_client is loaded, and so that child processes do not inherit them
    if not without_arq:
        require_arq()
    if parent_channel is not None:
        _run_child(parent_channel, without_arq=without_arq)
        return
    if sys.stdout is None:  # the descriptor was closed before the start
        raise unwritable("it is closed")
    environment = split_environment()
    settings = begin(EVERYTHING)
    number = processes or settings.worker.processes
    if number == 1:
        del environment  # it contains the keys as text
        _run_single(settings, without_arq=without_arq)
    else:
        _run_parent(settings, environment.with_unwrapped(settings.secrets), number, without_arq=without_arq)


def _run_single(settings: Settings, *, without_arq: bool) -> None:
    import uvloop  # noqa: PLC0415 -- a parent delivers nothing, and does not need it

    from hookseal.cli.shared.runtime import run  # noqa: PLC0415 -- a parent does not need it
    from hookseal.worker.run import run as run_worker  # noqa: PLC0415 -- a parent does not need it

    async def deliver() -> None:
        await run_worker(settings, with_arq=not without_arq)
        ignore_stop()

    run(deliver(), loop_factory=uvloop.new_event_loop)


def _run_parent(settings: Settings, environment: SplitEnvironment, number: int, *, without_arq: bool) -> None:
    from hookseal.worker.processes.parent import Parent  # noqa: PLC0415 -- a single worker has none
    from hookseal.worker.processes.process import COMMAND  # noqa: PLC0415 -- the same

    *words, channel = COMMAND
    command = (*words, "--without-arq", channel) if without_arq else COMMAND

    async def supervise() -> None:
        await Parent(settings, environment, number, command=command).run()
        ignore_stop()

    asyncio.run(supervise())


def _run_child(descriptor: int, *, without_arq: bool) -> None:
    import uvloop  # noqa: PLC0415 -- a parent does not need it

    from hookseal.cli.shared.runtime import run  # noqa: PLC0415 -- a parent does not need it
    from hookseal.worker.processes.child import ParentProcess  # noqa: PLC0415 -- a parent does not need it
    from hookseal.worker.run import run as run_worker  # noqa: PLC0415 -- a parent does not need it

    harden_process()  # before it receives a key
    parent = ParentProcess(descriptor)
    start = parent.start()
    structlog.contextvars.bind_contextvars(process=start.number)
    opening, output = parent.opening(start.health_url)

    async def deliver() -> None:
        await run_worker(settings, output=output, opening=opening, with_arq=not without_arq)
        ignore_stop()

    try:
        settings = begin(EVERYTHING, dict(start.variables), files=start.files)
        run(deliver(), loop_factory=uvloop.new_event_loop)
    except HooksealError as error:
        parent.refuse(error)
        if isinstance(error, Defect):
            raise
        raise typer.Exit(error.exit_code) from None
