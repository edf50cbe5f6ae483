"""The halves of a secret outside PostgreSQL: together they open in one context, and one alone is worthless."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hookseal.errors import Malformed, RecordMalformed, SecretTampered
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.halves import Halves, divide, divide_again, join
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose
from tests.secrets.samples import CONTEXT, SECRET


def _drawn(length: int) -> bytes:
    return hashlib.shake_256(b"drawn").digest(length)


HALVES = divide(SECRET, CONTEXT, _drawn)


@pytest.mark.parametrize("material", [b"x", b"\x00\xff", b"s" * 65_536], ids=len)
def test_share_and_payload_give_the_secret(material: bytes) -> None:
    """The payload is as long as the material, the share is short, and together they give the material back."""
    halves = divide(SecretMaterial(material), CONTEXT, _drawn)
    assert (len(material), 49) == (len(halves.payload), len(halves.share))
    assert material == join(halves, CONTEXT).reveal()


@pytest.mark.parametrize("size", [0, 65_537])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    """Nothing is made of an empty material, or of one above 64 KiB."""
    with pytest.raises(Malformed) as caught:
        divide(SecretMaterial(b"s" * size), CONTEXT, _drawn)
    assert "secret" == caught.value.field


def test_the_payload_contains_nothing_of_the_secret() -> None:
    """The payload contains no part of the secret, and another share makes another payload of the same secret."""
    assert SECRET.reveal()[6:18] not in HALVES.payload
    assert HALVES.payload != divide(SECRET, CONTEXT, bytes).payload


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    "context",
    [
        replace(CONTEXT, tenant=TenantId("bmce")),
        replace(CONTEXT, name="other"),
        replace(CONTEXT, version=2),
        replace(CONTEXT, purpose=Purpose.ENDPOINT_TLS),
    ],
    ids=["tenant", "name", "version", "purpose"],
)
def test_halves_open_only_in_their_own_context(context: object) -> None:
    """Halves of one tenant, name, version and purpose do not open as those of another."""
    with pytest.raises(SecretTampered, match="Find out who"):
        join(HALVES, context)  # type: ignore[arg-type]


@pytest.mark.req("SEC-03")
def test_every_altered_bit_is_refused() -> None:
    """A flipped bit anywhere, or a payload that is shorter or longer, is refused."""
    share, payload = HALVES
    flipped = [Halves(bad, payload) for bad in _flipped(share)] + [Halves(share, bad) for bad in _flipped(payload)]
    for halves in flipped:
        with pytest.raises((SecretTampered, RecordMalformed)):
            join(halves, CONTEXT)
    for bad in (payload[:-1], payload + b"\x00", b""):
        with pytest.raises(SecretTampered):
            join(Halves(share, bad), CONTEXT)


def _flipped(whole: bytes) -> Iterator[bytes]:
    """Yield the bytes with one bit flipped, for each bit."""
    for at in range(len(whole) * 8):
        bad = bytearray(whole)
        bad[at // 8] ^= 1 << at % 8
        yield bytes(bad)


@pytest.mark.parametrize("share", [b"", HALVES.share[:-1], HALVES.share + b"\x00", b"\x02" + HALVES.share[1:]], ids=len)
def test_a_share_of_another_format_is_refused(share: bytes) -> None:
    """A share that is not of this format is refused as malformed, by both functions that read one."""
    with pytest.raises(RecordMalformed):
        join(Halves(share, HALVES.payload), CONTEXT)
    with pytest.raises(RecordMalformed):
        divide_again(share, SECRET, CONTEXT)


def test_the_same_share_gives_the_same_payload() -> None:
    """With the same share, the same material has the same payload, so a write can be repeated."""
    assert HALVES == divide_again(HALVES.share, SECRET, CONTEXT)
