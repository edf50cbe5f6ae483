"""Receiver: the verifier for whoever receives webhooks of hookseal.

It needs nothing but the standard library, and for public keys (`whpk_...`) the package `cryptography`.

    from hookseal.receiver import VerificationError, verify

    try:
        verified = verify(body, request.headers, secrets, now=time.time())
    except VerificationError:
        return 401

`body` is the request's body byte for byte as it came, before anything parsed it.
"""

from hookseal.receiver.errors import (
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    OutsideTolerance,
    UntrimmedSecret,
    UnusableSecret,
    VerificationError,
)
from hookseal.receiver.stated import Stated, stated
from hookseal.receiver.verification import TOLERANCE_SECONDS, Verified, verify

__all__ = [
    "TOLERANCE_SECONDS",
    "MalformedHeader",
    "MissingHeader",
    "NoMatchingSignature",
    "OutsideTolerance",
    "Stated",
    "UntrimmedSecret",
    "UnusableSecret",
    "VerificationError",
    "Verified",
    "stated",
    "verify",
]
