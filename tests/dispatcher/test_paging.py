"""Pages by id: a full one names the next, and no cursor is taken that no page gave."""

import base64

import pytest

from hookseal.dispatcher.paging import before, paged
from hookseal.ground.errors import Malformed

IDS = [f"0197c1f0-5e6a-7c3b-9d2e-4f506172839{number}" for number in range(3)]
ROWS = [{"id": each} for each in IDS]


def test_a_full_page() -> None:
    """Where one more row is left, the cursor gives back the id that the page ended with."""
    items, cursor = paged(list(ROWS), 2, "id")

    assert ROWS[:2] == items
    assert IDS[1] == before(cursor)


@pytest.mark.parametrize("rows", [ROWS[:2], ROWS[:1], []])
def test_the_last_page(rows: list[dict[str, str]]) -> None:
    """Where none is left, there is no cursor."""
    assert (rows, None) == paged(rows, 2, "id")
    assert before(None) is None


@pytest.mark.parametrize("text", ["", "x", IDS[0].upper(), IDS[0].replace("-", ""), "{" + IDS[0] + "}", "\udcff"])
def test_what_no_page_gave(text: str) -> None:
    """A cursor that is not one spelling of one id is malformed, encoded or not."""
    for cursor in (base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode(), text or "!"):
        with pytest.raises(Malformed):
            before(cursor)
