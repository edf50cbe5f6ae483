"""What an answer of AWS that refuses a call means: who must act. It uses the code, never the text. Pure."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from hookseal.ground.errors import Cause
from hookseal.secrets.errors import SecretDenied, SecretError, SecretUnavailable

_THROTTLED: Final = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
)
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_KMS: Final = frozenset({"DecryptionFailure", "EncryptionFailure", "KMSAccessDeniedException", "KMSDisabledException"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_SIGNATURE: Final = frozenset(
    {
        *("InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"),
        *("IncompleteSignature", "IncompleteSignatureException", "RequestInTheFuture"),
    }
)
_CREDENTIALS: Final = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure", "NotAuthorized"}
)
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class RefusedCall(Protocol):
    """An error of botocore, with the answer of AWS."""

    @property
    def response(self) -> Mapping[str, Any]:
        """The parsed answer."""
        ...

    @property
    def operation_name(self) -> str:
        """The call that was refused."""
        ...


def meaning_of(error: RefusedCall, place: str, action: str) -> SecretError | SecretUnavailable:
    """Return the error to raise for this answer about `place`; `action` is the right that the call needs."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status == _TOO_MANY:
        return SecretUnavailable(
            f"AWS limits the requests of this account in this region ({_shown(code) or status}): let its administrator "
            f"raise the quota of {error.operation_name} (Service Quotas), or let hookseal ask less often "
            "(SECRETS_CACHE_TTL_SECONDS)",
            cause=Cause.THROTTLED,
        )
    if status >= _SERVER_ERROR:
        return SecretUnavailable(
            f"AWS Secrets Manager fails ({_shown(code) or status}): wait; if it lasts, look at AWS Health, and at what "
            "is between, such as a proxy",
            cause=Cause.FAILING,
        )
    if error.operation_name == "AssumeRole":
        return SecretDenied(
            f"AWS does not let this process assume the role of AWS_SECRET_MANAGER_ROLE_ARN ({_shown(code)}): grant its "
            "own role sts:AssumeRole, and name it in the trust policy of the other"
        )
    return SecretDenied(f"{place} {_advice(code, action)}")


def _advice(code: str, action: str) -> str:
    if code in _DENIED:
        return f"is denied to this process: grant its role or user {action} on it"
    if code in _KMS:
        return f"cannot be used ({code}): enable the KMS key of the secret, and grant this process its use"
    if code in _EXPIRED:
        return "is refused because the session credentials of this process have expired: give it new ones"
    if code in _SIGNATURE:
        return (
            "is refused because AWS does not accept the signature of the request: set the clock of this machine (AWS "
            "allows 5 minutes), and check the secret access key"
        )
    if code in _CREDENTIALS:
        return "is refused because AWS does not know the credentials of this process: correct them"
    if not code or code.isdecimal():  # botocore found none
        return (
            f"is refused ({code or 'without a code'}), and not by AWS: correct AWS_ENDPOINT_URL, if it is set, or what "
            "is between, such as a proxy"
        )
    return f"is refused by AWS ({_shown(code) or 'a code that cannot be shown'}): look the call up in CloudTrail"


def not_of_aws() -> SecretUnavailable:
    """Return the error for an answer that has not the form of AWS."""
    return SecretUnavailable(
        "what answers in place of AWS Secrets Manager is not AWS: correct AWS_ENDPOINT_URL, if it is set, or what is "
        "between, such as a proxy",
        cause=Cause.FOREIGN,
    )


def _shown(code: str) -> str:
    return code if code.isalnum() else ""
