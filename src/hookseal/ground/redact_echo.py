"""Redacts a receiver's answer where it repeats header values that it was sent. Pure.

Some receivers return what they got, for instance on an error page, and the beginning of an answer is stored
unencrypted: a value that is sealed everywhere else could be read there.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from itertools import compress
from string import ascii_letters, digits
from typing import Final
from urllib.parse import quote

MASK: Final = "[masked]"
RUN_CHARACTERS: Final = 8
MIN_CHARACTERS: Final = 4  # a shorter value can be guessed anyway
_BASIC: Final = "basic "

# Every run of 8 characters contains an aligned block of 4. Each block, at one byte a character, is one number: a value
# is compared block by block, and character by character only where the text contains the same block.
_STEP: Final = 4
_NUMBER: Final = "I"

_HIDDEN: Final = re.compile(b"\1+")
_CACHED_CODES: Final = 256  # a header may contain only these characters; decoded Basic credentials may contain others
_NEVER_ESCAPED: Final = re.compile(r"[A-Za-z0-9_.~-]*")
_HAS_LETTERS: Final = re.compile(r"%(?:[A-F]|[0-9][A-F])")
_ALPHANUMERIC: Final = frozenset(ascii_letters + digits)


class _Escapes(dict[int, str]):
    """The escape sequence of each character, for `str.translate`."""

    def __init__(self, escape_one: Callable[[str], str]) -> None:
        super().__init__()
        self._escape = escape_one

    def __missing__(self, code: int) -> str:
        escaped = self._escape(chr(code))
        if code < _CACHED_CODES:
            self[code] = escaped
        return escaped


def _url_escape(character: str) -> str:
    return quote(character, safe="")


def _url_escape_lower(character: str) -> str:
    return character if character in _ALPHANUMERIC else _url_escape(character).lower()


_HTML: Final = _Escapes(escape)
_URL: Final = _Escapes(_url_escape)
_URL_LOWER: Final = _Escapes(_url_escape_lower)


def redact_echo(text: str, values: Iterable[str]) -> str:
    """Return the text with `[masked]` in place of each part that repeats 8 or more consecutive characters of a value.

    A shorter value, of at least 4 characters, is redacted if it occurs as a whole. At the end of the text, where a
    value may be cut off, the first 4 characters of any value are enough. Values are also found in their JSON, HTML and
    URL encodings, and Basic credentials in their decoded form, too.

    The time is linear in the length of the text and of the encoded values; without values there is nothing to do.
    """
    if len(text) < MIN_CHARACTERS:
        return text
    encoded = {one for value in values for reading in _readings(value) for one in _encodings(reading)}
    if not encoded:
        return text
    hidden = bytearray(len(text))
    runs = _repeated_runs(text, encoded)
    for length in {len(run) for run in runs}:
        for start in range(len(text) - length + 1):
            if text[start : start + length] in runs:
                hidden[start : start + length] = b"\1" * length
    for length in range(MIN_CHARACTERS, min(RUN_CHARACTERS, len(text) + 1)):
        if any(one.startswith(text[-length:]) for one in encoded):
            hidden[-length:] = b"\1" * length
    return _masked(text, hidden)


def _masked(text: str, hidden: bytearray) -> str:
    """Return the text with the mask in place of each hidden part."""
    copied_to = 0
    parts = []
    for part in _HIDDEN.finditer(hidden):
        parts += [text[copied_to : part.start()], MASK]
        copied_to = part.end()
    return "".join([*parts, text[copied_to:]])


def _encodings(value: str) -> Iterator[str]:
    """Yield the value as it is, and in its JSON, HTML and URL encodings."""
    yield value
    if _NEVER_ESCAPED.fullmatch(value) is not None:
        return
    quoted = json.dumps(value)[1:-1]
    yield quoted
    yield quoted.replace("/", "\\/")  # as PHP writes JSON
    yield value.translate(_HTML)
    quoted = value.translate(_URL)
    yield quoted
    if _HAS_LETTERS.search(quoted) is not None:
        yield value.translate(_URL_LOWER)


def _repeated_runs(text: str, encoded: Iterable[str]) -> set[str]:
    """Return every run of 8 characters of these, or every shorter one as a whole, that also occurs in the text."""
    runs = {text[start : start + RUN_CHARACTERS] for start in range(len(text) - RUN_CHARACTERS + 1)}
    parts = frozenset[int]().union(*(_numbers(text[start:]) for start in range(_STEP)))
    repeated: set[str] = set()
    for secret in encoded:
        if len(secret) < RUN_CHARACTERS:
            if len(secret) >= MIN_CHARACTERS and secret in text:
                repeated.add(secret)
            continue
        near = list(compress(range(0, len(secret), _STEP), map(parts.__contains__, _numbers(secret))))
        starts = {start for before in range(_STEP + 1) for at in near if (start := at - before) >= 0}
        repeated |= {secret[start : start + RUN_CHARACTERS] for start in starts} & runs
    return repeated


def _numbers(text: str) -> memoryview:
    """Return each block of 4 characters as one number; all characters beyond Latin-1 are the same."""
    raw = text.encode("latin-1", "replace")
    return memoryview(raw)[: len(raw) // _STEP * _STEP].cast(_NUMBER)


def _readings(value: str) -> Iterator[str]:
    """Yield the value; for Basic credentials (RFC 7617) also the decoded user and password, and the password alone."""
    yield value
    if value[: len(_BASIC)].lower() != _BASIC:
        return
    try:
        raw = base64.b64decode(value[len(_BASIC) :], validate=True)
    except (ValueError, binascii.Error):
        return
    for credentials in {raw.decode("latin-1"), raw.decode("utf-8", errors="replace")}:
        yield credentials
        yield credentials.partition(":")[2]
