"""Where a text is not JSON, and why."""

import pytest

from hookseal.ground.json_problem import problem, said

pytestmark = pytest.mark.req("UX-02")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5e3, null]}', None),
        ("", "line 1, column 1: expecting value"),
        ("{'hunter2': 1}", "line 1, column 2: expecting property name enclosed in double quotes"),
        ('[1,\n "hunter2" 2]', "line 2, column 12: expecting ',' delimiter"),
        ('"hunter2', "line 1, column 1: unterminated string"),
        ('"hunter2\x01"', "line 1, column 9: invalid control character"),
        ("[1] hunter2", "line 1, column 5: extra data"),
        ("[1, -Infinity]", "it has -Infinity, which JSON does not have"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_problem_has_its_place_and_nothing_of_the_text(text: str, expected: str | None) -> None:
    assert expected == problem(text)
    assert said(text) == ("" if expected is None else f": {expected}")
