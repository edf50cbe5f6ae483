"""The scheme `x-webhook`: any of its signature headers may fit, in an overlap of two secrets there are three."""

from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import x_webhook_content
from hookseal.receiver.ed25519 import is_public_key
from hookseal.receiver.signature import Names, Signed, candidates, delivery_id, fits, matching_secret, unix_seconds

NAMES: Final = Names(
    delivery_id="x-webhook-delivery-id",
    timestamp="x-webhook-timestamp",
    signatures=frozenset({"x-webhook-signature", "x-webhook-signature-current", "x-webhook-signature-previous"}),
)


def signed(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Return what a signature of one of the secrets fits. Raises `VerificationError`."""
    identity = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    content = x_webhook_content(timestamp, body)
    given = candidates(value for name, value in received.items() if name in NAMES.signatures)

    def is_signed_with(secret: str) -> bool | None:
        if is_public_key(secret):  # as a text, which everybody knows, it would let anybody sign
            return None
        # The key is the bytes of the whole text, prefix and all.
        return fits(secret.encode("utf-8", "surrogatepass"), content, given, spelled=_spelled)

    return Signed(delivery_id=identity, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with))


def _spelled(digest: bytes) -> str:
    return f"sha256={digest.hex()}"
