"""Header values, stored as one secret."""

import pytest

from hookseal.errors import Malformed, SecretUnusable
from hookseal.secrets.core import header_values
from hookseal.secrets.core.material import MASK, SecretMaterial

pytestmark = pytest.mark.req("DEL-13", part="sealed-values")
HEADERS = {"authorization": SecretMaterial(b"Bearer canary"), "x-key": SecretMaterial(b"a b\tc")}


def test_a_change_adds_and_removes_headers() -> None:
    """A change adds and removes headers; one that replaces all does not need the existing ones."""
    given = {"x-new": SecretMaterial(b"1")}
    change = header_values.HeaderChange(given=given, removed=frozenset({"x-key"}))
    anew = header_values.HeaderChange(given=given, replaces_all=True)

    assert (False, {"authorization", "x-new"}) == (change.replaces_all, set(change.applied(HEADERS)))
    assert (True, given) == (anew.replaces_all, anew.applied(HEADERS))


def test_headers_are_read_back_masked() -> None:
    """Written headers are read back byte for byte, each value masked."""
    read = header_values.read(header_values.written(HEADERS))

    assert HEADERS == read
    assert f"{{'authorization': {MASK}, 'x-key': {MASK}}}" == repr(read)


@pytest.mark.parametrize("value", [b"", b"canary\r\nb", b"canary\x00", b"canary\xc3\xa9", b" canary", b"canary" * 1000])
def test_a_forbidden_value_is_not_written(value: bytes) -> None:
    """A value that no request may have is refused before it is sealed; the error has its name, not its value."""
    with pytest.raises(Malformed, match="header x-key") as refused:
        header_values.written({"x-key": SecretMaterial(value)})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
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
def test_another_content_is_not_read(content: bytes) -> None:
    """A record with any other content is unusable, and the error does not repeat the content."""
    with pytest.raises(SecretUnusable, match="set them again") as refused:
        header_values.read(SecretMaterial(content))
    assert None is refused.value.__cause__
