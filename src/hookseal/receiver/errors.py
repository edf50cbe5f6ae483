"""Why a request is not accepted. No message holds a secret or a signature."""

from typing import ClassVar

from hookseal.ground.errors import HooksealError


class VerificationError(HooksealError):
    """The request is not proven to be a fresh one of who holds the secret: answer 401 and do nothing with it."""

    code = "not_verified"
    exit_code = 1
    reason: ClassVar[str] = "not_verified"


class MissingHeader(VerificationError):
    """A header that is needed is not there."""

    reason = "missing_header"


class MalformedHeader(VerificationError):
    """A header is not of its form."""

    reason = "malformed_header"


class UnusableSecret(VerificationError):
    """The receiver was given no secret that can verify this: whoever runs the receiver must correct it."""

    reason = "unusable_secret"


class UntrimmedSecret(UnusableSecret):
    """A secret begins or ends with white space, as the line of a file does: whoever runs the receiver must strip it."""

    reason = "untrimmed_secret"


class NoMatchingSignature(VerificationError):
    """No signature fits: another secret signed it, or the body is not byte for byte what was signed."""

    reason = "no_matching_signature"


class OutsideTolerance(VerificationError):
    """A signature fits, and its time is too far from now: a replay, or a clock that is wrong."""

    reason = "outside_tolerance"
