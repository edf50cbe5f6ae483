"""Times in options: absolute, or so long ago."""

from datetime import UTC, datetime, timedelta

import pytest

from hookseal.cli.shared.moments import moment, seconds
from hookseal.errors import Malformed
from tests.doubles.clock import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.now()


@pytest.mark.req("DEL-20")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("1h", NOW - timedelta(hours=1)),
        ("7d", NOW - timedelta(days=7)),
        ("0s", NOW),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_absolute_or_so_long_ago(text: str | None, expected: datetime | None) -> None:
    """A time is absolute, with its time zone, or so many seconds, minutes, hours or days ago."""
    assert expected == moment(text, "since", clock=CLOCK)


def test_a_duration_may_be_ahead() -> None:
    assert NOW + timedelta(days=90) == moment("90d", "expires", is_ahead=True, clock=CLOCK)
    assert datetime(2026, 1, 31, 12, tzinfo=UTC) == moment("2026-01-31T12:00:00Z", "expires", is_ahead=True)


@pytest.mark.parametrize("text", ["", "1w", "-1h", "1.5h", "h", "123456d", "2026-01-31T12:00:00"])
def test_an_invalid_time_names_its_option(text: str) -> None:
    """Everything else is refused by the name of the option."""
    with pytest.raises(Malformed) as caught:
        moment(text, "until", clock=CLOCK)
    assert "until" == caught.value.field


def test_a_duration_has_seconds() -> None:
    assert [90, 1_800, 3_600, 604_800] == [seconds(text, "expires") for text in ("90s", "30m", "1h", "7d")]
    for text in ("", "1w", "90", "2026-01-31T12:00:00Z"):
        with pytest.raises(Malformed) as caught:
            seconds(text, "expires")
        assert "expires" == caught.value.field
