"""Header values as one secret."""

import pytest

from hookseal.ground.errors import Malformed
from hookseal.secrets import header_values
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import MASK, SecretMaterial

pytestmark = pytest.mark.req("DEL-13", part="sealed-values")
HEADERS = {"authorization": SecretMaterial(b"Bearer canary"), "x-key": SecretMaterial(b"a b\tc")}


def test_there_and_back() -> None:
    """What was written is read, byte for byte, each value masked."""
    read = header_values.read(header_values.written(HEADERS))

    assert HEADERS == read
    assert f"{{'authorization': {MASK}, 'x-key': {MASK}}}" == repr(read)


@pytest.mark.parametrize("value", [b"", b"canary\r\nb", b"canary\x00", b"canary\xc3\xa9", b" canary", b"canary" * 1000])
def test_what_may_not_be_sent_is_not_written(value: bytes) -> None:
    """A value that no request may carry is refused before it is sealed, by name and not by value."""
    with pytest.raises(Malformed, match="header x-key") as refused:
        header_values.written({"x-key": SecretMaterial(value)})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b'{"x-key": 3}',
        b'{"x-key": "a\\nb"}',
        b'{"Host": "a"}',
        b'{"host": "a"}',
        b"[" * 50_000,
    ],
)
def test_what_may_not_be_sent_is_not_read(spoilt: bytes) -> None:
    """A record that holds anything else is not used, and its content is not told."""
    with pytest.raises(SecretUnusable, match="set them anew") as refused:
        header_values.read(SecretMaterial(spoilt))
    assert None is refused.value.__cause__
