"""Durations as people write them."""

import pytest

from hookseal.errors import Malformed
from hookseal.ground.durations import Unit, given, whole

pytestmark = pytest.mark.req("UX-02")


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("500ms", "ms", 500),
        ("5s", "ms", 5_000),
        ("5000", "ms", 5_000),
        ("90", "s", 90),
        ("90s", "s", 90),
        ("5m", "s", 300),
        ("24h", "s", 86_400),
        ("7d", "s", 604_800),
        ("2000ms", "s", 2),
        ("0", "s", 0),
        ("30", "d", 30),
        ("30d", "d", 30),
        ("48h", "d", 2),
        ("500ms", "s", None),
        ("36h", "d", None),
        *(
            (text, "s", None)
            for text in ("", "s", "-1s", "+1s", "1.5h", "1w", "1 s", "1H", "1s ", "1s\n", "\u0667s", "1" * 10)
        ),
    ],
)
def test_a_duration_has_whole_units(text: str, unit: Unit, expected: int | None) -> None:
    """A number without a unit has the one that is asked for; what is no whole number of these is none."""
    assert expected == whole(text, unit)
    if expected is not None:
        assert expected == given(text, unit, "overlap_seconds")


def test_a_number_may_need_its_unit() -> None:
    assert (None, 90) == (whole("90", "s", needs_unit=True), whole("90s", "s", needs_unit=True))


@pytest.mark.parametrize(
    ("field", "unit", "message"),
    [
        ("timeout_ms", "ms", "timeout must be a whole number of milliseconds, or a duration as 500ms or 5s"),
        ("overlap", "s", "overlap must be a whole number of seconds, or a duration as 90s, 5m or 24h"),
        ("rotate_every_days", "d", "rotate every must be a whole number of days, or a duration as 7d"),
    ],
)
def test_another_form_is_refused_by_name(field: str, unit: Unit, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        given("soon", unit, field)
    assert (field, message) == (caught.value.field, str(caught.value))
