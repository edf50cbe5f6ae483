"""The scheme `standard`: Standard Webhooks 1.0.0 with `v1` signatures."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.ground.wire import signed_content
from hookseal.receiver.signature import Names, Signed, delivery_id, header, matching_secret, unix_seconds

_SIGNATURE: Final = "webhook-signature"
NAMES: Final = Names(delivery_id="webhook-id", timestamp="webhook-timestamp", signatures=frozenset({_SIGNATURE}))
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1,"


def signed(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Return what a `v1` signature of one of the secrets fits. Raises `VerificationError`."""
    identity = delivery_id(received, NAMES.delivery_id)
    timestamp = unix_seconds(received, NAMES.timestamp)
    entries = header(received, _SIGNATURE).split(" ")
    number = matching_secret(
        signed_content(identity, timestamp, body),
        secrets,
        _key,
        spelled=lambda digest: _VERSION + base64.b64encode(digest).decode("ascii"),
        given=(entry for entry in entries if entry.startswith(_VERSION)),
    )
    return Signed(delivery_id=identity, timestamp=timestamp, secret_number=number)


def _key(secret: str) -> bytes | None:
    """Return what the base64 stands for, with or without its prefix and padding; None if it is not base64."""
    digits = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True) or None
    except ValueError:
        return None
