"""What an answer of OpenBao means: its content, or an error that says who must act. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from hookseal.ground.errors import Cause
from hookseal.secrets.errors import SecretDenied, SecretError, SecretNotFound, SecretUnavailable

_OK: Final = frozenset({200, 204})
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_DENIED: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_BEHIND: Final = 412
_TOO_MANY: Final = 429
_TRANSIENT: Final = frozenset({408, _BEHIND, _TOO_MANY})
_SERVER_ERROR: Final = 500
_UNMOUNTED: Final = ("no handler for route", "unsupported path")  # nothing, or an engine without such paths


class Absence(StrEnum):
    """Why OpenBao cannot answer at the moment, and who must do what."""

    UNREACHABLE = "OpenBao at {address} does not answer"
    UNTRUSTED = (
        "OpenBao at {address} does not prove by TLS that it is the right server: check BAO_ADDR, BAO_CACERT and the "
        "clock of this machine"
    )
    SEALED = "OpenBao at {address} is sealed: unseal it (`bao operator unseal`, by the holders of its unseal keys)"
    STANDBY = (
        "OpenBao at {address} is a standby that does not forward requests: set BAO_ADDR to the active server or to a "
        "load balancer"
    )
    BEHIND = "OpenBao at {address} has not caught up with its active server: wait, or look into its replication"
    BUSY = (
        "OpenBao at {address} limits requests: its administrator must raise the rate limit quota that is reached "
        "(`bao list sys/quotas/rate-limit`), or hookseal must ask less often (SECRETS_CACHE_TTL_SECONDS)"
    )
    FAILING = "OpenBao at {address} fails or gives answers that cannot be read: look into its log"
    DOWN = "what is before OpenBao at {address} answers {status}: OpenBao is down or sealed, or no server is behind it"
    FOREIGN = (
        "what answers at {address} is not OpenBao: correct BAO_ADDR, or what is between, such as a proxy or a load "
        "balancer"
    )


_CAPABILITIES: Final = {"GET": "read", "POST": "create, update", "PUT": "create, update", "DELETE": "delete"}
_CAUSES: Final = {
    Absence.UNREACHABLE: Cause.SILENT,
    Absence.SEALED: Cause.SEALED,
    Absence.BUSY: Cause.THROTTLED,
    Absence.FOREIGN: Cause.FOREIGN,
    Absence.UNTRUSTED: Cause.FOREIGN,
}


class OpenBaoUnavailable(SecretUnavailable):
    """OpenBao cannot answer at the moment; `absence` says why. A retry may succeed."""

    code = "openbao_unavailable"

    def __init__(self, address: str, absence: Absence, *, status: int | None = None) -> None:
        super().__init__(absence.format(address=address, status=status), cause=_CAUSES.get(absence, Cause.FAILING))
        self.absence = absence


class OpenBaoDenied(SecretDenied):
    """OpenBao refuses the token, or the policies of the token do not permit the request."""

    code = "openbao_denied"


class OpenBaoNotFound(SecretNotFound):
    """There is nothing at this path. `data` has what the answer says about it: of a deleted version, its metadata.

    `is_mounted` says whether there is an engine that serves the path.
    """

    code = "openbao_not_found"

    def __init__(self, message: str, data: Mapping[str, Any], *, is_mounted: bool) -> None:
        super().__init__(message)
        self.data = data
        self.is_mounted = is_mounted


class OpenBaoRefused(SecretError):
    """OpenBao refuses the content of the request. `reasons` are its words: compare them, but do not show them."""

    code = "openbao_refused"

    def __init__(self, message: str, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


def content(status: int, body: bytes, *, address: str, path: str, method: str = "GET") -> Mapping[str, Any]:
    """Return the JSON object of a successful answer to that request, which is empty for an answer without a body.

    Raises `OpenBaoDenied`, `OpenBaoNotFound`, `OpenBaoRefused` or `OpenBaoUnavailable`. No message contains anything
    that the server wrote.
    """
    if status in _REDIRECTS:
        raise OpenBaoUnavailable(address, Absence.STANDBY)
    value = _object(body)
    if value is None:  # every answer of OpenBao is a JSON object, or empty
        is_down = status >= _SERVER_ERROR  # as a load balancer answers for a server that is sealed or away
        raise OpenBaoUnavailable(address, Absence.DOWN if is_down else Absence.FOREIGN, status=status)
    if status in _OK:
        return value
    reasons = _reasons(value)
    if status in _DENIED:
        raise OpenBaoDenied(
            f"OpenBao at {address} denies this token the request to {path}: give its policy that right "
            f"({_CAPABILITIES.get(method, method)}), or replace the token if it has expired"
        )
    if status == _NOT_FOUND:
        is_mounted = not any(text in reason for reason in reasons for text in _UNMOUNTED)
        raise OpenBaoNotFound(f"OpenBao at {address} has nothing at {path}", part(value, "data"), is_mounted=is_mounted)
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        raise OpenBaoUnavailable(address, _absence(status, reasons))
    raise OpenBaoRefused(f"OpenBao at {address} refuses the content of a request to {path} (status {status})", reasons)


def _absence(status: int, reasons: tuple[str, ...]) -> Absence:
    text = " ".join(reasons).lower()
    if "sealed" in text:
        return Absence.SEALED
    if "not active" in text or "standby" in text:
        return Absence.STANDBY
    return {_TOO_MANY: Absence.BUSY, _BEHIND: Absence.BEHIND}.get(status, Absence.FAILING)


def _object(body: bytes) -> Mapping[str, Any] | None:
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def _reasons(value: Mapping[str, Any]) -> tuple[str, ...]:
    errors = value.get("errors")
    return tuple(each for each in errors if isinstance(each, str)) if isinstance(errors, list) else ()


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object of that name in an answer; an empty one if there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}
