"""What the document says of a value is what the check of an Admin or a Publisher does."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.admin import arguments
from hookseal.api import forms
from hookseal.dispatcher.core import endpoint_rules
from hookseal.dispatcher.core.endpoint_settings import SETTINGS, kind
from hookseal.errors import Malformed
from hookseal.ground import ids

pytestmark = pytest.mark.req("API-08")

TEXTS: list[tuple[Any, Callable[[str], object]]] = [
    (forms.AppUid, ids.tenant_uid),
    (forms.AppName, endpoint_rules.label),
    (forms.TenantOrEvery, arguments.customer_or_every),
    (forms.TokenName, ids.token_name),
    (forms.EventId, ids.event_id),
    (forms.EventType, ids.event_type),
    (forms.Subscription, ids.subscription),
    (forms.Channel, lambda text: ids.channels([text])),
    (forms.EndpointUid, endpoint_rules.endpoint_uid),
    (forms.EndpointName, endpoint_rules.endpoint_name),
    (forms.Description, endpoint_rules.description),
]
NUMBERS: list[tuple[Any, Callable[[int], object]]] = [
    (forms.ThrottleRate, endpoint_rules.requests_a_second),
    (forms.GracePeriod, arguments.overlap_seconds),
    *((forms.form(name), setting.check) for name, setting in SETTINGS.items() if kind(name) is int),
    (forms.ReplayRate, arguments.rate_per_second),
]
# Words near the rules: no alphabet of all characters finds their borders.
NEAR = st.text("aZ09._-:*\u00e9 \n", max_size=5).flatmap(
    lambda word: st.sampled_from(
        [word, word * 12, "a" * 62 + word, "a" * 127 + word, "a" * 255 + word, "a" * 1_023 + word]
    )
)


def schema(form: Any) -> dict[str, Any]:
    """Return the schema of a form."""
    return msgspec.json.schema(form)


def accepts(check: Callable[[Any], object], value: object) -> bool:
    """Return whether a check accepts this."""
    try:
        check(value)
    except Malformed:
        return False
    return True


def fits(described: dict[str, Any], text: str) -> bool:
    """Return whether a text fits its schema, as JSON Schema says: a pattern of ECMA, in which `$` is the end alone."""
    pattern = described.get("pattern", "").replace("$", r"\Z")
    return (
        described.get("minLength", 0) <= len(text) <= described.get("maxLength", len(text))
        and re.search(pattern, text) is not None
    )


@pytest.mark.parametrize(("form", "check"), TEXTS)
def test_a_text_that_is_accepted_fits_its_description(form: Any, check: Callable[[str], object]) -> None:
    """And what does not fit is refused. Some checks refuse more: what is reserved, or cannot be printed."""
    described = schema(form)

    @given(NEAR)
    def holds(text: str) -> None:
        accepted, fitting = accepts(check, text), fits(described, text)
        assert fitting or not accepted, text
        if "pattern" in described:
            assert accepted == fitting, text

    holds()


@pytest.mark.parametrize(("form", "check"), NUMBERS)
def test_a_number_is_accepted_within_its_description_only(form: Any, check: Callable[[int], object]) -> None:
    described = schema(form)
    least, most = described["minimum"], described["maximum"]

    assert [False, True, True, False] == [accepts(check, each) for each in (least - 1, least, most, most + 1)]


def test_a_schedule_is_accepted_within_its_description_only() -> None:
    described = schema(forms.form("retry_schedule"))
    delay = described["items"]

    assert (1, endpoint_rules.MAX_DELAYS, 1, endpoint_rules.MAX_DELAY_SECONDS) == (
        *(described["minItems"], described["maxItems"], delay["minimum"], delay["maximum"]),
    )
    for seconds, accepted in (
        ([], False),
        ([1] * described["maxItems"], True),
        ([1] * (described["maxItems"] + 1), False),
        ([delay["maximum"]], True),
        ([delay["maximum"] + 1], False),
        ([0], False),
    ):
        assert accepted == accepts(endpoint_rules.retry_delays, seconds), seconds


def test_metadata_is_accepted_within_its_description_only() -> None:
    described = schema(forms.Metadata)
    most, longest = described["maxProperties"], described["propertyNames"]["maxLength"]
    for values, accepted in (
        ({f"k{number}": "" for number in range(most)}, True),
        ({f"k{number}": "" for number in range(most + 1)}, False),
        ({"k" * longest: ""}, True),
        ({"k" * (longest + 1): ""}, False),
        ({"": ""}, False),
    ):
        assert accepted == accepts(endpoint_rules.metadata, values)
