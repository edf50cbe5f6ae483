"""Receiver: verifies requests of hookseal, for those who receive its webhooks.

It needs the standard library only, and for public keys (`whpk_...`) the package `cryptography`.

    from hookseal.receiver import VerificationError, verify

    try:
        verified = verify(body, request.headers, secrets)
    except VerificationError:
        return 401

`body` is the request's body byte for byte as it was received, before any parsing.
"""

from hookseal.errors import (
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    OutsideTolerance,
    UntrimmedSecret,
    UnusableSecret,
    VerificationError,
)
from hookseal.receiver.unverified_headers import UnverifiedHeaders, unverified_headers
from hookseal.receiver.verification import TOLERANCE_SECONDS, Verified, verify

__all__ = [
    "TOLERANCE_SECONDS",
    "MalformedHeader",
    "MissingHeader",
    "NoMatchingSignature",
    "OutsideTolerance",
    "UntrimmedSecret",
    "UnusableSecret",
    "UnverifiedHeaders",
    "VerificationError",
    "Verified",
    "unverified_headers",
    "verify",
]
