"""The wire: which bytes are signed, and how headers are spelled (design 1.6).

Source of the `standard` scheme: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers". The
`x-webhook` scheme is that of the system which hookseal takes the place of: its receivers stay as they are.
"""

from enum import StrEnum
from typing import Final

MAX_BODY_BYTES: Final = 262_144
MAX_URL_CHARACTERS: Final = 2_048


class Scheme(StrEnum):
    """How a request is signed and which headers say so."""

    STANDARD = "standard"
    X_WEBHOOK = "x-webhook"


class Algorithm(StrEnum):
    """What a signature is made with."""

    HMAC = "hmac"
    ED25519 = "ed25519"


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


def x_webhook_content(timestamp: int, body: bytes) -> bytes:
    """Return what `x-webhook` signs: `{unix seconds}.{body}`."""
    return b"%d.%b" % (timestamp, body)


def x_webhook_signatures(signatures: tuple[str, ...], *, lead: str) -> dict[str, str]:
    """Return the headers that hold the signatures of `x-webhook`: one, or the current and the previous secret's.

    Of two, each has a header of its own, and the plain header repeats the one that `lead` names: a receiver
    that reads only that one keeps working.
    """
    current, previous = signatures[0], signatures[-1]
    plain = {"x-webhook-signature": current if lead == "current" else previous}
    if len(signatures) == 1:
        return plain
    return plain | {"x-webhook-signature-current": current, "x-webhook-signature-previous": previous}


def x_webhook_headers(*, tenant_id: str, delivery_id: str, event_type: str, timestamp: int) -> dict[str, str]:
    """Return the headers of `x-webhook` that say what is delivered, when and for whom."""
    return {
        "x-webhook-timestamp": str(timestamp),
        "x-webhook-event": event_type,
        "x-webhook-delivery-id": delivery_id,
        "x-tenant-id": tenant_id,
    }
