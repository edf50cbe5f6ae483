"""The answers to requests that cannot be done. Pure.

The forms are those that the clients of Svix parse: `{code, detail}`, and with 422 `{detail: [{loc, msg, type}]}`. No
text tells a customer what an operator would do at a shell.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.errors import (
    CannotSign,
    ConfigError,
    Conflict,
    Defect,
    Exhausted,
    LocalFailure,
    Malformed,
    NotFound,
    Refused,
    SecretDenied,
    Unavailable,
    for_a_customer,
)

UNPROCESSABLE: Final = 422
INTERNAL: Final = 500
UNAVAILABLE: Final = 503
RETRY: Final = {"retry-after": "1"}
CLOSE: Final = {"connection": "close"}
_MOST_CHARACTERS: Final = 500


class Problem(Exception):
    """The answer to a request that cannot be done: a status of 4xx or 5xx, and its body as JSON."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        loc: Sequence[str] | None = None,
        kind: str = "value_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail[:_MOST_CHARACTERS]
        self.loc = loc
        self.kind = kind
        self.headers = headers or {}

    def body(self) -> bytes:
        """Return the body of the answer."""
        if self.loc is None:
            return msgspec.json.encode({"code": self.code, "detail": self.detail})
        return msgspec.json.encode({"detail": [{"loc": [*self.loc], "msg": self.detail, "type": self.kind}]})


def invalid(loc: Sequence[str], detail: str, kind: str = "value_error") -> Problem:
    """Return the answer to a request with a wrong part: 422, which names the part."""
    return Problem(UNPROCESSABLE, "validation", detail, loc=loc, kind=kind)


def other_content() -> Problem:
    """Return the answer to a request whose `Idempotency-Key` was used for one with other content."""
    detail = "this key was used for a request with other content"
    return invalid(("header", "idempotency-key"), detail, "idempotency_error")


def absent() -> Problem:
    """Return the one answer for what does not exist and for what another tenant has."""
    return Problem(404, "not_found", "Entity not found")


def no_call(path: str) -> Problem:
    """Return the answer for a path that nothing serves, with or without a token."""
    hint = ": leave out the slash at its end" if path.endswith("/") and path != "/" else ""
    return Problem(404, "no_such_call", f"no call has this path{hint}")


def conflict(detail: str) -> Problem:
    """Return the answer to a request that contradicts what is stored."""
    return Problem(409, "conflict", detail)


def unauthenticated(why: str) -> Problem:
    """Return the answer to a request of nobody who is known."""
    return Problem(401, "authentication_failed", why, headers={"www-authenticate": "Bearer"})


def rate_limited(seconds: float) -> Problem:
    """Return the answer to a request of a caller that has sent too many: one may be answered in so many seconds."""
    after = max(math.ceil(seconds), 1)
    headers = {"retry-after": str(after)}
    return Problem(429, "rate_limited", f"too many requests: try again in {after} s", headers=headers)


def not_supported(what: str) -> Problem:
    """Return the answer to a call of Svix that hookseal does not have: why, and what to use."""
    return Problem(501, "not_supported", what)


def of_error(
    error: Exception, loc: Sequence[str] | None, *, names: Callable[[str, str | None], str] = lambda text, _field: text
) -> Problem:
    """Return the answer for an error; `loc` is the part of the request that it names, None if it names none.

    `names` returns a message of an Admin about this argument with the names that the request has.
    """
    match error:
        case Problem():
            return error
        case Malformed() | Refused() if loc is not None and loc[0] != "path":
            return invalid(loc, names(error.public, error.field))
        case Malformed():
            return absent() if loc is not None else invalid(("body",), names(error.public, error.field))
        case NotFound():
            return absent()
        case Conflict():
            return conflict(names(error.public, error.field))
        case ConfigError(field="SECRETS_MASTER_KEY"):
            return Problem(403, "no_master_key", "this server has no master key: it can only read and publish")
        case ConfigError(field="schema"):
            return Problem(503, "upgraded", "this server is being upgraded: try again", headers=RETRY)
        case ConfigError():
            return Problem(403, error.code, error.public)
        case Unavailable() | Exhausted() | LocalFailure():
            return Problem(503, error.code, error.public, headers=RETRY)
        case SecretDenied():
            return Problem(403, error.code, error.public)
        case CannotSign():
            return Problem(409, error.code, error.public)
        case Refused():
            return Problem(403, error.code, names(error.public, error.field))
        case _:
            return Problem(500, Defect.code, Defect.general)


def is_for_the_operator(error: Exception, loc: Sequence[str] | None) -> bool:
    """Return whether only an operator can correct this: the settings, the rights of the process, a stored secret."""
    return isinstance(error, ConfigError | CannotSign) or (isinstance(error, Refused) and loc is None)


def stored_text(text: str | None) -> str | None:
    """Return what a customer may read of a text that hookseal has stored about a delivery or an answer."""
    if text is None:
        return None
    if NOT_SENT in text:  # also behind what held it before
        return "this server could not send it yet: it tries again"
    return for_a_customer(text, "the operator of this server must act")
