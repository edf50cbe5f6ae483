"""The names of KMS keys, and the text of a wrapped key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.secrets.kms.wrapped import Binding, KmsKey, WrappedKey, installation_name

ARN = "aws:arn:aws:kms:eu-central-1:123456789012:key/28c19c39-9cff-4abf-be49-4da6e251e19f"
CRYPTO_KEY = "gcp:projects/acme/locations/europe/keyRings/hookseal/cryptoKeys/master"


@pytest.mark.parametrize(
    "text",
    [
        ARN,
        "aws:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-28c19c399cff4abfbe494da6e251e19f",
        "aws:arn:aws:kms:eu-central-1:123456789012:alias/team/hookseal",
        CRYPTO_KEY,
        "gcp:projects/example.com:acme/locations/global/keyRings/a/cryptoKeys/b",
        "openbao:transit/hookseal",
        "openbao:team/transit/hookseal",
    ],
)
def test_each_spelling_of_a_kms_key_is_kept(text: str) -> None:
    """Each spelling that the KMS has comes back as it was."""
    assert text == str(KmsKey.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "aws:",
            "azure:key",
            "transit/hookseal",
            "openbao:hookseal",
            "openbao:../a",
            "openbao:a/..",
            "openbao:a/./b",
            "openbao:a//b",
            "openbao:a/b?c",
            "OPENBAO:a/b",
        ),
        *(f"{ARN} ", f"{ARN}\n", ARN.replace("kms", "s3"), "aws:28c19c39-9cff-4abf-be49-4da6e251e19f", "aws:alias/x"),
        *(f"{CRYPTO_KEY}/cryptoKeyVersions/1", CRYPTO_KEY.replace("keyRings/hookseal/", "")),
    ],
)
def test_another_text_than_a_kms_key_is_refused(text: str) -> None:
    """Anything else is refused, and the error does not have it."""
    with pytest.raises(ValueError, match="not a key of a KMS"):
        KmsKey.parse(text)


def test_a_kms_key_has_the_parts_its_client_needs() -> None:
    """The client of AWS needs the region, that of OpenBao mount and key."""
    assert "eu-central-1" == KmsKey.parse(ARN).part("region")
    nested = KmsKey.parse("openbao:team/transit/hookseal")
    assert ("team/transit", "hookseal") == (nested.part("mount"), nested.part("key"))


@given(st.binary(min_size=12, max_size=600), st.binary(min_size=8, max_size=8))
def test_a_wrapped_key_is_read_back_from_its_text(ciphertext: bytes, key_id: bytes) -> None:
    """Text and value are inverse, and the text is one word."""
    made = WrappedKey(key_id=key_id.hex(), ciphertext=ciphertext)
    assert made == WrappedKey.parse(str(made))
    assert not set(str(made)) & set(" ,\n=+/")


@pytest.mark.parametrize("text", ["", "v1.0123456789abcdef", f"v2.{'0' * 16}.{'A' * 16}", f"v1.{'0' * 16}.{'A' * 17}"])
def test_another_text_than_a_wrapped_key_is_refused(text: str) -> None:
    """Another form is refused."""
    with pytest.raises(ValueError, match="not a wrapped master key"):
        WrappedKey.parse(text)


def test_different_bindings_have_different_encodings() -> None:
    """Two bindings that differ are encoded differently: no part may have a slash."""
    one, other = (Binding(installation=name, key_id="0" * 16) for name in ("a", "b"))
    assert (b"hookseal-master-key/a/0000000000000000", True) == (one.encoded, one.pairs != other.pairs)
    for text in ("", "a/b", "a b", ".a", "a" * 64):
        with pytest.raises(ValueError, match="not the name of an installation"):
            installation_name(text)
