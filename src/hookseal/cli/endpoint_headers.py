"""The options that say which headers an endpoint adds to its requests: names, and values that are secrets."""

from typing import Annotated, Final

import typer

from hookseal.cli.secret_files import private_bytes
from hookseal.ground.errors import Malformed
from hookseal.ground.headers import header_name, require_headers
from hookseal.secrets.endpoint_headers import HeaderChange
from hookseal.secrets.material import SecretMaterial

_MAX_BYTES: Final = 65_536  # more than the limits of all headers together
_FILE_HELP: Final = "Headers from a private file, one 'K: V' a line; - is stdin."

Header = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'K: V'",
        help="A header of its requests. Repeatable. Others on this machine can read an argument: "
        "--headers-file is safer.",
    ),
]
HeadersFile = Annotated[str | None, typer.Option(metavar="FILE", help=_FILE_HELP)]
AllHeadersFile = Annotated[str | None, typer.Option(metavar="FILE", help=f"{_FILE_HELP} They replace all that it has.")]
RemoveHeader = Annotated[
    list[str] | None, typer.Option(metavar="K", help="Leave a header out from now on. Repeatable.")
]


def read_headers(lines: list[str] | None, file: str | None) -> dict[str, SecretMaterial]:
    """Return the headers that were given as arguments and in a file, names in lower case.

    Raises `Malformed`, naming a header at most and never a value, unless all may be sent and each is given once;
    `Refused` if others may read the file.
    """
    given: dict[str, str] = {}
    for line in [*(lines or []), *_lines(file)]:
        spelled, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a header is given as 'K: V'", field="header")
        name = header_name(spelled)
        if name in given:
            raise Malformed(f"header {name} is given twice", field="header")
        given[name] = value.strip(" \t")
    require_headers(given)
    return {name: SecretMaterial(value.encode("ascii")) for name, value in given.items()}


def header_change(lines: list[str] | None, file: str | None, removed: list[str] | None) -> HeaderChange | None:
    """Return how the headers change, None if nothing was said of them.

    A file replaces all; without one, what is given is set beside the others. Raises as `read_headers` does, and
    `Malformed` if the same is to be set and removed, or to be removed where all are replaced.
    """
    if lines is None and file is None and removed is None:
        return None
    names = frozenset(map(header_name, removed or []))
    if names and file is not None:
        raise Malformed("--headers-file replaces all headers: leave out --remove-header", field="remove_header")
    given = read_headers(lines, file)
    for name in sorted(names & given.keys()):
        raise Malformed(f"header {name} is to be set and to be removed: give one of them", field="remove_header")
    return HeaderChange(given=given, removed=names, replaces_all=file is not None)


def _lines(file: str | None) -> list[str]:
    """Return the lines of the file that hold anything."""
    if file is None:
        return []
    raw = private_bytes(file, _MAX_BYTES + 1, field="headers_file")
    if len(raw) > _MAX_BYTES:
        raise Malformed(f"a file of headers has at most {_MAX_BYTES} bytes", field="headers_file")
    lines = [line.removesuffix("\r") for line in raw.decode("latin-1").split("\n")]  # what is no ASCII is refused later
    held = [line for line in lines if line.strip(" \t")]
    if not held:  # a pipe that broke must not leave an endpoint without its headers
        raise Malformed("there is no header in the file: to leave one out, give --remove-header", field="headers_file")
    return held
