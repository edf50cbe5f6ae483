"""What an answer means: which outcome of the closed set it is, and what a person should read about it."""

from typing import assert_never

from hookseal.dispatcher.model import Failure, FailureKind, Outcome, Reply

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


def classify(answer: Reply | Failure) -> Outcome:
    """Return the outcome of an answer. Only 2xx is delivered (Standard Webhooks 1.0.0)."""
    match answer:
        case Reply(status=status):
            return _BY_HUNDRED.get(status // 100, Outcome.UNEXPECTED_STATUS)
        case Failure(kind=kind):
            return _BY_FAILURE[kind]
        case _:
            assert_never(answer)


def explain(answer: Reply | Failure) -> str | None:
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
