"""Requests whose signatures are known from elsewhere: the public libraries of Standard Webhooks, and openssl."""

from typing import Any

from tests.vectors.reading import vectors

KNOWN: dict[str, Any] = vectors("standard_v1.json")["tests"][0]
X_KNOWN: dict[str, Any] = vectors("x_webhook.json")["tests"][0]
SECRET: str = KNOWN["secret"]
X_SECRET: str = X_KNOWN["secret"]
AT: int = KNOWN["timestamp"]
BODY = bytes.fromhex(KNOWN["body"])
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
DELIVERY = "01900000-0000-7000-8000-00000000000a"


def standard(case: dict[str, Any] = KNOWN, /, **changes: str | None) -> dict[str, str]:
    """Return the headers of a known request with changes; None removes one (`id`, `timestamp`, `signature`)."""
    given = {name: str(case[name]) for name in ("id", "timestamp", "signature")} | changes
    return {f"webhook-{name}": value for name, value in given.items() if value is not None}


def svix(case: dict[str, Any] = KNOWN, /) -> dict[str, str]:
    """Return the headers of a known request under the names of Svix."""
    return {name.replace("webhook-", "svix-"): value for name, value in standard(case).items()}


def x_webhook(case: dict[str, Any] = X_KNOWN, /, **changes: str | None) -> dict[str, str]:
    """Return the headers of a known request with changes; None removes one, and `_` in a name is `-`."""
    known = {"delivery_id": DELIVERY, "timestamp": str(case["timestamp"]), "signature": case["signature"]}
    given: dict[str, str | None] = {**known, **changes}
    return {f"x-webhook-{name.replace('_', '-')}": value for name, value in given.items() if value is not None}
