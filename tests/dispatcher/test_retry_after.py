"""How `Retry-After` is read (vectors: Svix's `worker.rs`, RFC 9110)."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core.outcome import LONGEST_SECONDS, seconds

pytestmark = pytest.mark.req("DEL-06")

NOW: Final = datetime(2015, 10, 21, 7, 26, tzinfo=UTC)
DAY: Final = 86_400.0
MOMENTS: Final = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2199, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis adds the zone


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120),
        ("120.1", 121),
        ("120.6", 121),
        ("120.0", 120),
        ("0", 0),
        ("0.001", 1),
        ("000120", 120),
        (" 120\t", 120),
        ("86400", DAY),
        ("86401", DAY),
        ("86399.5", DAY),
        ("99999999999", DAY),
        ("9" * 10_000, DAY),
        ("0." + "9" * 10_000, 1),
    ],
)
def test_seconds_are_rounded_up_to_a_day(value: str, expected: float) -> None:
    assert expected == seconds((value,), NOW)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "invalid", "-5", "-0", "+5", "5s", "1e3", "0x10", ".5", "5.", "1.2.3", "1,5", "120, 240", "1 2"),
        *("inf", "NaN", "٣", "\u00b2", "120\n", "\x00", "\udc80", "two minutes", "Wed, 21 Oct 2015", "07:28:00 GMT"),
        *("Wed, 32 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 25:28:00 GMT", "Wed, 21 Foo 2015 07:28:00 GMT"),
        *("Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999999999999999", "Feb"),
        "Sunday, 29-Feb-15 07:28:00 GMT",
    ],
)
def test_an_unreadable_value_is_ignored(value: str) -> None:
    """A negative number, another notation of numbers and an invalid date are ignored."""
    assert seconds((value,), NOW) is None


@pytest.mark.parametrize(
    "value",
    [
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wednesday, 21-Oct-15 07:28:00 GMT",
        "Wed Oct 21 07:28:00 2015",
        "Wed, 21 Oct 2015 09:28:00 +0200",
    ],
)
def test_each_form_of_a_date_is_read(value: str) -> None:
    """A date in each of the three forms of HTTP, or with another zone, is the time until then."""
    assert 120 == seconds((value,), NOW)


@pytest.mark.parametrize("value", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"])
def test_a_one_digit_day_is_read(value: str) -> None:
    """The RFC's own example is the same time in all its forms; asctime has a space for the missing digit."""
    before = datetime(1994, 11, 6, 8, 49, 30, 500_000, tzinfo=UTC)

    assert 6.5 == seconds((value,), before) == seconds(("Sun Nov  6 08:49:37 1994",), before)


@pytest.mark.parametrize(
    "value", ["Wed, 21 Oct 2015 07:25:59 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Thu Jan  1 00:00:00 1970"]
)
def test_a_past_date_is_no_wait(value: str) -> None:
    assert 0 == seconds((value,), NOW)


def test_a_far_date_is_a_wait_of_one_day() -> None:
    assert DAY == seconds(("Thu, 22 Oct 2015 07:26:01 GMT",), NOW)
    assert DAY == seconds(("Fri, 31 Dec 9999 23:59:59 GMT",), NOW)


@pytest.mark.parametrize(
    ("now", "year", "expected"),
    [
        (datetime(2026, 11, 6, tzinfo=UTC), "94", 0),  # 1994: 2094 is 68 years ahead
        (datetime(2026, 11, 6, tzinfo=UTC), "70", DAY),  # 2070, although POSIX would read 1970
        (datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC), "76", DAY),  # 2076, 50 years ahead to the second
        (datetime(2026, 11, 6, 8, 49, 36, tzinfo=UTC), "76", 0),  # 1976: 2076 is a second more than 50 years ahead
        (datetime(2026, 11, 6, tzinfo=UTC), "77", 0),
        (datetime(2026, 11, 6, 8, 49, tzinfo=UTC), "26", 37),
        (datetime(2099, 12, 31, tzinfo=UTC), "00", DAY),  # 2100
        (datetime(2100, 11, 6, 8, 49, tzinfo=UTC), "00", 37),
        (datetime(2100, 1, 1, tzinfo=UTC), "99", 0),  # 2099
    ],
)
def test_a_two_digit_year_is_at_most_50_years_ahead(now: datetime, year: str, expected: float) -> None:
    """A year of two digits is the latest that is at most 50 years ahead (RFC 9110, section 5.6.7)."""
    assert expected == seconds((f"Sunday, 06-Nov-{year} 08:49:37 GMT",), now)


def test_an_invalid_leap_day_is_no_date() -> None:
    assert seconds(("Monday, 29-Feb-00 00:00:00 GMT",), datetime(2099, 12, 31, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("invalid", "-1"), None),
        (("60", "120"), 120),
        (("120", "60"), 120),
        (("nonsense", "60"), 60),
        (("0", "Wed, 21 Oct 2015 07:28:00 GMT", "5"), 120),
        (("0", "bad"), 0),
    ],
)
def test_the_longest_wait_counts(values: tuple[str, ...], expected: float | None) -> None:
    assert expected == seconds(values, NOW)


@given(st.lists(st.text() | st.from_regex(r"[A-Z][a-z]{2,8},? [0-9 -]{1,3}[A-Z][a-z]{2}[ -][0-9]{1,6} .*")), MOMENTS)
def test_no_text_raises(values: list[str], now: datetime) -> None:
    """For any text the result is nothing, or 0 seconds to a day."""
    asked = seconds(tuple(values), now)

    assert asked is None or 0 <= asked <= LONGEST_SECONDS


@given(MOMENTS, st.integers(0, LONGEST_SECONDS))
def test_the_three_forms_agree(now: datetime, ahead: int) -> None:
    """Any time within a day is read to the second in each of the three forms."""
    now = now.replace(microsecond=0)
    then = now + timedelta(seconds=ahead)
    forms = (
        format_datetime(then, usegmt=True),
        f"{then:%A, %d-%b-%y %H:%M:%S} GMT",
        f"{then:%a %b} {then.day:2d} {then:%H:%M:%S} {then.year}",
    )

    assert [float(ahead)] * 3 == [seconds((form,), now) for form in forms]
