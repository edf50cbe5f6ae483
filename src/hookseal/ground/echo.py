"""What a receiver repeats of the header values that it was sent, taken out of its answer. Pure.

Receivers answer with what they got, for instance on their error pages, and the beginning of an answer is stored in
the clear: so a value that is sealed everywhere else would be readable there.
"""

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final
from urllib.parse import quote

MASK: Final = "[masked]"
RUN_CHARACTERS: Final = 8
LEAST_CHARACTERS: Final = 4  # a shorter value is guessed, not told
_BASIC: Final = "basic "

_ESCAPE: Final = re.compile("%[0-9A-F]{2}")
_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    lambda value: json.dumps(value)[1:-1],
    lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),  # as PHP writes JSON
    html.escape,
    lambda value: quote(value, safe=""),
    lambda value: _ESCAPE.sub(lambda escape: escape[0].lower(), quote(value, safe="")),
)


def without_echo(text: str, values: Iterable[str]) -> str:
    """Return the text with `[masked]` in the place of all that repeats a value: 8 characters of it in a row, or more.

    A shorter value, of 4 characters at least, is found as a whole, and at the end of the text, where it may have been
    cut off, the first 4 characters of any value will do. Values are found as they are and as JSON, HTML or a url
    spells them; of Basic credentials what they stand for is found, too.
    """
    if len(text) < LEAST_CHARACTERS:
        return text
    spelled = {spell(told) for value in values for told in _told(value) for spell in _SPELLINGS}
    runs = {run for one in spelled for run in _runs(one)}
    hidden = bytearray(len(text))
    for length in {len(run) for run in runs}:
        for start in range(len(text) - length + 1):
            if text[start : start + length] in runs:
                hidden[start : start + length] = b"\1" * length
    for length in range(LEAST_CHARACTERS, min(RUN_CHARACTERS, len(text) + 1)):
        if any(one.startswith(text[-length:]) for one in spelled):
            hidden[-length:] = b"\1" * length
    marked = groupby(zip(text, hidden, strict=True), key=itemgetter(1))
    return "".join(MASK if is_hidden else "".join(character for character, _ in part) for is_hidden, part in marked)


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


def _runs(value: str) -> Iterator[str]:
    """Give every run of the value by which it is known."""
    if len(value) >= LEAST_CHARACTERS:
        length = min(RUN_CHARACTERS, len(value))
        yield from (value[start : start + length] for start in range(len(value) - length + 1))
