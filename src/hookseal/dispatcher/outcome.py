"""What an answer means: a closed set of outcomes, and the one function that chooses."""

from enum import StrEnum
from typing import assert_never

from hookseal.dispatcher.model import Answer, Failure, FailureKind, Reply


class Outcome(StrEnum):
    """How an attempt ended. A failure of the other side is one of these, never an exception."""

    DELIVERED = "delivered"
    REDIRECT = "redirect"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    UNEXPECTED_STATUS = "unexpected_status"
    TIMEOUT = "timeout"
    TLS = "tls"
    DNS = "dns"
    CONNECTION = "connection"
    FORBIDDEN_ADDRESS = "forbidden_address"
    PROTOCOL = "protocol"
    INVALID_URL = "invalid_url"
    UNKNOWN = "unknown"


_BY_FAILURE = {
    FailureKind.TIMEOUT: Outcome.TIMEOUT,
    FailureKind.TLS: Outcome.TLS,
    FailureKind.DNS: Outcome.DNS,
    FailureKind.CONNECTION: Outcome.CONNECTION,
    FailureKind.FORBIDDEN_ADDRESS: Outcome.FORBIDDEN_ADDRESS,
    FailureKind.PROTOCOL: Outcome.PROTOCOL,
    FailureKind.INVALID_URL: Outcome.INVALID_URL,
}
_BY_HUNDRED = {
    2: Outcome.DELIVERED,
    3: Outcome.REDIRECT,  # never followed
    4: Outcome.CLIENT_ERROR,
    5: Outcome.SERVER_ERROR,
}


def classify(answer: Answer) -> Outcome:
    """Return the outcome of an answer. Only 2xx is delivered (Standard Webhooks 1.0.0)."""
    match answer:
        case Reply(status=status):
            return _BY_HUNDRED.get(status // 100, Outcome.UNEXPECTED_STATUS)
        case Failure(kind=kind):
            return _BY_FAILURE[kind]
        case _:
            assert_never(answer)


def explain(answer: Answer) -> str | None:
    """Return what a person should read about an answer that did not deliver, None if it did."""
    match answer:
        case Reply() if classify(answer) is Outcome.DELIVERED:
            return None
        case Reply(status=status):
            return f"the receiver answered {status}"
        case Failure(detail=detail):
            return detail
        case _:
            assert_never(answer)
