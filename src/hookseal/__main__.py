"""Starts the command `hookseal`, also as `python -m hookseal`, and handles interrupts from the first moment on."""

import os
import sys
from itertools import takewhile
from typing import Final, NoReturn

from hookseal.cli import interrupted

_INTERRUPTED: Final = 130


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    arguments, message = sys.argv[1:], interrupted.message(sys.argv[1:])
    try:
        from hookseal.cli import direct  # noqa: PLC0415 -- loading it may be interrupted, too

        if (code := direct.run_command(arguments)) is not None:
            _end(code)
        message = interrupted.NOT_BEGUN
        from hookseal.cli.main import run_command  # noqa: PLC0415 -- loading it takes longer than many a command runs
    except KeyboardInterrupt:
        _print_error("interrupted", message)
        _end(_INTERRUPTED)
    except ModuleNotFoundError as error:
        from hookseal.cli import incomplete  # noqa: PLC0415 -- hardly ever needed

        if (missing := incomplete.message(error)) is None:
            raise
        _print_error("configuration", missing)
        _end(incomplete.EXIT_CODE)
    _end(run_command(arguments))


def _end(code: int) -> NoReturn:
    if code == _INTERRUPTED:  # Python would end by the signal, if it came while a library made a class from text
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _print_error(code: str, message: str) -> None:
    if "--json" in takewhile("--".__ne__, sys.argv[1:]):
        sys.stdout.write(f'{{"error":{{"code":"{code}","message":"{message}","field":null}}}}\n')
    else:
        sys.stderr.write(f"hookseal: {message}\n")


if __name__ == "__main__":
    main()
