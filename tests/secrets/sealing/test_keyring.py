"""Master keys: which texts are accepted, and how a key is selected."""

import base64
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import ConfigError, KeyRetired, KeyUnknown
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from tests.secrets.samples import FIRST, SECOND, THIRD, master_key
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("SEC-04", part="keyring")

KEY = bytes.fromhex("fbefbe00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4bff")
STANDARD = base64.b64encode(KEY).decode()
URL_SAFE = base64.urlsafe_b64encode(KEY).decode()


class _Impostor(MasterKey):
    """A key with the id of another key."""

    @property
    def key_id(self) -> str:
        return FIRST.key_id


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.mark.parametrize(
    "text", [STANDARD, URL_SAFE, STANDARD.rstrip("="), URL_SAFE.rstrip("="), f" \t{STANDARD}\r\n", f"\n{URL_SAFE}"]
)
def test_both_alphabets_are_accepted(text: str) -> None:
    """A key may be in standard or URL-safe base64, with or without padding, with white space around it."""
    assert "+" in STANDARD
    assert "-" in URL_SAFE
    assert MasterKey(SecretMaterial(KEY)).is_same_key(MasterKey.parse(text, variable="V"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "not base64 at all",
        STANDARD[:20] + " " + STANDARD[20:],
        STANDARD + "=",
        STANDARD.replace("=", "=="),
        STANDARD[:-2] + "=",
        "=" + STANDARD,
        STANDARD.replace("+", "-", 1) + "/",
        URL_SAFE[:10] + "+" + URL_SAFE[11:],
        STANDARD[:-2] + "9=",
        "\u0661" * 43,
        KEY.hex(),
        _text(KEY[:31]),
        _text(KEY + b"\x00"),
        _text(KEY + KEY),
        "A",
    ],
)
def test_another_text_names_its_variable(text: str) -> None:
    """Invalid base64 or length is refused; the error has the variable and the expected form, not the value."""
    with pytest.raises(ConfigError) as caught:
        MasterKey.parse(text, variable="SECRETS_MASTER_KEY")

    assert "SECRETS_MASTER_KEY" == caught.value.field
    assert str(caught.value).startswith("SECRETS_MASTER_KEY: must be 32 random bytes in base64")
    assert not text.strip() or len(text) < 2 or text not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        bytes(32),
        b"\xff" * 32,
        b"changeme-changeme-changeme-12345",
        b"0123456789abcdef0123456789abcdef",
        b" " * 32,
        b"\x00\xff" * 16,
        b"\x00\x01\xfe" * 10 + b"\x00\x01",
        KEY[:16] * 2,
        KEY[:15] * 2 + KEY[:2],
    ],
)
def test_placeholders_are_refused(value: bytes) -> None:
    """Equal bytes, readable text and a repeated short sequence are refused as keys."""
    with pytest.raises(ConfigError, match=r"^V: looks like a placeholder"):
        MasterKey.parse(_text(value), variable="V")


@given(st.integers(0, 2**64).map(lambda seed: Random(seed).randbytes(32)))
def test_random_keys_are_taken(value: bytes) -> None:
    """Random keys are accepted, in both alphabets."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert MasterKey(SecretMaterial(value)).is_same_key(MasterKey.parse(encode(value).decode(), variable="V"))


@pytest.mark.parametrize("answer", vectors("envelope.json")["master_keys"])
def test_id_and_check_value_equal_a_second_implementation(answer: dict[str, str]) -> None:
    """Id and check value of a key equal those of a second implementation."""
    key = MasterKey(SecretMaterial(bytes.fromhex(answer["key"])))

    assert answer["key_id"] == key.key_id
    assert bytes.fromhex(answer["check_value"]) == key.check_value
    assert 16 == len(key.key_id)
    assert key.key_id != key.check_value.hex()


def test_a_key_is_selected_by_its_id() -> None:
    """The key is selected by its id; an id that the ring does not have is refused."""
    ring = KeyRing(FIRST, (SECOND,))

    assert FIRST is ring.sealing
    assert FIRST is ring.opening(FIRST.key_id)
    assert SECOND is ring.opening(SECOND.key_id)
    with pytest.raises(KeyUnknown, match=THIRD.key_id):
        ring.opening(THIRD.key_id)


def test_a_retired_id_is_refused_with_or_without_its_key() -> None:
    """A retired id is refused as retired, whether the ring has the key or not."""
    ring = KeyRing(FIRST, (SECOND,), retired=[SECOND.key_id, THIRD.key_id])

    for key in (SECOND, THIRD):
        with pytest.raises(KeyRetired, match=key.key_id):
            ring.opening(key.key_id)


def test_the_same_key_twice_is_one_key() -> None:
    """A key that is given twice is in the ring once."""
    assert (FIRST, SECOND) == KeyRing(FIRST, (SECOND, master_key("first"))).keys


def test_two_keys_with_one_id_are_refused() -> None:
    """Two different keys with one id are refused, and the error has the id."""
    impostor = _Impostor(SecretMaterial(KEY))

    with pytest.raises(ConfigError, match=FIRST.key_id):
        KeyRing(FIRST, (impostor,))


def test_the_caller_selects_the_sealing_key() -> None:
    """The caller decides which key seals and which ids are retired; the keys of the ring stay the same."""
    ring = KeyRing(FIRST, (SECOND,)).arranged(sealing=SECOND.key_id, retired=[FIRST.key_id])

    assert SECOND is ring.sealing
    assert {FIRST, SECOND} == set(ring.keys)
    with pytest.raises(KeyRetired):
        ring.opening(FIRST.key_id)


def test_a_missing_or_retired_key_cannot_seal() -> None:
    """A key that is missing or retired cannot become the sealing key."""
    with pytest.raises(KeyUnknown):
        KeyRing(FIRST).arranged(sealing=SECOND.key_id, retired=[])
    with pytest.raises(KeyRetired):
        KeyRing(FIRST).arranged(sealing=FIRST.key_id, retired=[FIRST.key_id])
