"""Pages: the number of rows, and the cursor that encodes a position."""

import base64

import pytest

from hookseal.errors import Malformed
from hookseal.ground.ids import decode_cursor, encode_cursor, require_limit


def test_a_page_has_1_to_1000_rows() -> None:
    """A page has 1 to 1000 rows."""
    require_limit(1)
    require_limit(1_000)
    for limit in (0, 1_001):
        with pytest.raises(Malformed):
            require_limit(limit)


@pytest.mark.parametrize("place", ["", "acme/7", "0197c1f0-5e6a-7c3b-9d2e-4f5061728390", "\u00e4"])
def test_a_cursor_decodes_to_its_position(place: str) -> None:
    """The cursor of any position is ASCII and decodes to that position."""
    assert encode_cursor(place).isascii()
    assert place == decode_cursor(encode_cursor(place))


@pytest.mark.parametrize("cursor", ["!", "abc", "\u00e4", base64.urlsafe_b64encode(b"\xff").decode()])
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    """A text that is not base64 of UTF-8 is refused."""
    with pytest.raises(Malformed, match="cursor must be one that an earlier page returned"):
        decode_cursor(cursor)
