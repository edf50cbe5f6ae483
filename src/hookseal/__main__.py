"""The command `hookseal`, and `python -m hookseal`: what may be interrupted from its first moment on."""

import os
import sys
from itertools import takewhile
from typing import Final, NoReturn

from hookseal.cli.interrupted import NOT_BEGUN

_INTERRUPTED: Final = 130


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    try:
        from hookseal.cli.main import answer  # noqa: PLC0415 -- loading it takes longer than many a command runs
    except KeyboardInterrupt:
        _tell()
        _end(_INTERRUPTED)
    _end(answer(sys.argv[1:]))


def _end(code: int) -> NoReturn:
    if code == _INTERRUPTED:  # Python would end by the signal, if it came while a library made a class from text
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tell() -> None:
    # As `hookseal.cli.output` does, which is not loaded yet.
    if "--json" in takewhile("--".__ne__, sys.argv[1:]):
        sys.stdout.write(f'{{"error":{{"code":"interrupted","message":"{NOT_BEGUN}","field":null}}}}\n')
    else:
        sys.stderr.write(f"hookseal: {NOT_BEGUN}\n")


if __name__ == "__main__":
    main()
