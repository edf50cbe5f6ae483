"""What an operator may decide about an endpoint has the limits of the table, and says which one was passed."""

from collections.abc import Callable

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher import endpoint_rules as rules
from hookseal.ground.errors import Malformed, Refused

Pool = asyncpg.Pool
DAY = 86_400


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5s", (5,)),
        ("5s,5m,2h", (5, 300, 7_200)),
        ("5s, 5m", (5, 300)),
        ("7d", (7 * DAY,)),
        ("604800s,1s", (7 * DAY, 1)),
        (",".join(["1d"] * 30), (DAY,) * 30),
    ],
)
def test_schedules(text: str, expected: tuple[int, ...]) -> None:
    """A schedule is delays with units, up to 30 of them, each up to 7 days, 30 days in all."""
    assert expected == rules.retry_schedule(text)


@pytest.mark.req("DEL-06")
@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "5", "s", "5 s", "-5s", "+5s", "0s", "1.5h", "5S", "5w", "5s,", "5s;5m", "\u0665s", "8d", "604801s"),
        *("9999999d", ",".join(["1s"] * 31), ",".join(["7d"] * 4 + ["3d"]), "none"),
    ],
)
def test_what_is_no_schedule(text: str) -> None:
    """Anything else is malformed, and the rule is said."""
    with pytest.raises(Malformed, match=r"1 to 30 delays as in 5s,5m,2h .* each 1 s to 7 d, of 30 d in all") as told:
        rules.retry_schedule(text)

    assert "retry_schedule" == told.value.field


@pytest.mark.req("DEL-06")
@given(st.lists(st.integers(1, 7 * DAY), min_size=1, max_size=30).filter(lambda delays: sum(delays) <= 30 * DAY))
def test_every_schedule_can_be_spelled(delays: list[int]) -> None:
    """Every schedule that the table takes can be given, in seconds."""
    assert tuple(delays) == rules.retry_schedule(",".join(f"{delay}s" for delay in delays))


@given(st.text())
def test_any_text_is_a_schedule_or_malformed(text: str) -> None:
    """Whatever is given, nothing but a schedule within its limits comes back."""
    try:
        delays = rules.retry_schedule(text)
    except Malformed:
        return
    assert 1 <= len(delays) <= 30
    assert all(1 <= delay <= 7 * DAY for delay in delays)
    assert sum(delays) <= 30 * DAY


@pytest.mark.parametrize(
    ("rule", "least", "most"),
    [
        (rules.max_attempts, 1, 100),
        (rules.backoff_base_seconds, 1, DAY),
        (rules.backoff_cap_seconds, 1, 7 * DAY),
        (rules.timeout_ms, 100, 20_000),
        (rules.rotate_every_days, 1, 30),
    ],
)
def test_numbers(rule: Callable[[int], int], least: int, most: int) -> None:
    """Both ends of a range are taken; what is beyond is malformed, by the name of its field."""
    assert (least, most) == (rule(least), rule(most))
    for beyond in (least - 1, most + 1):
        with pytest.raises(Malformed, match=f"{least} to {most}") as told:
            rule(beyond)
        assert rule.__name__ == told.value.field


async def test_the_table_has_the_same_limits(pool: "Pool[asyncpg.Record]") -> None:
    """What these rules refuse the table refuses too: no other way in is wider."""
    add = (
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, {0})"
        " VALUES ('acme', hookseal.uuid7(), '{0}{1}', '{{*}}', {1})"
    )
    most = (
        ("max_attempts", 100),
        ("backoff_base_seconds", DAY),
        ("backoff_cap_seconds", 7 * DAY),
        ("timeout_ms", 20_000),
        ("rotate_every_days", 30),
    )
    for column, value in most:
        await pool.execute(add.format(column, value))
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(add.format(column, value + 1))


@pytest.mark.parametrize(("name", "most"), [("name", 128), ("reason", 256)])
def test_texts_for_people(name: str, most: int) -> None:
    """A name and a reason are printable and not too long; an endpoint need have no name."""
    rule = {"name": rules.endpoint_name, "reason": rules.disabled_reason}[name]
    assert "ü" * most == rule("ü" * most)
    assert rules.endpoint_name(None) is None
    for text in ("", "x" * (most + 1), "a\x1bb", "\ud800"):
        with pytest.raises(Malformed) as told:
            rule(text)
        assert name == told.value.field


def test_a_drain() -> None:
    """A time-out fits if it ends five seconds before the drain does."""
    rules.require_drainable(5_000, 10)
    with pytest.raises(Refused, match="at most 5000 ms, 5 s less than HOOKSEAL_DRAIN_SECONDS"):
        rules.require_drainable(5_001, 10)
