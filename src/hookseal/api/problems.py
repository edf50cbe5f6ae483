"""The answers to requests that cannot be done. Pure.

The forms are those that the clients of Svix parse: `{code, detail}`, and with 422 `{detail: [{loc, msg, type}]}`. No
text tells a customer what an operator would do at a shell.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hookseal.errors import (
    CannotSign,
    ConfigError,
    Conflict,
    Defect,
    Exhausted,
    HooksealError,
    LocalFailure,
    Malformed,
    NotFound,
    Refused,
    Unavailable,
)

UNPROCESSABLE: Final = 422
INTERNAL: Final = 500
UNAVAILABLE: Final = 503
RETRY: Final = {"retry-after": "1"}
CLOSE: Final = {"connection": "close"}
# A command, an option of one, or a variable: words of an operator.
_OF_AN_OPERATOR: Final = re.compile(r"`|\bhookseal [a-z]|(?<![\w-])--[a-z]|\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
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
    """Return the one answer for what does not exist, what another tenant has, and a path that nothing serves."""
    return Problem(404, "not_found", "Entity not found")


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
    """Return the answer to a call of Svix that hookseal does not have.

    Clients repeat a request after every 5xx, so it is none of them.
    """
    return Problem(400, "not_supported", what)


def of_error(error: Exception, loc: Sequence[str] | None) -> Problem:
    """Return the answer for an error; `loc` is the part of the request that it names, None if it names none."""
    match error:
        case Problem():
            return error
        case Malformed() | Refused() if loc is not None and loc[0] != "path":
            return invalid(loc, _public(error, 422))
        case Malformed():
            return absent() if loc is not None else invalid(("body",), _public(error, 422))
        case NotFound():
            return absent()
        case Conflict():
            return conflict(_public(error, 409))
        case ConfigError(field="SECRETS_MASTER_KEY"):
            return Problem(403, "no_master_key", "this server has no master key: it can only read and publish")
        case ConfigError():
            return Problem(403, "configuration", "the settings of this server do not allow it: ask its operator")
        case Unavailable() | Exhausted() | LocalFailure():
            return Problem(503, error.code, _GENERAL[503], headers=RETRY)
        case CannotSign():
            return Problem(409, error.code, "a stored secret cannot be used: the operator of this server must act")
        case Refused():
            return Problem(403, error.code, _public(error, 403))
        case _:
            return Problem(500, Defect.code, _GENERAL[500])


def is_for_the_operator(error: Exception, loc: Sequence[str] | None) -> bool:
    """Return whether only an operator can correct this: the settings, the rights of the process, a stored secret."""
    return isinstance(error, ConfigError | CannotSign) or (isinstance(error, Refused) and loc is None)


_GENERAL: Final = {
    403: "a rule of this server forbids it",
    409: "it contradicts what is stored",
    422: "the value is not allowed",
    500: "internal error",
    503: "this cannot be done at the moment: try again",
}


def _public(error: HooksealError, status: int) -> str:
    """Return the message of the error; a general text if the message has words of an operator."""
    text = str(error)
    return _GENERAL[status] if _OF_AN_OPERATOR.search(text) else text
