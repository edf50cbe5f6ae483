"""The scheme `x-webhook`: any of its signature headers may fit, in an overlap of two secrets there are three."""

from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import x_webhook_content
from hookseal.receiver.signature import Names, Signed, delivery_id, matching_secret, unix_seconds

NAMES: Final = Names(
    delivery_id="x-webhook-delivery-id",
    timestamp="x-webhook-timestamp",
    signatures=frozenset({"x-webhook-signature", "x-webhook-signature-current", "x-webhook-signature-previous"}),
)


def signed(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Return what a signature of one of the secrets fits. Raises `VerificationError`."""
    identity = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    number = matching_secret(
        x_webhook_content(timestamp, body),
        secrets,
        _key,
        spelled=lambda digest: f"sha256={digest.hex()}",
        given=(value for name, value in received.items() if name in NAMES.signatures),
    )
    return Signed(delivery_id=identity, timestamp=timestamp, secret_number=number)


def _key(secret: str) -> bytes:
    """Return the bytes of the whole text, prefix and all."""
    return secret.encode("utf-8", "surrogatepass")
