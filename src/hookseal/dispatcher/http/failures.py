"""Translates the errors of a request into failures. Their texts contain nothing that a receiver sent."""

import socket
import ssl
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from hookseal.dispatcher.core.model import Failure, FailureKind, NotBegun
from hookseal.dispatcher.http.egress_guard import ForbiddenAddressError, TooLateError
from hookseal.dispatcher.http.observation import Phase, Progress
from hookseal.dispatcher.http.trust import HANDSHAKE_BYTES, LargeHandshakeError
from hookseal.errors import exhausted_resource

_LATE: Final = {
    Phase.NAME: (FailureKind.DNS, "the host name was not resolved within {seconds:g} s"),
    Phase.CONNECTION: (FailureKind.TIMEOUT, "no connection within {seconds:g} s"),
    Phase.PROXY: (FailureKind.PROXY, "the egress proxy gave no connection within {seconds:g} s"),
    Phase.HANDSHAKE: (FailureKind.TIMEOUT, "no TLS handshake within {seconds:g} s"),
    Phase.ANSWER: (FailureKind.TIMEOUT, "no answer within {seconds:g} s"),
}
# OpenSSL, x509_vfy.h: why a certificate is not trusted.
_CERTIFICATE: Final = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate comes from an authority that is not trusted (a self-signed one is in its chain)",
    20: "the certificate comes from an authority that is not trusted, or the receiver leaves out a link of its chain",
    21: "the receiver leaves out a link of its certificate's chain",
    23: "the certificate is revoked",
    62: "the certificate is for another name",
    64: "the certificate is for another address",
}
_REFUSED: Final = "the receiver refused the TLS handshake"
_WANTS_CERTIFICATE: Final = "the receiver wants a client certificate that it trusts"
_HANDSHAKE: Final = {
    "UNSUPPORTED_PROTOCOL": "the receiver speaks no TLS of version 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the receiver speaks no TLS of version 1.2 or newer",
    "WRONG_VERSION_NUMBER": "the receiver does not speak TLS",
    "HTTP_REQUEST": "the receiver does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "the receiver does not speak TLS",
    "RECORD_LAYER_FAILURE": "the receiver does not speak TLS",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _REFUSED,
    "TLSV1_UNRECOGNIZED_NAME": "the receiver does not know the name",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTS_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _WANTS_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the receiver says that the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _WANTS_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _WANTS_CERTIFICATE,
    "TLSV1_ALERT_ACCESS_DENIED": _WANTS_CERTIFICATE,
}


class NotConnectedError(aiohttp.ClientError):
    """No connection could be made, and nothing of the request was sent. `answer` says why."""

    def __init__(self, answer: Failure | NotBegun) -> None:
        super().__init__(answer)
        self.answer = answer


def late(progress: Progress, seconds: float) -> Failure:
    """Return the failure of a request that was not done in time, by the phase in which it was."""
    kind, detail = _LATE[progress.phase]
    return Failure(kind=kind, detail=detail.format(seconds=seconds))


def not_connected(error: Exception, progress: Progress) -> Failure | NotBegun:
    """Return the answer for an error that occurred before there was a connection."""
    missing = exhausted_resource(error) or progress.missing_resource
    if missing is not None or isinstance(error, TooLateError):  # even if other addresses of the name failed otherwise
        return NotBegun(missing_resource=missing)
    match error:
        case _ if progress.phase is Phase.PROXY:
            detail = f"the connection to the egress proxy failed ({type(error).__name__})"
            return Failure(kind=FailureKind.PROXY, detail=detail)
        case ForbiddenAddressError():
            return Failure(kind=FailureKind.FORBIDDEN_ADDRESS, detail=str(error))
        case socket.gaierror():
            return Failure(kind=FailureKind.DNS, detail="the host name could not be resolved")
        case ValueError():
            return Failure(kind=FailureKind.INVALID_URL, detail="the url names no host that can be dialled")
        case _:
            return connection(error)


def connection(error: BaseException, cut_off: str | None = None) -> Failure:
    """Return the failure of a connection that failed, or that hookseal ended for the reason `cut_off`."""
    return Failure(kind=FailureKind.CONNECTION, detail=cut_off or f"the connection failed ({type(error).__name__})")


def handshake(error: OSError) -> Failure:
    """Return the failure of a TLS handshake, with the reason if OpenSSL gives one."""
    return Failure(kind=FailureKind.TLS, detail=_handshake_detail(error))


def _handshake_detail(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_code=int(code)):
            return _CERTIFICATE.get(code, f"the certificate is not trusted (OpenSSL says {code})")
        case LargeHandshakeError():
            sent = f"the receiver sent more than {HANDSHAKE_BYTES:,} bytes in the TLS handshake"
            return f"{sent}: its certificates are too large"
        case ssl.SSLEOFError():
            return "the receiver closed the connection during the TLS handshake"
        case ssl.SSLError(reason=str(reason)):
            return _HANDSHAKE.get(reason, f"the TLS handshake failed ({reason})")
        case _:
            return "the receiver closed the connection during the TLS handshake"


def unanswered(error: Exception, progress: Progress, seconds: float) -> Failure | NotBegun:
    """Return the answer for an error that ended a request without a status."""
    match error:
        case NotConnectedError(answer=answer):
            return answer
        case TimeoutError():
            return late(progress, seconds)
        case HttpProcessingError():
            return Failure(kind=FailureKind.PROTOCOL, detail="the receiver did not answer in valid HTTP")
        case ValueError():
            return Failure(kind=FailureKind.INVALID_URL, detail="the url names no host that can be dialled")
        case OSError() if isinstance(
            progress.lost_by, ssl.SSLError
        ):  # in TLS 1.3 a missing client certificate shows only now
            return handshake(progress.lost_by)
        case _:
            return connection(error, progress.cut_off)
