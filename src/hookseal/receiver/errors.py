"""Why a request is refused. No message contains a secret or a signature."""

from typing import ClassVar

from hookseal.ground.errors import HooksealError


class VerificationError(HooksealError):
    """The request is not proven to be recent and to come from the holder of a secret: answer 401 and ignore it."""

    code = "not_verified"
    exit_code = 1
    reason: ClassVar[str] = "not_verified"


class MissingHeader(VerificationError):
    """A required header is missing."""

    reason = "missing_header"


class MalformedHeader(VerificationError):
    """A header does not have its form."""

    reason = "malformed_header"


class UnusableSecret(VerificationError):
    """The receiver has no secret that can verify this request: its operator must correct the secrets."""

    reason = "unusable_secret"


class UntrimmedSecret(UnusableSecret):
    """A secret begins or ends with white space, as a line of a file does: the receiver's operator must strip it."""

    reason = "untrimmed_secret"


class NoMatchingSignature(VerificationError):
    """No signature matches: the request was signed with another secret, or the body differs from what was signed."""

    reason = "no_matching_signature"


class OutsideTolerance(VerificationError):
    """A signature matches, but its time is too far from now: a replay, or a wrong clock."""

    reason = "outside_tolerance"
