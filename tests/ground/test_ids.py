"""Each identifier has exactly one valid form."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed
from hookseal.ground import ids

UUID7 = "01900000-0000-7000-8000-000000000001"


@pytest.mark.parametrize("text", ["a", "acme", "0.a_b-c", "Org_2aB", "A" * 63])
def test_a_valid_tenant_is_accepted(text: str) -> None:
    """A tenant is 1 to 63 of the allowed characters."""
    assert text == ids.tenant_id(text)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "text", ["", "_system", "_operator", ".a", "-a", "a b", "a:b", "a/b", "a" * 64, "a\n", "é", "a\x00"]
)
def test_an_invalid_tenant_is_refused(text: str) -> None:
    """Any other tenant, a reserved one too, is refused with its field and without its value."""
    with pytest.raises(Malformed) as caught:
        ids.tenant_id(text)

    assert "tenant_id" == caught.value.field


@pytest.mark.parametrize("parse", [ids.endpoint_id, ids.delivery_id, ids.replay_id])
@pytest.mark.parametrize(
    "text",
    [
        "",
        UUID7.upper().replace("0", "A"),
        UUID7[:-1],
        UUID7 + "\n",
        "{" + UUID7 + "}",
        UUID7.replace("-", ""),
    ],
)
def test_an_invalid_uuid_is_refused(parse: object, text: str) -> None:
    """Only a UUID in lower case, with dashes, is the id of an endpoint, a delivery or a replay job."""
    with pytest.raises(Malformed):
        parse(text)  # type: ignore[operator]


def test_a_valid_uuid_is_accepted() -> None:
    """A UUIDv7 is an id of each of them."""
    assert [UUID7] * 3 == [ids.endpoint_id(UUID7), ids.delivery_id(UUID7), ids.replay_id(UUID7)]


@pytest.mark.parametrize("other", [UUID7.replace("-7", "-4"), "00000000-0000-0000-0000-000000000000"])
def test_an_endpoint_may_have_any_uuid(other: str) -> None:
    """An imported endpoint keeps its id, a UUID of any version; hookseal itself creates the ids of deliveries."""
    assert other == ids.endpoint_id(other)
    with pytest.raises(Malformed, match="UUIDv7"):
        ids.delivery_id(other)
    with pytest.raises(Malformed, match="UUIDv7"):
        ids.replay_id(other)


@pytest.mark.parametrize("text", ["a", "A-b_9", "x" * 128])
def test_a_valid_event_id_is_accepted(text: str) -> None:
    """An event id is 1 to 128 of the allowed characters."""
    assert text == ids.event_id(text)


@pytest.mark.parametrize("text", ["", "a.b", "a b", "a\n", "x" * 129, "é"])
def test_an_invalid_event_id_is_refused(text: str) -> None:
    """An event id must not contain a dot, which would make the signed bytes ambiguous."""
    with pytest.raises(Malformed):
        ids.event_id(text)


@pytest.mark.parametrize("text", ["a", "invoice.paid", "a_1.b.c", "Invoice.payment-failed", "-", "x" * 128])
def test_a_valid_event_type_is_accepted(text: str) -> None:
    """An event type is words with dots between, and is a valid subscription."""
    assert text == ids.event_type(text) == ids.subscription(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a b", "a.*", "*", "x" * 129, "a\n"])
def test_an_invalid_event_type_is_refused(text: str) -> None:
    """Wildcards and empty words are not event types."""
    with pytest.raises(Malformed):
        ids.event_type(text)


@pytest.mark.parametrize("text", ["*", "a.*", "a.b.*", "User.sign-in.*"])
def test_a_valid_subscription_is_accepted(text: str) -> None:
    """A subscription may end in `.*` or be `*`."""
    assert text == ids.subscription(text)


@pytest.mark.parametrize("text", ["**", "a*", "*.a", "a.*.b", "", ".*"])
def test_an_invalid_subscription_is_refused(text: str) -> None:
    """A `*` is allowed only as the whole last word of a subscription."""
    with pytest.raises(Malformed):
        ids.subscription(text)


PARSERS: list[Callable[[str], str]] = [
    ids.tenant_id,
    ids.endpoint_id,
    ids.delivery_id,
    ids.replay_id,
    ids.event_id,
    ids.event_type,
    ids.subscription,
    ids.correlation_id,
]


@pytest.mark.parametrize("milliseconds", [-1, 0, 1, 1_767_225_600_123, 253_402_300_799_999])
def test_the_first_id_of_a_time_begins_with_it(milliseconds: int) -> None:
    """The first id of a time is a UUIDv7 that begins with it, up to the year 9999; earlier times have that of 1970."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    first = UUID(ids.delivery_id(ids.first_uuid7(at)))

    assert max(milliseconds, 0) == first.int >> 80
    assert first.int & (2**62 - 1) == first.int >> 64 & 0xFFF == 0


@pytest.mark.parametrize(("microseconds", "milliseconds"), [(-1, 0), (0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)])
def test_ids_of_a_time_or_later_begin_with_a_whole_millisecond(microseconds: int, milliseconds: int) -> None:
    """The first id that is not before a time begins with the first millisecond that is not."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert ids.first_uuid7(first) == ids.first_uuid7_after(at)


@given(st.sampled_from(PARSERS), st.text(max_size=200))
def test_any_text_is_an_id_or_malformed(parse: Callable[[str], str], text: str) -> None:
    """Any text is a valid id, returned unchanged, or `Malformed` with one constant message without the text."""
    with pytest.raises(Malformed) as always:
        parse("\n")
    message = str(always.value)
    try:
        assert text == parse(text)
    except Malformed as error:
        message = str(error)

    assert str(always.value) == message


def test_the_operator_owns_endpoints() -> None:
    """An owner of endpoints is a tenant or the operator; the installation owns none."""
    assert ["acme", ids.OPERATOR_TENANT] == [ids.owner_id("acme"), ids.owner_id("_operator")]
    with pytest.raises(Malformed):
        ids.owner_id("_system")


@pytest.mark.parametrize("text", ["", "a b", "\u00e9", "x" * 129])
def test_an_invalid_correlation_id_is_refused(text: str) -> None:
    """A correlation id is 1 to 128 visible ASCII characters."""
    assert "~" * 128 == ids.correlation_id("~" * 128)
    with pytest.raises(Malformed) as caught:
        ids.correlation_id(text)
    assert "correlation_id" == caught.value.field
