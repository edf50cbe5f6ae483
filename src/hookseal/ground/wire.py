"""The wire format: which bytes are signed, and which headers a request has.

Source of the scheme `standard`: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers". The scheme
`x-webhook` is that of the system which hookseal replaces, so that its receivers need no change.
"""

from enum import StrEnum
from typing import Final

MAX_BODY_BYTES: Final = 262_144
MAX_URL_CHARACTERS: Final = 2_048


class Scheme(StrEnum):
    """How a request is signed, and which headers carry the signature."""

    STANDARD = "standard"
    X_WEBHOOK = "x-webhook"


class Algorithm(StrEnum):
    """The algorithm that makes a signature."""

    HMAC = "hmac"
    ED25519 = "ed25519"


def signed_content(delivery_id: str, timestamp: int, body: bytes) -> bytes:
    """Return what `standard` signs: `{id}.{unix seconds}.{body}`."""
    return b"%b.%d.%b" % (delivery_id.encode("ascii"), timestamp, body)


def standard_headers(delivery_id: str, timestamp: int, signatures: tuple[str, ...]) -> dict[str, str]:
    """Return the three headers of `standard`; the signature by the current secret comes first."""
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def x_webhook_content(timestamp: int, body: bytes) -> bytes:
    """Return what `x-webhook` signs: `{unix seconds}.{body}`."""
    return b"%d.%b" % (timestamp, body)


def x_webhook_signatures(signatures: tuple[str, ...], *, lead: str) -> dict[str, str]:
    """Return the signature headers of `x-webhook`, for the current secret or for the current and the previous one.

    Each of two signatures has its own header. The plain header repeats the one that `lead` names, so that a receiver
    which reads only the plain header keeps working.
    """
    current, previous = signatures[0], signatures[-1]
    plain = {"x-webhook-signature": current if lead == "current" else previous}
    if len(signatures) == 1:
        return plain
    return plain | {"x-webhook-signature-current": current, "x-webhook-signature-previous": previous}


def x_webhook_headers(*, tenant_id: str, delivery_id: str, event_type: str, timestamp: int) -> dict[str, str]:
    """Return the headers of `x-webhook` other than the signatures: time, event type, delivery and tenant."""
    return {
        "x-webhook-timestamp": str(timestamp),
        "x-webhook-event": event_type,
        "x-webhook-delivery-id": delivery_id,
        "x-tenant-id": tenant_id,
    }
