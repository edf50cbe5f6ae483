"""Runs `--version`, and `check` as probes run it, without the parser of commands, which takes longer than both."""

import os
from collections.abc import Sequence
from typing import Final

from hookseal.cli.address_advice import address_advice
from hookseal.cli.shared.printing import OutputLost, emit, print_error, print_output_lost
from hookseal.errors import HooksealError

_JSON: Final = "--json"


def run_command(arguments: Sequence[str]) -> int | None:
    """Run the command and return its exit code, or None if the parser must do it: for help, or to report an error."""
    try:
        return _run(arguments)
    except OutputLost as lost:
        return print_output_lost(lost)


def _run(arguments: Sequence[str]) -> int | None:
    words = [word for word in arguments if word != _JSON]
    as_json = len(words) < len(arguments)
    try:
        if words == ["--version"]:
            return _print_version(as_json=as_json)
        if arguments[:1] == ["check"] and (url := _url(words[1:])) is not None:
            return _check(url or None, as_json=as_json)
    except HooksealError as error:
        return print_error(error, as_json=as_json, last_line=address_advice(error, arguments, os.environ))
    return None


def _print_version(*, as_json: bool) -> int:
    from hookseal.ground.version import VERSION  # noqa: PLC0415 -- to find it takes longer than all else here

    emit({"version": VERSION}, as_json=as_json, text=f"hookseal {VERSION}")
    return 0


def _url(options: Sequence[str]) -> str | None:
    """Return the value of the only option `--url`, "" if there are no options, None if there are others."""
    match options:
        case []:
            return ""
        case ["--url", url] if not url.startswith("-"):
            return url
        case [option] if option.startswith("--url="):
            return option.removeprefix("--url=")
        case _:
            return None


def _check(url: str | None, *, as_json: bool) -> int:
    from hookseal.cli.readiness import ask_and_print  # noqa: PLC0415 -- `--version` has no use for HTTP

    return ask_and_print(url, os.environ, as_json=as_json)
