"""`hookseal up`: the servers of the demo, until Ctrl-C; and `up env`, which prints their settings for a shell."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hookseal.cli.demo import embedded_part
from hookseal.cli.shared.output import Json, JsonLines, emit, note, plain, printable_body
from hookseal.cli.shared.runtime import run
from hookseal.config import names
from hookseal.config.keys import INSTALLATION, KMS, NEXT_KEY, PREVIOUS_KEYS, WRAPPED_NAMES
from hookseal.errors import Malformed
from hookseal.ground.wire import Scheme

app: Final = typer.Typer()

_OTHER_KEYS: Final = frozenset({NEXT_KEY, PREVIOUS_KEYS, *WRAPPED_NAMES, KMS, INSTALLATION})


@app.callback(invoke_without_command=True)
def up(
    context: typer.Context,
    *,
    scheme: Annotated[
        Scheme,
        typer.Option(metavar="SCHEME", help="How new endpoints of the HTTP API sign: standard, svix or x-webhook."),
    ] = Scheme.STANDARD,
    as_json: JsonLines = False,
) -> None:
    """Run an embedded PostgreSQL and Valkey, a worker, the HTTP API, and a receiver that prints every request.

    For each request it prints up to 1,000 characters of the body (--json: all of it), and whether the secret of an
    endpoint with its url verifies the request. If it does not, the answer is 401, else 204.

    It also prints links to the pages of a customer and of an operator, a token for the HTTP API, and two commands that
    use it. The token, for every tenant and with every scope, is made once for the folder, and again if you revoke it.

    It has settings of its own, and says which of your HOOKSEAL_ and SECRETS_ variables it does not use.

    Press Ctrl-C to end it: worker and API finish their requests in flight, which takes 35 seconds at most. Press it
    again to end it at once: what was in flight is sent again at the next start. If the worker, the API, PostgreSQL or
    Valkey dies, `up` ends with an error that names it and its log. The logs stay through one more start, as *.log.1.

    The data stays in .hookseal/. If root starts it, the servers run as the user `nobody`, and their data is in
    temporary folders, which .hookseal/*.place name: it goes when the machine empties these. It refuses a folder
    .hookseal of another user, one that others may enter, and a link or a file of another user in it.

    In a second terminal: eval "$(hookseal up env)"
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise Malformed("put --json after the command: hookseal up env --json")
        return
    parts = embedded_part("hookseal.demo.up")
    folder = embedded_part("hookseal.demo.state").default_folder()
    _report("starting ... (Ctrl-C ends it)")
    run(
        parts.stay_up(
            folder, _say_json if as_json else partial(_say_text, scheme=scheme), report=_report, scheme=scheme
        )
    )
    _report("ended; the data stays for the next start")


@app.command()
def env(*, as_json: Json = False) -> None:
    """Print the settings of the running servers for a shell: eval "$(hookseal up env)".

    It prints the path of the file with the master key, never the key.
    """
    state = embedded_part("hookseal.demo.state")
    settings: dict[str, str] = state.settings(state.default_folder())
    emit(
        settings,
        as_json=as_json,
        text=lambda: exported(settings, os.environ),
        is_exact=True,
    )


def exported(settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Return the lines that give a shell with this environment these settings, and unset others that would win.

    They also unset other master keys, which the worker of `up` does not have.
    """
    read = frozenset(map(names.variable_set_by, settings)) | _OTHER_KEYS
    others = sorted(name for name in environ if names.variable_set_by(name) in read and name not in settings)
    lines = [f"unset {' '.join(others)}"] if others else []
    return "\n".join([*lines, *(f"export {name}={shlex.quote(value)}" for name, value in settings.items())])


def _report(line: str) -> None:
    note(line, prefix="")


def _say_json(event: dict[str, Any]) -> None:
    emit(event, as_json=True, text="")


def _path_line() -> str:
    """Return the line that puts this command on the PATH of another terminal; nothing if its folder is unknown."""
    folder = Path(sys.executable).parent
    return f'  export PATH={shlex.quote(str(folder))}:"$PATH"\n' if (folder / "hookseal").is_file() else ""


def _curl(event: Mapping[str, Any], path: str, body: Mapping[str, Any]) -> str:
    """Return a command that posts this to the API, for a tenant other than that of the commands above."""
    headers = f"-H 'Authorization: Bearer {event['token']}' -H 'Content-Type: application/json'"
    return f"curl {headers} {event['api_url']}/api/v1/app/globex/{path} -d {shlex.quote(json.dumps(body))}"


def _say_text(event: dict[str, Any], scheme: Scheme = Scheme.STANDARD) -> None:
    if event["event"] == "up.ready":
        signs = "" if scheme is Scheme.STANDARD else f" --scheme {scheme}"
        emit(
            event,
            as_json=False,
            text=f"Ready. In a second terminal, in this folder:\n\n"
            f'{_path_line()}  eval "$(hookseal up env)"\n'
            f"  hookseal endpoint add --tenant acme --url {event['receiver_url']} --event-type '*'{signs}\n"
            f"  hookseal publish --tenant acme --event-type invoice.paid --data '{{\"id\": 1}}'\n"
            f"  hookseal delivery list\n\n"
            f"Or over HTTP, from any language:\n\n"
            f"  {_curl(event, 'endpoint', {'url': event['receiver_url']})}\n"
            f"  {_curl(event, 'msg', {'eventType': 'invoice.paid', 'payload': {'id': 1}})}\n\n"
            f"Repeat the eval after each start, since PostgreSQL and Valkey get new ports. Add\n"
            f"each endpoint only once, since the receiver keeps its URL.\n\n"
            f"The links open the pages of acme, a customer, and those of an operator: once, in\n"
            f"the next ten minutes. `hookseal portal link` prints others.\n\n"
            f"receiver  {event['receiver_url']}\n"
            f"pages     {event['portal_link']}\n"
            f"operator  {event['operator_link']}\n"
            f"API       {event['api_url']}\n"
            f"probes    {event['health_url']}/readyz, {event['api_health_url']}/readyz\n"
            f"metrics   {event['health_url']}/metrics, {event['api_health_url']}/metrics\n"
            f"logs      {event['worker_log']}, {event['api_log']}\n",
        )
        return
    facts = {name: plain(str(event.get(name))) for name in ("path", "webhook_id", "attempt", "message")}
    kind = "replay" if event.get("replay") else "retry" if event["retry"] else ""
    again = f"  {kind}, attempt {facts['attempt']}" if kind else ""
    how = {True: "verified", False: "REFUSED", None: "not verified"}[event["verified"]]
    received = f"received  {facts['path']}  webhook-id {facts['webhook_id']}{again}  {how}, {facts['message']}"
    emit(event, as_json=False, text=received)
    if event["event"] == "request.received":
        emit(event, as_json=False, text=f"          {printable_body(event['body'])}")
