"""The wire: which bytes are signed, and how headers are spelled (design 1.6).

Source of the `standard` scheme: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
"""

from enum import StrEnum
from typing import Final

MAX_BODY_BYTES: Final = 262_144
MAX_URL_CHARACTERS: Final = 2_048


class Scheme(StrEnum):
    """How a request is signed and which headers say so."""

    STANDARD = "standard"


class Algorithm(StrEnum):
    """What a signature is made with."""

    HMAC = "hmac"


def signed_content(delivery_id: str, timestamp: int, body: bytes) -> bytes:
    """Return what `standard` signs: `{id}.{unix seconds}.{body}`."""
    return b"%b.%d.%b" % (delivery_id.encode("ascii"), timestamp, body)


def standard_headers(delivery_id: str, timestamp: int, signatures: tuple[str, ...]) -> dict[str, str]:
    """Return the three headers of `standard`; the signature of the current secret comes first."""
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
