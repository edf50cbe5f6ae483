"""The scheme `standard`: Standard Webhooks 1.0.0, `v1` signatures of secrets and `v1a` signatures of public keys."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import signed_content
from hookseal.receiver import ed25519
from hookseal.receiver.errors import MalformedHeader, NoMatchingSignature
from hookseal.receiver.signature import (
    Names,
    Signed,
    candidates,
    delivery_id,
    fits,
    header,
    matching_secret,
    unix_seconds,
)

_SIGNATURE: Final = "webhook-signature"
NAMES: Final = Names(delivery_id="webhook-id", timestamp="webhook-timestamp", signatures=frozenset({_SIGNATURE}))
# Each costs a verification, and whoever sends them need not know any secret.
MOST_ASYMMETRIC: Final = 16
_PREFIX: Final = "whsec_"
_LEAST_KEY_BYTES: Final = 24  # Standard Webhooks 1.0.0, "Signature scheme": with a short one anybody can sign
_VERSION: Final = "v1,"


def signed(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Return what a `v1` or `v1a` signature of one of the secrets fits. Raises `VerificationError`."""
    identity = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    content = signed_content(identity, timestamp, body)
    entries = header(received, _SIGNATURE).split(" ")
    symmetric = candidates(entry for entry in entries if entry.startswith(_VERSION))
    asymmetric = ed25519.candidates(entries)
    _require_same_kind(secrets, symmetric, asymmetric)

    def is_signed_with(secret: str) -> bool | None:
        if ed25519.is_public_key(secret):
            return ed25519.fits(secret, content, asymmetric)
        key = _key(secret)
        return None if key is None else fits(key, content, symmetric, spelled=_spelled)

    return Signed(delivery_id=identity, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with))


def _require_same_kind(secrets: Sequence[str], symmetric: Sequence[bytes], asymmetric: Sequence[bytes]) -> None:
    """Return only if a signature is there that one of the secrets may have made."""
    public = sum(ed25519.is_public_key(secret) for secret in secrets)
    if public and len(asymmetric) > MOST_ASYMMETRIC:
        raise MalformedHeader(f"{_SIGNATURE} must hold at most {MOST_ASYMMETRIC} signatures of v1a")
    if not symmetric and not asymmetric:
        raise NoMatchingSignature("there is no signature of a kind that this verifier takes")
    if not symmetric and not public:
        raise NoMatchingSignature("it is signed with ed25519 only (v1a): give the verifier the endpoint's whpk_")
    if not asymmetric and public == len(secrets):
        raise NoMatchingSignature("it is signed with HMAC only (v1): give the verifier the endpoint's whsec_")


def _spelled(digest: bytes) -> str:
    return _VERSION + base64.b64encode(digest).decode("ascii")


def _key(secret: str) -> bytes | None:
    """Return what the base64 stands for, with or without prefix and padding; None if that is no key of the scheme."""
    digits = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        return None
    return key if len(key) >= _LEAST_KEY_BYTES else None
