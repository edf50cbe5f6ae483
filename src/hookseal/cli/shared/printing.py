"""What a command prints: one JSON object or text, and its errors. It loads no library for terminals."""

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

import msgspec

from hookseal.cli.shared.wrapping import INDENT, SPACE, wrapped
from hookseal.errors import HooksealError, LocalFailure, NotFound, with_advice
from hookseal.ground.ids import plural
from hookseal.secrets.core.material import SecretMaterial

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PIPE_CLOSED: Final = 141  # 128 + SIGPIPE, as shells report it

# What an error names is an argument of `Admin`; these options of commands have other names.
_OPTIONS: Final = {
    "after": "cursor",
    "ca": "ca_file",
    "change_headers": "header",
    "channels": "channel",
    "delivery_id": "delivery",
    "endpoint_id": "endpoint",
    "event_types": "event_type",
    "expires_at": "expires",
    "expiry_seconds": "expires",
    "headers": "header",
    "heads": "head",
    "older_than_days": "older_than",
    "overlap_seconds": "overlap",
    "replay_id": "replay",
    "scopes": "scope",
    "states": "state",
    "tenant_id": "tenant",
}
_REMOVING: Final = {"ca": "remove_ca", "client_cert": "remove_client_cert"}  # what is removed was not there
_MAX_PRINTED: Final = 1_000  # characters of a body
_USUAL_WIDTH: Final = 80
_LEAST_WIDTH: Final = 40  # a narrower terminal wraps the lines itself
_SIZE: Final = re.compile("[0-9]{1,4}")
_COLOUR: Final = re.compile(r"(\x1b\[[01]m)")  # bold and its end, which tables have; others could hide text
# What stands until it is printed for a backtick and a space of a text of others; `printable` lets none through.
_TICK: Final = "\ue000"
_PLAIN: Final = str.maketrans("` ", _TICK + SPACE)
_PRINTED: Final = str.maketrans(_TICK + SPACE, "` ")
_KEPT: Final = _TICK + SPACE
_EXACT: Final = "\ue001"  # begins a line that is not laid out, until it is printed
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class OutputLost(Exception):
    """Standard output cannot be written; the cause is in `problem`."""

    def __init__(self, problem: OSError) -> None:
        super().__init__(problem)
        self.problem = problem


def emit(
    value: "Mapping[str, object] | DataclassInstance",
    *,
    as_json: bool,
    text: Callable[[], str] | str,
    is_exact: bool = False,
) -> None:
    """Print the result as one JSON object on one line, or the text, on standard output.

    On a terminal the lines of a text are wrapped, unless it `is_exact`: a body, or lines for a shell.

    The JSON of a result of an `Admin` has its fields, in their order, but those that are hidden; a secret is null. To
    print a secret that was asked for, give `fields_of(result) | {"secret": ...}`.
    """
    if as_json:
        _print(_escaped(msgspec.json.encode(_plain(value)).decode("utf-8")))
    else:
        shown = _harmless(text if isinstance(text, str) else text())
        _print(shown if is_exact else "\n".join(fitting(shown, sys.stdout)))


def fields_of(result: "DataclassInstance") -> dict[str, object]:
    """Return the fields of a result of an `Admin` that its JSON has."""
    return {
        each.metadata.get("printed", each.name): getattr(result, each.name)
        for each in fields(result)
        if not each.metadata.get("hidden")
    }


def note(text: str, *, prefix: str = "hookseal: ") -> None:
    """Print a note beside the result, on standard error: progress, or a warning. Breaks of the text are spelled out.

    On a terminal it is wrapped.
    """
    for line in fitting(printable(text, kept=_KEPT), sys.stderr, prefix):
        print(line, file=sys.stderr, flush=True)


def emit_error(*, code: str, message: str, field: str | None, as_json: bool) -> None:
    """Print an error: one JSON object on standard output, or its lines on standard error.

    Lines that are indented are to be copied, so they have nothing before them. On a terminal the others are wrapped.
    """
    message = message.encode("utf-8", "backslashreplace").decode()  # an argument may have bytes that are not UTF-8
    if as_json:
        emit({"error": {"code": code, "message": message, "field": field}}, as_json=True, text="")
        return
    for line in message.splitlines():
        for part in fitting(printable(line), sys.stderr, "" if line.startswith(INDENT) else "hookseal: "):
            print(part, file=sys.stderr, flush=True)


def print_error(error: HooksealError, *, as_json: bool, last_line: str | None = None) -> int:
    """Print the error with its advice, and `last_line` after them if it is given. Return the exit code of the error."""
    message = with_advice(error) if last_line is None else f"{with_advice(error)}\n{last_line}"
    emit_error(code=error.code, message=message, field=option_named(error), as_json=as_json)
    return error.exit_code


def option_named(error: HooksealError) -> str | None:
    """Return the option that gives the argument which the error names, or the name of the argument itself."""
    if isinstance(error, NotFound) and error.field in _REMOVING:
        return _REMOVING[error.field]
    return option_of(error.field)


def option_of(argument: str | None) -> str | None:
    """Return the option that gives this argument of `Admin`, or the name itself."""
    return argument if argument is None else _OPTIONS.get(argument, argument)


def as_output_lost(error: Exception) -> OutputLost | None:
    """Return the error as `OutputLost` if it says that standard output cannot be written, else None.

    A library that prints help raises an `OSError` of its own.
    """
    if isinstance(error, OSError) and error.errno in _FULL:  # writing to a file has messages of its own
        return OutputLost(error)
    return error if isinstance(error, OutputLost) else None


def print_output_lost(lost: OutputLost) -> int:
    """Say why standard output cannot be written, unless its reader has ended; return the exit code."""
    _discard_output()
    if isinstance(lost.problem, BrokenPipeError):
        return PIPE_CLOSED
    return print_error(_unwritable(lost.problem), as_json=False)


def flush_output(code: int) -> int:
    """Write what is left in the buffer of standard output; return the exit code of a command that ended with `code`.

    If it cannot be written, an error is printed, unless the command has printed one already: its code then stays.
    """
    try:
        if sys.stdout is not None:  # it is if the descriptor was closed before the start
            sys.stdout.flush()
    except OSError as problem:
        if code == 0:
            return print_output_lost(OutputLost(problem))
        _discard_output()
    return code


def _discard_output() -> None:
    """Write to nowhere from now on: Python flushes at exit, and would report the error again, with exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminal_width(stream: TextIO | None) -> int | None:
    """Return how many columns the terminal has on which the stream is shown; None if it is shown on none."""
    if stream is None or not stream.isatty():
        return None
    return max(_given_columns() or _columns_of(stream), _LEAST_WIDTH)


def _given_columns() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if _SIZE.fullmatch(given) else 0


def forget_wrong_sizes() -> None:
    """Remove a size of the terminal from the environment that is none: the library which lays out help fails at it."""
    for name in ("COLUMNS", "LINES"):
        if not _SIZE.fullmatch(os.environ.get(name, "")):
            os.environ.pop(name, None)


def _columns_of(stream: TextIO) -> int:
    """Return how many columns the terminal of the stream says that it has; 80 if it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except OSError:
        return _USUAL_WIDTH


def fitting(text: str, stream: TextIO | None, prefix: str = "") -> Iterator[str]:
    """Yield the lines of the text as they are to be shown on the stream, each with the prefix."""
    width = terminal_width(stream)
    for line in text.split("\n"):
        if line.startswith(_EXACT):
            yield prefix + line.removeprefix(_EXACT)
        elif width is None or _COLOUR.search(line):  # what has colours has been laid out
            yield prefix + line.translate(_PRINTED)
        else:
            yield from laid_out(line, width, prefix)


def laid_out(line: str, width: int, prefix: str = "") -> list[str]:
    """Return the line as `wrapped` does, with what `plain` replaced."""
    return [each.translate(_PRINTED) for each in wrapped(line, width, prefix=prefix, length=_columns)]


def _columns(text: str) -> int:
    if text.translate(_PRINTED).isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 -- few texts need it

    return cell_len(text)


def rfc3339(moment: datetime) -> str:
    """Return the moment in UTC with milliseconds and `Z`. Raises `ValueError` if it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone cannot be printed")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str, *, kept: str = "") -> str:
    """Return the text with control characters spelled out, but those that are `kept`: it cannot steer a terminal."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode("ascii") for c in text)


def plain(text: str) -> str:
    """Return a text of others for one that is given to `emit` or `note`: printable, and never laid out as a command.

    What it returns is as wide as what is printed.
    """
    return printable(text).translate(_PLAIN)


def secret_text(name: str, secret: str, of_endpoint: str) -> str:
    """Return the line of a secret for a text that is given to `emit`, which prints it as it is however long.

    If a terminal does not show all of it, what would be copied is another secret: the text is how to get it.
    """
    if secret.isprintable() and secret == secret.strip():
        return f"{_EXACT}{name} {secret}"
    return (
        f"{name} not shown: a terminal does not show all its characters. To get it, run\n"
        f"  hookseal secret reveal {of_endpoint} --secret-out FILE"
    )


def printable_body(body: str) -> str:
    """Return the first 1,000 characters of a body, as `plain` does, and how many follow."""
    rest = len(body) - _MAX_PRINTED
    return plain(body[:_MAX_PRINTED]) + (
        f" ... and {plural(rest, 'more character', 'more characters')}" if rest > 0 else ""
    )


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as problem:  # what translates the errors of servers must not take it for one of them
        raise OutputLost(problem) from None


def _unwritable(problem: OSError) -> LocalFailure:
    return LocalFailure(
        f"standard output cannot be written ({problem.strerror}): make room there, or send it elsewhere. What the "
        "command changed stays changed: check that before you run it again"
    )


def _plain(value: object) -> object:
    match value:
        case datetime():
            return rfc3339(value)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case SecretMaterial():
            return None
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _plain(fields_of(value))
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes() | bytearray() | memoryview():
            raise TypeError("bytes are not printed")
        case _:
            return value


def _harmless(text: str) -> str:
    """Return the text with control characters spelled out, but line breaks, colours of tables, and our marks."""
    kept = "\n" + _KEPT + _EXACT
    return "".join(part if _COLOUR.fullmatch(part) else printable(part, kept=kept) for part in _COLOUR.split(text))


def _escaped(text: str) -> str:
    """Return the JSON with control characters escaped, so that it cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
