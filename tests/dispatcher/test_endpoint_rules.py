"""The settings of an endpoint have the limits that the table has, and a refusal names the field."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core import endpoint_rules as rules
from hookseal.dispatcher.core import endpoint_settings
from hookseal.dispatcher.core.endpoint_settings import SETTINGS, EndpointSettings, complete, within_rules
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Malformed, Refused
from hookseal.postgres.pool import Pool
from tests import rows

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
def test_a_valid_schedule_is_read(text: str, expected: tuple[int, ...]) -> None:
    """A schedule is up to 30 delays with units, each up to 7 days, up to 30 days in all."""
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
def test_an_invalid_schedule_states_the_rule(text: str) -> None:
    with pytest.raises(
        Malformed, match=r"1 to 30 delays as in 5s,5m,2h .* each 1 s to 7 d, at most 30 d in all"
    ) as caught:
        rules.retry_schedule(text)

    assert "retry_schedule" == caught.value.field


@pytest.mark.req("DEL-06")
@given(st.lists(st.integers(1, 7 * DAY), min_size=1, max_size=30).filter(lambda delays: sum(delays) <= 30 * DAY))
def test_every_schedule_can_be_written_in_seconds(delays: list[int]) -> None:
    assert tuple(delays) == rules.retry_schedule(",".join(f"{delay}s" for delay in delays))


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("seconds", [(), (0,), (-1,), (7 * DAY + 1,), (1,) * 31, (7 * DAY,) * 5])
def test_a_schedule_in_seconds_has_the_same_limits(seconds: tuple[int, ...]) -> None:
    assert (5, 300) == rules.retry_delays([5, 300])
    with pytest.raises(Malformed, match="1 to 30 delays"):
        rules.retry_delays(seconds)


@given(st.text())
def test_any_text_is_a_schedule_or_malformed(text: str) -> None:
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
        (rules.concurrency, 1, 1_000),
    ],
)
def test_a_number_out_of_range_names_its_field(rule: Callable[[int], int], least: int, most: int) -> None:
    """Both ends of a range are accepted; a number outside of it is malformed, and the error names its field."""
    assert (least, most) == (rule(least), rule(most))
    for beyond in (least - 1, most + 1):
        with pytest.raises(Malformed, match=f"{least} to {most}") as caught:
            rule(beyond)
        assert rule.__name__ == caught.value.field


async def test_rules_and_table_have_equal_limits(pool: Pool) -> None:
    """The table refuses the same numbers as these rules, so that no other way of writing has wider limits."""
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
        ("concurrency", 1_000),
        ("rate", 10_000),
    )
    for column, value in most:
        await pool.execute(add.format(column, value))
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(add.format(column, value + 1))


_METADATA: Final[tuple[tuple[dict[str, str], bool], ...]] = (
    ({}, True),
    ({str(n): "" for n in range(50)}, True),
    ({str(n): "" for n in range(51)}, False),
    ({"ü" * 128: "\x1b"}, True),
    ({"x" * 129: ""}, False),
    ({"": "x"}, False),
    ({"k": "x" * 4_095}, True),
    ({"k": "x" * 4_096}, False),
    ({"k": "ü" * 2_047}, True),
    ({"k": "ü" * 2_048}, False),
)


def test_what_the_product_keeps_is_limited() -> None:
    """A uid has its grammar, a description its length and lines, metadata its size: the error has none of the text."""
    assert ("a" * 256, "A.b_c-1") == (rules.endpoint_uid("a" * 256), rules.endpoint_uid("A.b_c-1"))
    assert ("", "ü" * 1_024, "a\r\n\tb") == tuple(map(rules.description, ("", "ü" * 1_024, "a\r\n\tb")))
    for rule, field, texts in (
        (rules.endpoint_uid, "uid", ("", "a" * 257, "a b", "ü", "a\n", ".", "..")),
        (rules.description, "description", ("x" * 1_025, "a\x1bb", "\0", "\ud800")),
    ):
        for text in texts:
            with pytest.raises(Malformed) as caught:
                rule(text)
            assert field == caught.value.field
    for values, is_valid in (*_METADATA, ({"k": "\0"}, False), ({"k": "\ud800"}, False)):
        if is_valid:
            assert values == rules.metadata(values)
            continue
        with pytest.raises(Malformed) as caught:
            rules.metadata(values)
        assert "metadata" == caught.value.field


async def test_what_the_product_keeps_has_the_limits_of_the_table(pool: Pool) -> None:
    endpoint = await rows.endpoint(pool)
    for values, is_valid in _METADATA:
        assert is_valid == await _accepts(pool, endpoint, metadata=json.dumps(values)), values
    assert [False] * 3 == [await _accepts(pool, endpoint, metadata=text) for text in ('{"a": 1}', "[]", '"a"')]
    for column, text, is_valid in (
        ("uid", "a" * 256, True),
        ("uid", "a" * 257, False),
        ("uid", "", False),
        ("uid", "a b", False),
        ("uid", "a\n", False),
        ("description", "ü" * 1_024, True),
        ("description", "x" * 1_025, False),
    ):
        assert is_valid == await _accepts(pool, endpoint, **{column: text}), (column, text)


async def _accepts(pool: Pool, endpoint: str, **columns: str) -> bool:
    try:
        await rows.change(pool, "endpoints", endpoint, **columns)
    except asyncpg.CheckViolationError:
        return False
    return True


@pytest.mark.parametrize(
    ("rule", "name", "most"),
    [(rules.endpoint_name, "name", 128), (rules.disabled_reason, "reason", 256), (rules.label, "name", 256)],
)
def test_a_name_is_printable_and_limited(rule: Callable[[str], str | None], name: str, most: int) -> None:
    assert "ü" * most == rule("ü" * most)
    assert rules.endpoint_name(None) is None
    for text in ("", "x" * (most + 1), "a\x1bb", "\ud800"):
        with pytest.raises(Malformed) as caught:
            rule(text)
        assert name == caught.value.field


@pytest.mark.req("DEL-17")
def test_order_and_on_dead_letter_are_chosen_together() -> None:
    """What a dead letter does is `stop` or `skip`, only if the endpoint is ordered, which does not change later."""
    assert [OnDeadLetter.STOP, OnDeadLetter.SKIP] == [rules.on_dead_letter(text) for text in ("stop", "skip")]
    with pytest.raises(Malformed, match="on_dead_letter must be stop or skip"):
        rules.on_dead_letter("halt")
    rules.require_order(ordered=True, on_dead_letter="skip")
    rules.require_order(ordered=False, on_dead_letter=None)
    with pytest.raises(Malformed, match="only for an endpoint that is ordered"):
        rules.require_order(ordered=False, on_dead_letter="skip")
    assert "ordered" == rules.order_stays().field


def test_a_time_out_is_shorter_than_the_drain() -> None:
    rules.require_drainable(5_000, 10)
    with pytest.raises(Refused, match="at most 5000 ms") as caught:
        rules.require_drainable(5_001, 10)
    assert "5 s less than HOOKSEAL_DRAIN_SECONDS" in str(caught.value.advice)


@pytest.mark.req("DEL-10")
def test_a_rate_is_limited() -> None:
    """A rate is a number of requests a second, from 1 to 10,000."""
    assert [1, 50, 10_000] == [rules.rate(text) for text in ("1/s", " 50/s", "10000/s")]
    for text in ("", "5", "0/s", "10001/s", "-1/s", "1.5/s", "5/m", "5 /s", "\u0665/s"):
        with pytest.raises(Malformed, match="as in 50/s") as caught:
            rules.rate(text)
        assert "rate" == caught.value.field


def test_a_numeric_rate_has_the_same_limits() -> None:
    assert [1, 10_000] == [rules.requests_a_second(value) for value in (1, 10_000)]
    for value in (0, 10_001):
        with pytest.raises(Malformed) as caught:
            rules.requests_a_second(value)
        assert "rate" == caught.value.field


# `EndpointSettings`, from which arguments, columns, options, imports and the API derive.


def test_a_new_endpoint_has_every_setting() -> None:
    """What is not given has its default; one of back-off replaces the default schedule, and no other one."""
    assert {"timeout_ms": 5_000, "ordered": False, "rate": None}.items() <= complete({}).items()
    assert [*SETTINGS] == [*complete({})]
    assert (rules.DEFAULT_RETRY_SCHEDULE, None, (5,)) == tuple(
        complete(given)["retry_schedule"]
        for given in (EndpointSettings(), EndpointSettings(max_attempts=3), EndpointSettings(retry_schedule=(5,)))
    )


def test_each_setting_is_of_its_kind() -> None:
    """The kind of each value, and of what is in a list, follow from the type in the declaration."""
    kinds = {name: endpoint_settings.kind(name) for name in SETTINGS}
    assert {str, int, bool, OnDeadLetter, Mapping, Sequence} == set(kinds.values())
    lists = {name: endpoint_settings.kind_of_items(name) for name, found in kinds.items() if found is Sequence}
    assert {"channels": str, "retry_schedule": int} == lists


def test_a_default_is_within_its_rules() -> None:
    """Each default, and what an option reads as one, is accepted; only a removable setting may be None."""
    for name, setting in SETTINGS.items():
        if setting.default is not None:
            assert {name: setting.default} == within_rules({name: setting.default})
        if setting.removable:
            assert {name: None} == within_rules({name: None})
    for name, text, value in (
        ("timeout_ms", "5s", 5_000),
        ("rotate_every_days", "30d", 30),
        ("concurrency", "8", 8),
        ("concurrency", "x", 0),
        ("retry_schedule", "default", rules.DEFAULT_RETRY_SCHEDULE),
        ("retry_schedule", "5s,5m", (5, 300)),
    ):
        read = SETTINGS[name].read
        assert read is not None
        assert value == read(text)


def test_a_schedule_is_given_without_what_it_replaces() -> None:
    with pytest.raises(Malformed, match="replaces max_attempts") as refused:
        within_rules({"retry_schedule": [5], "max_attempts": 3})
    assert "retry_schedule" == refused.value.field
