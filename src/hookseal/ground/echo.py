"""What a receiver repeats of the header values that it was sent, taken out of its answer. Pure.

Receivers answer with what they got, for instance on their error pages, and the beginning of an answer is stored in
the clear: so a value that is sealed everywhere else would be readable there.
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
LEAST_CHARACTERS: Final = 4  # a shorter value is guessed, not told
_BASIC: Final = "basic "

# Every run of 8 characters of a value holds 4 that begin at a multiple of 4. As one byte each they are one number: so a
# value is looked through in steps, and only where the text holds the same 4 characters more closely.
_STEP: Final = 4
_NUMBER: Final = "I"

_HIDDEN: Final = re.compile(b"\1+")
_REMEMBERED: Final = 256  # characters that a header may hold; Basic credentials may stand for more
_UNCHANGED: Final = re.compile(r"[A-Za-z0-9_.~-]*")
_HAS_LETTERS: Final = re.compile(r"%(?:[A-F]|[0-9][A-F])")
_ALPHANUMERIC: Final = frozenset(ascii_letters + digits)


class _Spelling(dict[int, str]):
    """How each character is spelled, for `str.translate`."""

    def __init__(self, spell: Callable[[str], str]) -> None:
        super().__init__()
        self._spell = spell

    def __missing__(self, code: int) -> str:
        spelled = self._spell(chr(code))
        if code < _REMEMBERED:
            self[code] = spelled
        return spelled


def _quoted(character: str) -> str:
    return quote(character, safe="")


def _quoted_lower(character: str) -> str:
    return character if character in _ALPHANUMERIC else _quoted(character).lower()


_HTML: Final = _Spelling(escape)
_URL: Final = _Spelling(_quoted)
_URL_LOWER: Final = _Spelling(_quoted_lower)


def without_echo(text: str, values: Iterable[str]) -> str:
    """Return the text with `[masked]` in the place of all that repeats a value: 8 characters of it in a row, or more.

    A shorter value, of 4 characters at least, is found as a whole, and at the end of the text, where it may have been
    cut off, the first 4 characters of any value will do. Values are found as they are and as JSON, HTML or a url
    spells them; of Basic credentials what they stand for is found, too.

    It takes time in proportion to the text and the spelled values together, whatever they hold; none without values.
    """
    if len(text) < LEAST_CHARACTERS:
        return text
    spelled = {one for value in values for told in _told(value) for one in _spelled(told)}
    if not spelled:
        return text
    hidden = bytearray(len(text))
    runs = _repeated(text, spelled)
    for length in {len(run) for run in runs}:
        for start in range(len(text) - length + 1):
            if text[start : start + length] in runs:
                hidden[start : start + length] = b"\1" * length
    for length in range(LEAST_CHARACTERS, min(RUN_CHARACTERS, len(text) + 1)):
        if any(one.startswith(text[-length:]) for one in spelled):
            hidden[-length:] = b"\1" * length
    return _masked(text, hidden)


def _masked(text: str, hidden: bytearray) -> str:
    """Return the text with the mask in the place of each part that is hidden."""
    shown = 0
    parts = []
    for part in _HIDDEN.finditer(hidden):
        parts += [text[shown : part.start()], MASK]
        shown = part.end()
    return "".join([*parts, text[shown:]])


def _spelled(value: str) -> Iterator[str]:
    """Give the value as it is, and as JSON, HTML and a url spell it."""
    yield value
    if _UNCHANGED.fullmatch(value) is not None:
        return
    quoted = json.dumps(value)[1:-1]
    yield quoted
    yield quoted.replace("/", "\\/")  # as PHP writes JSON
    yield value.translate(_HTML)
    quoted = value.translate(_URL)
    yield quoted
    if _HAS_LETTERS.search(quoted) is not None:
        yield value.translate(_URL_LOWER)


def _repeated(text: str, spelled: Iterable[str]) -> set[str]:
    """Return every run by which one of these is known that stands in the text, too."""
    runs = {text[start : start + RUN_CHARACTERS] for start in range(len(text) - RUN_CHARACTERS + 1)}
    parts = frozenset[int]().union(*(_numbers(text[start:]) for start in range(_STEP)))
    found: set[str] = set()
    for one in spelled:
        if len(one) < RUN_CHARACTERS:
            if len(one) >= LEAST_CHARACTERS and one in text:
                found.add(one)
            continue
        near = list(compress(range(0, len(one), _STEP), map(parts.__contains__, _numbers(one))))
        starts = {start for before in range(_STEP + 1) for at in near if (start := at - before) >= 0}
        found |= {one[start : start + RUN_CHARACTERS] for start in starts} & runs
    return found


def _numbers(text: str) -> memoryview:
    """Return every 4 characters that begin at a multiple of 4 as a number; characters beyond Latin-1 look alike."""
    raw = text.encode("latin-1", "replace")
    return memoryview(raw)[: len(raw) // _STEP * _STEP].cast(_NUMBER)


def _told(value: str) -> Iterator[str]:
    """Give the value, and of Basic credentials (RFC 7617) user and password as well, and the password alone."""
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
