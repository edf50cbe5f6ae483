"""Numbers with their noun."""

import pytest

from hookseal.ground.ids import plural


@pytest.mark.parametrize(("number", "phrase"), [(0, "0 workers do"), (1, "1 worker does"), (2, "2 workers do")])
def test_one_takes_the_singular(number: int, phrase: str) -> None:
    """One takes the singular, any other number the plural."""
    assert phrase == plural(number, "worker does", "workers do")
