"""`hookseal verify`: verify a request that was saved in files, as a receiver does."""

import re
from typing import Annotated, Final

import msgspec
import typer

from hookseal.cli.shared.input_files import STANDARD_INPUT, read_input
from hookseal.cli.shared.output import Json, emit, plain
from hookseal.cli.shared.secret_files import read_secret_text
from hookseal.cli.shared.verification import Answer, verdict
from hookseal.errors import Malformed, Refused
from hookseal.ground import durations, json_problem
from hookseal.ground.clock import SystemClock
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.receiver import TOLERANCE_SECONDS
from hookseal.receiver.verification import format_seconds

_MAX_HEADERS_BYTES: Final = 65_536
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_MAX_PUBLIC_KEY_BYTES: Final = 256
_ONE_PUBLIC_KEY: Final = re.compile(r"whpk_[!-~]{0,128}(?:\r?\n)?")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FIRST_LINE: Final = re.compile(r"(?:[A-Z]+ \S+ )?HTTP/[0-9.]+(?: .*)?")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


def verify(
    *,
    secret_file: Annotated[
        list[str], typer.Option(help="A file with a secret or a whpk_ key; - is stdin. Repeatable.")
    ],
    headers_file: Annotated[str, typer.Option(help="The headers: `Name: value` lines, or a JSON object; - is stdin.")],
    body_file: Annotated[str, typer.Option(help="The body, byte for byte as received; - is stdin.")],
    tolerance: Annotated[
        str, typer.Option(metavar="DURATION", help="How old the request may be: 5m, or a number of seconds.")
    ] = f"{TOLERANCE_SECONDS}s",
    at: Annotated[float | None, typer.Option(help="Verify as if it were this time, in Unix seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Verify a saved request as a receiver with these secrets does: exit 0 if it verifies, else 1 with the reason.

    A file with a secret must be private (mode 0600). A file with only a public key (whpk_...) need not be private.

    Example: hookseal verify --secret-file secret --headers-file headers --body-file body
    """
    if [*secret_file, headers_file, body_file].count(STANDARD_INPUT) > 1:
        raise Malformed("standard input can be read only once: give - for one file only")
    tolerated = _tolerance(tolerance)
    secrets = [_secret_or_public_key(source) for source in secret_file]
    headers = _headers(_read_limited(headers_file, _MAX_HEADERS_BYTES, field="headers_file"))
    body = _read_limited(body_file, MAX_BODY_BYTES, field="body_file")
    now = SystemClock().now().timestamp() if at is None else at
    answer, message = verdict(body, headers, secrets, now=now, tolerance=tolerated)
    emit(answer, as_json=as_json, text=lambda: _text(answer, message))
    raise typer.Exit(0 if answer["verified"] else 1)


def _tolerance(text: str) -> float:
    """Return the seconds of a duration, or of a number of them, which may have a fraction. Raises `Malformed`."""
    if (milliseconds := durations.whole(text, "ms", needs_unit=True)) is not None:
        return milliseconds / 1_000
    if _SECONDS.fullmatch(text):
        return float(text)
    raise Malformed("tolerance must be a duration as 90s or 5m, or a number of seconds", field="tolerance")


def _secret_or_public_key(source: str) -> str:
    try:
        return read_secret_text(source)
    except Refused:  # others may read the file, as they may read a public key
        text = read_input(source, _MAX_PUBLIC_KEY_BYTES, field="secret_file").decode("latin-1")
        if not _ONE_PUBLIC_KEY.fullmatch(text):
            raise
        return text.rstrip("\r\n")


def _text(answer: Answer, message: str) -> str:
    lines = [f"verified  {'yes, ' if answer['verified'] else 'NO: '}{message}"]
    if answer["scheme"] is not None:
        lines.append(f"scheme    {answer['scheme']}")
        lines.append(f"delivery  {plain(answer['delivery_id'] or '-')}")
    if answer["age_seconds"] is not None:
        age = answer["age_seconds"]
        lines.append(f"time      {answer['timestamp']}, {format_seconds(abs(age))} s {'old' if age >= 0 else 'ahead'}")
    return "\n".join(lines)


def _read_limited(source: str, most_bytes: int, *, field: str) -> bytes:
    content = read_input(source, most_bytes, field=field)
    if len(content) > most_bytes:
        raise Malformed(f"{field} must have at most {most_bytes} bytes", field=field)
    return content


def _headers(raw: bytes) -> dict[str, str]:
    text = raw.removeprefix(_BYTE_ORDER_MARK)
    return _from_json(text) if text.lstrip().startswith(b"{") else _from_lines(text.decode("latin-1"))


def _from_json(raw: bytes) -> dict[str, str]:
    try:
        headers = msgspec.json.decode(raw, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, RecursionError):
        why = json_problem.said(raw.decode("utf-8", "replace"))
        raise Malformed(
            f"headers_file must be one JSON object of names with a text each, or a list of texts{why}",
            field="headers_file",
        ) from None
    return {name: value if isinstance(value, str) else ", ".join(value) for name, value in headers.items()}


def _from_lines(text: str) -> dict[str, str]:
    """Return the headers up to the first empty line. A name that is repeated gets all its values (RFC 9110, 5.3)."""
    headers: dict[str, list[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.removesuffix("\r")
        if not stripped:
            break
        if number == 1 and _FIRST_LINE.fullmatch(stripped):
            continue
        field = _FIELD.fullmatch(stripped)
        if field is None:
            raise Malformed(f"line {number} of headers_file is no `Name: value`", field="headers_file")
        headers.setdefault(field[1].lower(), []).append(field[2])
    return {name: ", ".join(values) for name, values in headers.items()}
