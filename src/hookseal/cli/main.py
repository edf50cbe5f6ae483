"""The command `hookseal`: its groups, and how every error becomes a message and an exit code."""

import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Final, NoReturn

import typer

from hookseal import __version__
from hookseal.cli import db, delivery, endpoint, key, up
from hookseal.cli.demo import demo
from hookseal.cli.output import Json, emit, emit_error
from hookseal.cli.publish import publish
from hookseal.cli.worker import worker
from hookseal.config.source import is_debugging
from hookseal.ground.errors import Defect, HooksealError, Malformed
from hookseal.ground.log import mask_secrets

_USAGE: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it

_EPILOG: Final = """\
First steps, with the settings of docs/settings.md in the environment:

1. hookseal db upgrade

2. hookseal key init

3. hookseal endpoint add --tenant acme --url URL --event-type '*'

4. hookseal worker

5. hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'

Every command knows --help, and --json, which prints exactly one JSON object.

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 not found, 4 conflict,

5 refused, 69 something does not answer, 70 internal error, 78 settings.
"""

app: Final = typer.Typer(
    name="hookseal",
    help="Deliver webhooks, signed with secrets that are sealed, rotated and never in the clear.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# One line for each group or command, in the order in which a newcomer needs them.
app.command()(demo)
app.add_typer(up.app, name="up")
app.add_typer(db.app, name="db")
app.add_typer(key.app, name="key")
app.add_typer(endpoint.app, name="endpoint")
app.command()(worker)
app.command()(publish)
app.add_typer(delivery.app, name="delivery")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
    as_json: Json = False,
) -> None:
    if version:
        emit({"version": __version__}, as_json=as_json, text=f"hookseal {__version__}")
        raise typer.Exit
    if as_json:
        raise Malformed("put --json behind a command: `hookseal --help` lists them")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)  # the rich help is printed by itself, and nothing is returned


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str], commands: typer.Typer = app) -> int:
    """Run one command and return its exit code; every error has then been told, once."""
    as_json = "--json" in takewhile("--".__ne__, arguments)
    try:
        code = commands(args=list(arguments), prog_name="hookseal", standalone_mode=False)
    except HooksealError as error:
        return _tell(error, as_json=as_json)
    except typer.TyperException as error:
        return _tell_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        return _tell_internal(error, as_json=as_json)
    if code == _INTERRUPTED:
        emit_error(code="interrupted", message="interrupted before it was done", field=None, as_json=as_json)
    return code if isinstance(code, int) else 0


def _tell(error: HooksealError, *, as_json: bool) -> int:
    if isinstance(error, Defect):
        _show_traceback(error)
    emit_error(code=error.code, message=str(error), field=error.field, as_json=as_json)
    return error.exit_code


def _tell_usage(error: typer.TyperException, *, as_json: bool) -> int:
    # What the parser raises has more than TyperException declares, and its classes are private.
    context: typer.Context | None = getattr(error, "ctx", None)
    field: str | None = getattr(getattr(error, "param", None), "name", None)
    message = error.format_message()
    if context is not None and not as_json:
        message = f"{message}\nTry '{context.command_path} --help'."
    emit_error(code="usage", message=message, field=field, as_json=as_json)
    return _USAGE


def _tell_internal(error: Exception, *, as_json: bool) -> int:
    _show_traceback(error)
    message = f"internal error ({type(error).__name__}), a fault of hookseal: please report it"
    if not is_debugging():
        message += " with what HOOKSEAL_LOG_LEVEL=debug shows"
    emit_error(code=Defect.code, message=message, field=None, as_json=as_json)
    return Defect.exit_code


def _show_traceback(error: Exception) -> None:
    if is_debugging():
        masked = mask_secrets(None, "debug", {"traceback": "".join(traceback.format_exception(error))})
        typer.echo(masked["traceback"], err=True)
