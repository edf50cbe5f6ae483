"""`hookseal check`: ask a running worker whether it is ready."""

import os
from typing import Annotated

import typer

from hookseal.cli import readiness
from hookseal.cli.shared.output import Json


def check(
    *,
    url: Annotated[
        str | None,
        typer.Option(help="The worker's health_url, or one of its probes, such as .../livez."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a running worker whether it is ready: exit 0 if it is; 69 if not, or without an answer in 3 seconds.

    It names each endpoint whose deliveries wait because its row was changed without an audit row. Such a worker is
    ready, since it delivers for all others.

    Without --url it asks the worker at HOOKSEAL_HEALTH_URL, or else the one on HOOKSEAL_HEALTH_HOST and
    HOOKSEAL_HEALTH_PORT. It prints the worker's answer: its status, and the state of each part that it depends on.

    Example: hookseal check --url http://127.0.0.1:8080
    """
    raise typer.Exit(readiness.ask_and_print(url, os.environ, as_json=as_json))
