"""Public keys, `whpk_` and the base64 of 32 bytes, and the verification of their signatures (RFC 8032, 5.1.7)."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whpk_"
_VERSION: Final = "v1a,"
_SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32
_LOOKS_ASYMMETRIC: Final = re.compile(r"[^0-9A-Za-z]*wh([ps])k_", re.IGNORECASE | re.ASCII)
_FIELD_PRIME: Final = 2**255 - 19
# The y of the eight points of order 1, 2, 4 or 8: for such a key anybody can make signatures, without a private key.
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        _FIELD_PRIME - 2707385501144840649318225287225658788936804267575313519463743609750303402022,
    }
)


def is_public_key(secret: str) -> bool:
    """Return whether this is a public key for ed25519, and so never a key or a text for HMAC."""
    return secret.startswith(_PREFIX)


def key_problem(secret: str) -> str | None:
    """Return what is wrong with a key for ed25519; None if it is usable, or if it is a secret for HMAC."""
    match = _LOOKS_ASYMMETRIC.match(secret)
    if match is None:
        return None
    if match[1] in "sS":
        return "is a private key for ed25519, which no receiver may have: use the public key (whpk_) of the endpoint"
    point = _decoded(secret, _PREFIX, _KEY_BYTES)
    if point is None:
        return "is not a public key for ed25519: write it as it was shown, whpk_ and the base64 of 32 bytes"
    y = int.from_bytes(point, "little") & (2**255 - 1)
    # The cipher library accepts both; RFC 8032 refuses the first, and for the second anybody could sign.
    if y >= _FIELD_PRIME or y in _SMALL_ORDER:
        return "is a public key for ed25519 for which anybody can sign: make another key pair"
    return None


def parse_signatures(entries: Sequence[str]) -> list[bytes]:
    """Return the well-formed `v1a` signatures among the entries of a header."""
    decoded = (_decoded(entry, _VERSION, _SIGNATURE_BYTES) for entry in entries)
    return [signature for signature in decoded if signature is not None]


def verifies_any(public_key: str, content: bytes, signatures: Sequence[bytes]) -> bool:
    """Return whether the usable public key verifies one of the signatures of the content."""
    # Imported with the first key, so that verifying HMAC needs the standard library only.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix(_PREFIX)))
    for signature in signatures:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return True
    return False


def _decoded(text: str, prefix: str, length: int) -> bytes | None:
    """Return the bytes behind the prefix, None unless the text has the prefix and canonical base64 of that length."""
    if not text.startswith(prefix):
        return None
    digits = text.removeprefix(prefix)
    try:
        decoded = base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == length and base64.b64encode(decoded).decode("ascii") == digits else None
