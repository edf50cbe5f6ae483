"""The command `hookseal`: how every error becomes a message and an exit code."""

import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn

import typer

from hookseal.cli import interrupted
from hookseal.cli.commands import asked, tree
from hookseal.cli.output import emit_error
from hookseal.ground.errors import Defect, HooksealError

_USAGE: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str], commands: typer.Typer | None = None) -> int:
    """Run one command and return its exit code; every error has then been told, once."""
    as_json = "--json" in takewhile("--".__ne__, arguments)
    found = commands
    try:
        found = tree(asked(arguments)) if found is None else found
        code = found(args=list(arguments), prog_name="hookseal", standalone_mode=False)
    except HooksealError as error:
        return _tell(error, as_json=as_json)
    except typer.TyperException as error:
        return _tell_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        return _tell_internal(error, as_json=as_json)
    if code == _INTERRUPTED:
        message = interrupted.NOT_BEGUN if found is None else interrupted.told(arguments)
        emit_error(code="interrupted", message=message, field=None, as_json=as_json)
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
    message = error.format_message() or "Missing command."  # which a group says by its help alone
    if context is not None and not as_json:
        message = f"{message}\nTry '{context.command_path} --help'."
    emit_error(code="usage", message=message, field=field, as_json=as_json)
    return _USAGE


def _tell_internal(error: Exception, *, as_json: bool) -> int:
    from hookseal.config.source import is_debugging  # noqa: PLC0415 -- what a probe does without is loaded late

    _show_traceback(error)
    message = f"internal error ({type(error).__name__}), a fault of hookseal: please report it"
    if not is_debugging():
        message += " with what HOOKSEAL_LOG_LEVEL=debug shows"
    emit_error(code=Defect.code, message=message, field=None, as_json=as_json)
    return Defect.exit_code


def _show_traceback(error: Exception) -> None:
    from hookseal.config.source import is_debugging  # noqa: PLC0415 -- the same
    from hookseal.ground.log import mask_secrets  # noqa: PLC0415 -- the same

    if is_debugging():
        masked = mask_secrets(None, "debug", {"traceback": "".join(traceback.format_exception(error))})
        typer.echo(masked["traceback"], err=True)
