"""Numbers in sentences."""

import pytest

from hookseal.ground.counted import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 workers do"), (1, "1 worker does"), (2, "2 workers do")])
def test_words_go_with_their_number(number: int, said: str) -> None:
    """One is spoken of as one, and any other number as many."""
    assert said == counted(number, "worker does", "workers do")
