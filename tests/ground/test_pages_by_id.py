"""Pages by id: a full page has a cursor for the next one, and only such a cursor is accepted."""

import base64

import pytest

from hookseal.errors import Malformed
from hookseal.ground.ids import before, paged

IDS = [f"0197c1f0-5e6a-7c3b-9d2e-4f506172839{number}" for number in range(3)]
ROWS = [{"id": each} for each in IDS]


def test_a_full_page_has_a_cursor() -> None:
    """If more rows are left, the cursor contains the id of the last row of the page."""
    items, cursor = paged(list(ROWS), 2, "id")

    assert ROWS[:2] == items
    assert IDS[1] == before(cursor)


@pytest.mark.parametrize("rows", [ROWS[:2], ROWS[:1], []])
def test_the_last_page_has_no_cursor(rows: list[dict[str, str]]) -> None:
    """If no more rows are left, there is no cursor."""
    assert (rows, None) == paged(rows, 2, "id")
    assert before(None) is None


@pytest.mark.parametrize("text", ["", "x", IDS[0].upper(), IDS[0].replace("-", ""), "{" + IDS[0] + "}", "\udcff"])
def test_a_foreign_cursor_is_malformed(text: str) -> None:
    """A cursor that is not the canonical form of one id is malformed, encoded or not."""
    for cursor in (base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode(), text or "!"):
        with pytest.raises(Malformed):
            before(cursor)
