"""Runs `--version`, and `check` as probes run it, without the parser of commands, which takes longer than both."""

import os
from collections.abc import Sequence
from typing import Final

from hookseal.ground.version import VERSION

_JSON: Final = "--json"


def run_command(arguments: Sequence[str]) -> int | None:
    """Run the command and return its exit code, or None if the parser must do it: for help, or to report an error."""
    words = [word for word in arguments if word != _JSON]
    as_json = len(words) < len(arguments)
    if words == ["--version"]:
        return _print_version(as_json=as_json)
    if arguments[:1] == ["check"] and (url := _url(words[1:])) is not None:
        return _check(url or None, arguments, as_json=as_json)
    return None


def _print_version(*, as_json: bool) -> int:
    try:
        print(f'{{"version":"{VERSION}"}}' if as_json else f"hookseal {VERSION}", flush=True)
    except OSError as problem:
        from hookseal.cli.shared.printing import OutputLost, print_output_lost  # noqa: PLC0415 -- loading it takes longer

        return print_output_lost(OutputLost(problem))
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


def _check(url: str | None, arguments: Sequence[str], *, as_json: bool) -> int:
    from hookseal.cli.address_advice import address_advice  # noqa: PLC0415 -- `--version` needs none of these
    from hookseal.cli.readiness import ask_and_print  # noqa: PLC0415 -- the same
    from hookseal.cli.shared.printing import OutputLost, print_error, print_output_lost  # noqa: PLC0415 -- the same
    from hookseal.errors import HooksealError  # noqa: PLC0415 -- the same

    try:
        try:
            return ask_and_print(url, os.environ, as_json=as_json)
        except HooksealError as error:
            return print_error(error, as_json=as_json, last_line=address_advice(error, arguments, os.environ))
    except OutputLost as lost:
        return print_output_lost(lost)
