"""`v1a` at a receiver that has PyNaCl and nothing of hookseal, since no public library verifies it yet."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from hookseal.ground.wire import Algorithm, Scheme, signed_content, standard_headers
from hookseal.receiver import verify
from hookseal.secrets.core.signing import Signer, generate_signing_secret, public_key_of, spelled_pair
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")

DELIVERY = "01900000-0000-7000-8000-00000000000a"
AT = 1_614_265_330


@pytest.fixture(scope="module", name="is_signed")
def by_hand() -> Callable[[bytes, dict[str, str], str], bool]:
    """Return the function that `docs/wire.md` shows to receivers."""
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    [shown] = [block for block in re.findall(r"(?:^(?:    .*)?\n)+", page, re.MULTILINE) if "def is_signed(" in block]
    defined: dict[str, Any] = {}
    exec(dedent(shown), defined)  # noqa: S102 -- what is shown must hold as it is shown
    found: Callable[[bytes, dict[str, str], str], bool] = defined["is_signed"]
    return found


@pytest.mark.parametrize("case", vectors("standard_v1a.json")["tests"], ids=lambda case: case["comment"])
def test_the_vectors_are_what_pynacl_signs(case: dict[str, Any]) -> None:
    """PyNaCl makes the signature and the public key of each vector from its seed."""
    key = SigningKey(base64.b64decode(case["secret"].removeprefix("whsk_"))[:32])
    content = signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == "v1a," + base64.b64encode(key.sign(content).signature).decode()
    assert case["public_key"] == "whpk_" + base64.b64encode(bytes(key.verify_key)).decode()


@given(st.binary(max_size=500))
def test_pynacl_verifies_what_we_sign(is_signed: Callable[[bytes, dict[str, str], str], bool], body: bytes) -> None:
    """The function in `docs/wire.md` verifies a request in an overlap with each public key, and no other body."""
    secrets = [generate_signing_secret(Algorithm.ED25519) for _ in range(2)]
    content = signed_content(DELIVERY, AT, body)
    signers = [Signer("ref", secret, Scheme.STANDARD, Algorithm.ED25519) for secret in secrets]
    headers = standard_headers(DELIVERY, AT, ("v1a,AAAA", "v1,%", *(signer.sign(content) for signer in signers)))

    for secret in secrets:
        assert is_signed(body, headers, public_key_of(secret) or "")
        assert not is_signed(body + b"x", headers, public_key_of(secret) or "")
    assert not is_signed(body, headers, public_key_of(generate_signing_secret(Algorithm.ED25519)) or "")


@pytest.mark.req("SEC-20")
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=500))
def test_we_verify_what_pynacl_signs(seed: bytes, body: bytes) -> None:
    """A request that PyNaCl signed is verified with the public key that hookseal derives from the same seed."""
    key = SigningKey(seed)
    public_key = "whpk_" + base64.b64encode(bytes(key.verify_key)).decode()
    signature = "v1a," + base64.b64encode(key.sign(signed_content(DELIVERY, AT, body)).signature).decode()

    assert spelled_pair(seed) == b"whsk_" + base64.b64encode(seed + bytes(key.verify_key))
    assert 1 == verify(body, standard_headers(DELIVERY, AT, (signature,)), [public_key], now=AT).secret_number
