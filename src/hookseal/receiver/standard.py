"""The scheme `standard`: Standard Webhooks 1.0.0, `v1` signatures of secrets and `v1a` signatures of public keys."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import signed_content
from hookseal.receiver import ed25519
from hookseal.receiver.errors import MalformedHeader, NoMatchingSignature
from hookseal.receiver.signature import (
    Names,
    SignatureMatch,
    delivery_id,
    encode_signatures,
    header,
    matches_any,
    matching_secret,
    unix_seconds,
)

_SIGNATURE: Final = "webhook-signature"
NAMES: Final = Names(delivery_id="webhook-id", timestamp="webhook-timestamp", signatures=frozenset({_SIGNATURE}))
# Each costs a verification, and anybody can send them without knowing a secret.
MAX_ASYMMETRIC: Final = 16
_PREFIX: Final = "whsec_"
_MIN_KEY_BYTES: Final = 24  # Standard Webhooks 1.0.0, "Signature scheme": a short key can be guessed
_VERSION: Final = "v1,"


def match_signature(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> SignatureMatch:
    """Return the match of a `v1` or `v1a` signature with one of the secrets. Raises `VerificationError`."""
    delivery = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    content = signed_content(delivery, timestamp, body)
    entries = header(received, _SIGNATURE).split(" ")
    symmetric = encode_signatures(entry for entry in entries if entry.startswith(_VERSION))
    asymmetric = ed25519.parse_signatures(entries)
    _require_same_kind(secrets, symmetric, asymmetric)

    def is_signed_with(secret: str) -> bool | None:
        if ed25519.is_public_key(secret):
            return ed25519.verifies_any(secret, content, asymmetric)
        key = _key(secret)
        return None if key is None else matches_any(key, content, symmetric, format_signature=_format_signature)

    return SignatureMatch(
        delivery_id=delivery, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with)
    )


def _require_same_kind(secrets: Sequence[str], symmetric: Sequence[bytes], asymmetric: Sequence[bytes]) -> None:
    """Raise unless the request has a signature of a kind that one of the secrets can make."""
    public = sum(ed25519.is_public_key(secret) for secret in secrets)
    if public and len(asymmetric) > MAX_ASYMMETRIC:
        raise MalformedHeader(f"{_SIGNATURE} must hold at most {MAX_ASYMMETRIC} signatures of v1a")
    if not symmetric and not asymmetric:
        raise NoMatchingSignature("the request has no signature of a kind that this verifier knows")
    if not symmetric and not public:
        raise NoMatchingSignature(
            "the request is signed with ed25519 only (v1a): pass the endpoint's public key (whpk_)"
        )
    if not asymmetric and public == len(secrets):
        raise NoMatchingSignature("the request is signed with HMAC only (v1): pass the endpoint's secret (whsec_)")


def _format_signature(digest: bytes) -> str:
    return _VERSION + base64.b64encode(digest).decode("ascii")


def _key(secret: str) -> bytes | None:
    """Return the decoded base64, with or without prefix and padding; None if it is not a key of the scheme."""
    digits = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        return None
    return key if len(key) >= _MIN_KEY_BYTES else None
