"""`hookseal up`: the stack of the demo, staying up, and `up env`, which points another terminal at it."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from hookseal.cli.demo import embedded_part
from hookseal.cli.output import Json, JsonLines, emit
from hookseal.cli.runtime import run
from hookseal.config import names
from hookseal.ground.errors import Malformed

app: Final = typer.Typer()


@app.callback(invoke_without_command=True)
def up(
    context: typer.Context,
    *,
    as_json: JsonLines = False,
) -> None:
    """Hold up an embedded PostgreSQL and Valkey, a worker, and a receiver that takes everything.

    Ends with Ctrl-C. What was published stays in .hookseal/ for the next time; as root the servers run as
    nobody, and their data lies where .hookseal/*.place says.

    In a second terminal: eval "$(hookseal up env)"
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise Malformed("put --json behind the command: hookseal up env --json")
        return
    parts = embedded_part("hookseal.demo.up")
    folder = embedded_part("hookseal.demo.state").here()
    print("starting ... (Ctrl-C ends it)", file=sys.stderr, flush=True)
    run(parts.stay_up(folder, _say_json if as_json else _say_text))


@app.command()
def env(*, as_json: Json = False) -> None:
    """Print the settings of the stack that is up: eval "$(hookseal up env)".

    The master key is named by its file, never printed.
    """
    state = embedded_part("hookseal.demo.state")
    settings: dict[str, str] = state.settings(state.here())
    emit(
        settings,
        as_json=as_json,
        text=lambda: exported(settings, os.environ),
    )


def exported(settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Return the lines that point a shell with this environment at these settings, and at no other urls."""
    read = frozenset(map(names.read_as, settings))
    others = sorted(name for name in environ if names.read_as(name) in read and name not in settings)
    lines = [f"unset {' '.join(others)}"] if others else []
    return "\n".join([*lines, *(f"export {name}={shlex.quote(value)}" for name, value in settings.items())])


def _say_json(told: dict[str, Any]) -> None:
    print(msgspec.json.encode(told).decode(), flush=True)


def _path_line() -> str:
    """Return what a terminal that knows of no virtual environment needs to find this command; nothing if unknown."""
    folder = Path(sys.executable).parent
    return f'  export PATH={shlex.quote(str(folder))}:"$PATH"\n' if (folder / "hookseal").is_file() else ""


def _say_text(told: dict[str, Any]) -> None:
    if told["event"] == "up.ready":
        print(
            f"up. In a second terminal, in this folder (the eval again after each start: the ports are new):\n\n"
            f'{_path_line()}  eval "$(hookseal up env)"\n'
            f"  hookseal endpoint add --tenant acme --url {told['receiver_url']} --event-type '*'\n"
            f"  hookseal publish --tenant acme --event-type invoice.paid --data '{{\"id\": 1}}'\n"
            f"  hookseal delivery list\n\n"
            f"probes    {told['health_url']}/readyz\nlog       {told['worker_log']}\n",
            flush=True,
        )
        return
    again = f"  retry, attempt {told['attempt']}" if told["retry"] else ""
    print(f"received  {told['path']}  {told['bytes']} bytes  webhook-id {told['webhook_id']}{again}", flush=True)
