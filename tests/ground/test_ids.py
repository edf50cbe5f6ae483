"""Identifiers have one spelling each."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.ground import ids
from hookseal.ground.errors import Malformed

UUID7 = "01900000-0000-7000-8000-000000000001"


@pytest.mark.parametrize("text", ["a", "acme", "0.a_b-c", "a" * 63])
def test_tenant_accepts(text: str) -> None:
    """A tenant is 1 to 63 of the allowed characters."""
    assert text == ids.tenant_id(text)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "text", ["", "_system", "_operator", ".a", "-a", "A", "a b", "a:b", "a/b", "a" * 64, "a\n", "é", "a\x00"]
)
def test_tenant_refuses(text: str) -> None:
    """A tenant of any other form, reserved ones among them, is refused by field, without the value."""
    with pytest.raises(Malformed) as caught:
        ids.tenant_id(text)

    assert "tenant" == caught.value.field


@pytest.mark.parametrize("parse", [ids.endpoint_id, ids.delivery_id])
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
def test_uuid_refuses(parse: object, text: str) -> None:
    """Only a UUID in lower case, with dashes, is an endpoint or delivery id."""
    with pytest.raises(Malformed):
        parse(text)  # type: ignore[operator]


def test_uuid_accepts() -> None:
    """A UUIDv7 is an endpoint and a delivery id."""
    assert [UUID7, UUID7] == [ids.endpoint_id(UUID7), ids.delivery_id(UUID7)]


@pytest.mark.parametrize("other", [UUID7.replace("-7", "-4"), "00000000-0000-0000-0000-000000000000"])
def test_an_endpoint_may_have_any_uuid(other: str) -> None:
    """An endpoint of an older system keeps its id, whatever the version of UUID; deliveries are all ours."""
    assert other == ids.endpoint_id(other)
    with pytest.raises(Malformed, match="UUIDv7"):
        ids.delivery_id(other)


@pytest.mark.parametrize("text", ["a", "A-b_9", "x" * 128])
def test_event_id_accepts(text: str) -> None:
    """An event id is 1 to 128 of the allowed characters."""
    assert text == ids.event_id(text)


@pytest.mark.parametrize("text", ["", "a.b", "a b", "a\n", "x" * 129, "é"])
def test_event_id_refuses(text: str) -> None:
    """A dot is among what an event id must not hold: it would break what is signed."""
    with pytest.raises(Malformed):
        ids.event_id(text)


@pytest.mark.parametrize("text", ["a", "invoice.paid", "a_1.b.c", "x" * 128])
def test_event_type_accepts(text: str) -> None:
    """An event type is words with dots between, and may be subscribed to as it is."""
    assert text == ids.event_type(text) == ids.subscription(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "A", "a-b", "a.*", "*", "x" * 129, "a\n"])
def test_event_type_refuses(text: str) -> None:
    """Wildcards and empty words are not event types."""
    with pytest.raises(Malformed):
        ids.event_type(text)


@pytest.mark.parametrize("text", ["*", "a.*", "a.b.*"])
def test_subscription_accepts(text: str) -> None:
    """A subscription may end in `.*` or be `*`."""
    assert text == ids.subscription(text)


@pytest.mark.parametrize("text", ["**", "a*", "*.a", "a.*.b", "", ".*"])
def test_subscription_refuses(text: str) -> None:
    """A star stands alone at the end."""
    with pytest.raises(Malformed):
        ids.subscription(text)


PARSERS: list[Callable[[str], str]] = [
    ids.tenant_id,
    ids.endpoint_id,
    ids.delivery_id,
    ids.event_id,
    ids.event_type,
    ids.subscription,
]


@given(st.sampled_from(PARSERS), st.text(max_size=200))
def test_parsers_are_total(parse: Callable[[str], str], text: str) -> None:
    """Any text is either an id, unchanged, or `Malformed` with one and the same message, so never with the text."""
    with pytest.raises(Malformed) as always:
        parse("\n")
    said = str(always.value)
    try:
        assert text == parse(text)
    except Malformed as error:
        said = str(error)

    assert str(always.value) == said
