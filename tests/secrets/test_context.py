"""Contexts and framing: different values have different encodings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.ground.ids import TenantId
from hookseal.ground.wire import framed
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext
from tests.secrets.samples import CONTEXT, ref

pytestmark = pytest.mark.req("SEC-03")

PARTS = st.lists(st.one_of(st.none(), st.binary(max_size=6)), max_size=4)
CONTEXTS = st.builds(
    SecretContext,
    tenant=st.text("a/b:c\x00", max_size=4).map(TenantId),
    name=st.text("a/b:c\x00", max_size=4),
    version=st.integers(1, 2**63 - 1),
    purpose=st.sampled_from(Purpose),
)


def test_framing_writes_a_count_and_each_length() -> None:
    """The format is a two-byte count, then a four-byte length before each part; an absent part has a special length."""
    assert b"\x00\x00" == framed()
    assert b"\x00\x03\x00\x00\x00\x02ab\x00\x00\x00\x00\xff\xff\xff\xff" == framed(b"ab", b"", None)


@given(PARTS, PARTS)
def test_framing_is_injective(one: list[bytes | None], other: list[bytes | None]) -> None:
    """Two lists of parts have the same encoding only if they are equal."""
    assert (one == other) == (framed(*one) == framed(*other))


@given(CONTEXTS, CONTEXTS)
def test_encoding_is_injective(one: SecretContext, other: SecretContext) -> None:
    """Two contexts have the same encoding only if tenant, name, version and purpose are equal."""
    assert (one == other) == (one.encode() == other.encode())


def test_text_cannot_move_between_parts() -> None:
    """`a/b` with `c` and `a` with `b/c` are two different contexts."""
    one = SecretContext(tenant=TenantId("a/b"), name="c", version=1, purpose=Purpose.SENTINEL)
    other = SecretContext(tenant=TenantId("a"), name="b/c", version=1, purpose=Purpose.SENTINEL)

    assert one.encode() != other.encode()


def test_the_provider_is_no_part_of_a_context() -> None:
    """The provider of a ref does not change the context of its record."""
    assert CONTEXT == SecretContext.of(ref(1, Provider.DB), Purpose.WEBHOOK_SIGNING)
    assert CONTEXT == SecretContext.of(ref(1, Provider.DEV), Purpose.WEBHOOK_SIGNING)
