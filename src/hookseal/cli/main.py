"""The command `hookseal`: how every error becomes a message and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn

import typer

from hookseal.cli import incomplete, interrupted
from hookseal.cli.address_advice import address_advice
from hookseal.cli.commands import requested_branch, tree, words_to_complete
from hookseal.cli.shared.printing import (
    OutputLost,
    as_output_lost,
    emit_error,
    flush_output,
    forget_wrong_sizes,
    print_error,
    print_output_lost,
)
from hookseal.errors import ConfigError, Defect, HooksealError, Refused

_USAGE_EXIT_CODE: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
# What the parser says of a value, and what a reader of a command line understands.
_PLAIN_WORDS: Final = (
    ("': Value error, ", "': "),
    ("': Input should be a valid integer, unable to parse string as an integer", "': it must be a whole number"),
    ("': Input should be a valid number, unable to parse string as a number", "': it must be a number"),
    ("': Input should be ", "': it must be "),
)


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str], commands: typer.Typer | None = None) -> int:
    """Run one command and return its exit code. An error was printed once, and standard output is written."""
    try:
        return flush_output(_run(arguments, commands))
    except OutputLost as lost:
        return print_output_lost(lost)


def _run(arguments: Sequence[str], commands: typer.Typer | None) -> int:
    forget_wrong_sizes()
    as_json = "--json" in takewhile("--".__ne__, arguments)
    command = commands
    try:
        if command is None:
            words = words_to_complete(os.environ)
            command = tree(requested_branch(arguments if words is None else words), completes=words is not None)
        code = command(args=list(arguments), prog_name="hookseal", standalone_mode=False)
    except HooksealError as error:
        return _print_hookseal_error(error, arguments, as_json=as_json)
    except typer.TyperException as error:
        return _print_usage_error(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place that can report it
        return _print_other_error(error, arguments, as_json=as_json)
    if code == _INTERRUPTED:  # which Typer returns, too: it catches the interrupt of a command
        message = interrupted.NOT_BEGUN if command is None else interrupted.message(arguments)
        emit_error(code="interrupted", message=message, field=None, as_json=as_json)
    return code if isinstance(code, int) else 0


def _print_hookseal_error(error: HooksealError, arguments: Sequence[str], *, as_json: bool) -> int:
    if isinstance(error, Defect):
        _print_traceback(error)
    return print_error(error, as_json=as_json, last_line=address_advice(error, arguments, os.environ))


def _print_usage_error(error: typer.TyperException, *, as_json: bool) -> int:
    # The errors of the parser have more fields than TyperException declares, and their classes are private.
    context: typer.Context | None = getattr(error, "ctx", None)
    field: str | None = getattr(getattr(error, "param", None), "name", None)
    message = error.format_message() or "Missing command."  # a group alone shows its help and gives no message
    for parser_words, plain_words in _PLAIN_WORDS:
        message = message.replace(parser_words, plain_words, 1)
    if context is not None and not as_json:
        message = f"{message}\nTry '{context.command_path} --help'."
    emit_error(code="usage", message=message, field=field, as_json=as_json)
    return _USAGE_EXIT_CODE


def _print_other_error(error: Exception, arguments: Sequence[str], *, as_json: bool) -> int:
    """Print an error that is neither hookseal's nor the parser's, and return its exit code. Raises `OutputLost`."""
    if isinstance(error, OSError) and "--install-completion" in arguments[:1]:
        return print_error(_completion_refused(error), as_json=as_json)
    if (lost := as_output_lost(error)) is not None:
        raise lost from None
    if isinstance(error, ModuleNotFoundError) and (missing := incomplete.message(error)) is not None:
        return print_error(ConfigError(missing), as_json=as_json)
    return _print_internal_error(error, as_json=as_json)


def _completion_refused(error: OSError) -> Refused:
    return Refused(
        f"the completion cannot be installed: {error.filename} cannot be written ({type(error).__name__}). Make it "
        "writable, or let your shell read the output of `hookseal --show-completion`"
    )


def _print_internal_error(error: Exception, *, as_json: bool) -> int:
    from hookseal.config.source import is_debugging  # noqa: PLC0415 -- loaded late, because a probe does not need it

    _print_traceback(error)
    message = f"internal error ({type(error).__name__}), a fault of hookseal: please report it"
    if not is_debugging():
        message += " with the traceback that HOOKSEAL_LOG_LEVEL=debug prints"
    emit_error(code=Defect.code, message=message, field=None, as_json=as_json)
    return Defect.exit_code


def _print_traceback(error: Exception) -> None:
    """Print the traceback, with secrets masked, if HOOKSEAL_LOG_LEVEL is `debug`."""
    from hookseal.config.source import is_debugging  # noqa: PLC0415 -- loaded late, because a probe does not need it
    from hookseal.ground.log import mask_secrets  # noqa: PLC0415 -- loaded late, because a probe does not need it

    if is_debugging():
        masked = mask_secrets(None, "debug", {"traceback": "".join(traceback.format_exception(error))})
        typer.echo(masked["traceback"], err=True)
