"""Iterators are ids, in both directions."""

import pytest

from hookseal.api.paging import ListOut, listed, position


@pytest.mark.parametrize("identifier", ["0193-a", "evt.1", "-x", "~x", "~-x", "a"])
def test_an_iterator_leads_back_to_its_id(identifier: str) -> None:
    page = listed([1], [identifier], done=False)

    assert (identifier, None) == position(page.iterator)
    assert (None, identifier) == position(page.prev_iterator)


def test_a_page_has_the_ids_of_its_ends() -> None:
    page = listed([1, 2, 3], ["a", "b", "c"], done=True)

    assert ([1, 2, 3], True, "c", "-a") == (page.data, page.done, page.iterator, page.prev_iterator)
    assert (None, None) == (listed([], [], done=True).iterator, listed([], [], done=True).prev_iterator)
    assert (None, None) == position(None)


def test_a_page_goes_on_where_its_search_ended() -> None:
    """Also if it found nothing: then both directions begin there."""
    some = listed([1], ["a"], done=False, end="c")
    none: ListOut[int] = listed([], [], done=False, end="-c")

    assert ("c", "-a") == (some.iterator, some.prev_iterator)
    assert (("-c", None), (None, "-c")) == (position(none.iterator), position(none.prev_iterator))
