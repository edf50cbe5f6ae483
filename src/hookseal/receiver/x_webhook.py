"""The scheme `x-webhook`: a match in any of its signature headers is enough; in an overlap there are three."""

from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import x_webhook_content
from hookseal.receiver.ed25519 import is_public_key
from hookseal.receiver.signature import (
    Names,
    SignatureMatch,
    delivery_id,
    encode_signatures,
    matches_any,
    matching_secret,
    unix_seconds,
)

NAMES: Final = Names(
    delivery_id="x-webhook-delivery-id",
    timestamp="x-webhook-timestamp",
    signatures=frozenset({"x-webhook-signature", "x-webhook-signature-current", "x-webhook-signature-previous"}),
)


def match_signature(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> SignatureMatch:
    """Return the match of a signature with one of the secrets. Raises `VerificationError`."""
    delivery = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    content = x_webhook_content(timestamp, body)
    signatures = encode_signatures(value for name, value in received.items() if name in NAMES.signatures)

    def is_signed_with(secret: str) -> bool | None:
        if is_public_key(secret):  # used as HMAC key, the public text would let anybody sign
            return None
        # The key is the bytes of the whole text, including its prefix.
        return matches_any(
            secret.encode("utf-8", "surrogatepass"), content, signatures, format_signature=_format_signature
        )

    return SignatureMatch(
        delivery_id=delivery, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with)
    )


def _format_signature(digest: bytes) -> str:
    return f"sha256={digest.hex()}"
