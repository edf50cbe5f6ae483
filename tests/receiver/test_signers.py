"""The verifier accepts what the signers sign: both sides of the wire accept the same keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed
from hookseal.ground.wire import (
    Algorithm,
    Scheme,
    signed_content,
    standard_headers,
    x_webhook_content,
    x_webhook_headers,
    x_webhook_signatures,
)
from hookseal.receiver import UnusableSecret, verify
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import Signer, generate_signing_secret, public_key_of
from tests.secrets.samples import signing_secret

pytestmark = [pytest.mark.req("SEC-20")]

DELIVERY = "01900000-0000-7000-8000-00000000000a"
AT = 1_614_265_330


def _for_receivers(secret: SecretMaterial) -> str:
    return public_key_of(secret) or secret.reveal().decode()


def _standard(body: bytes, *signers: Signer) -> dict[str, str]:
    return standard_headers(DELIVERY, AT, tuple(signer.sign(signed_content(DELIVERY, AT, body)) for signer in signers))


def _x_webhook(body: bytes, signer: Signer) -> dict[str, str]:
    signed_headers = x_webhook_headers(tenant_id="acme", delivery_id=DELIVERY, event_type="a.b", timestamp=AT)
    return signed_headers | x_webhook_signatures((signer.sign(x_webhook_content(AT, body)),), lead="current")


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("previous", Algorithm)
@pytest.mark.parametrize("current", Algorithm)
@given(st.binary(max_size=200))
def test_receivers_of_any_two_algorithms_verify_an_overlap(
    current: Algorithm, previous: Algorithm, body: bytes
) -> None:
    made = {
        algorithm: (generate_signing_secret(algorithm), generate_signing_secret(algorithm)) for algorithm in Algorithm
    }
    secrets = [(made[current][0], current), (made[previous][1], previous)]
    headers = _standard(body, *(Signer("ref", secret, Scheme.STANDARD, algorithm) for secret, algorithm in secrets))

    for secret, _ in secrets:
        assert DELIVERY == verify(body, headers, [_for_receivers(secret)], now=AT).delivery_id


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), st.binary(max_size=50))
def test_every_text_that_may_sign_may_verify(text: str, body: bytes) -> None:
    """A text that is accepted as a secret of `x-webhook` verifies at the receiver, unless it is only white space."""
    try:
        secret = signing_secret(text, Scheme.X_WEBHOOK)
    except Malformed:
        return
    headers = _x_webhook(body, Signer("ref", secret, Scheme.X_WEBHOOK, Algorithm.HMAC))
    if not text.removeprefix("whsec_").strip():
        with pytest.raises(UnusableSecret):
            verify(body, headers, [text], now=AT)
        return

    assert Scheme.X_WEBHOOK is verify(body, headers, [text], now=AT).scheme


@given(
    st.text(st.characters(codec="utf-8", categories=("P", "S", "Z", "C")), max_size=5),
    st.sampled_from(["whpk_", "whsk_", "WHPK_", "whSK_", "whp\u212a_", "wh\u017fk_", "awhpk_", "whpk-"]),
    st.text(st.characters(codec="ascii"), min_size=16, max_size=50),
)
def test_both_sides_refuse_the_same_ed25519_texts(before: str, prefix: str, after: str) -> None:
    text = before + prefix + after
    headers = _x_webhook(b"", Signer("ref", SecretMaterial(b"x" * 16), Scheme.X_WEBHOOK, Algorithm.HMAC))
    is_taken = True
    try:
        signing_secret(text, Scheme.X_WEBHOOK)
    except Malformed:
        is_taken = False

    with pytest.raises(UnusableSecret if not is_taken else Exception) as caught:
        verify(b"", headers, [text], now=AT)
    assert is_taken is ("ed25519" not in str(caught.value))
