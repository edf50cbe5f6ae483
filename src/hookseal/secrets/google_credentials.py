"""Credentials of Google whose servers are not asked in the clear. Both clients of Google use them."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import google.auth
from google.auth import transport
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from hookseal.ground.errors import ConfigError
from hookseal.ground.tls import is_beside_this_machine, is_protected

_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_METADATA: Final = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")
_METADATA_NAME: Final = "metadata.google.internal"
_FILE: Final = "the file that GOOGLE_APPLICATION_CREDENTIALS names (token_uri and other urls)"
_TOKEN_SECONDS: Final = 10.0  # for a token; a call gives up earlier, and the next one uses a token that came late
# What Google's library raises for an answer that has not the form of Google.
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
_DEEPEST: Final = 5  # one kind of credentials may be made of another one


def found(*, may_be_plain: bool, token_seconds: float = _TOKEN_SECONDS) -> Any:
    """Return the credentials that the environment provides; it may ask the server of metadata, which takes 12 seconds.

    Later a server that gives tokens has `token_seconds` to answer. Raises `ConfigError` if one would be asked over http
    on another machine, unless it `may_be_plain`, as outside production; the clients of Google always use TLS. Raises
    `GoogleAuthError` and `OSError`.
    """
    if not may_be_plain:
        for name in _METADATA:
            host = os.environ.get(name, "")
            if host and host.partition(":")[0] != _METADATA_NAME:
                _require_protected(f"http://{host}/", name)

    def limited(request: transport.Request) -> _Limited:
        return _Limited(request, may_be_plain=may_be_plain, seconds=token_seconds)

    try:
        credentials, _ = google.auth.default(scopes=_SCOPES, request=limited(Request()))  # some kinds ask for a token
    except GoogleAuthError:
        raise
    except _UNREADABLE:
        raise TransportError("an answer of a server of tokens cannot be read") from None  # type: ignore[no-untyped-call]
    refresh = credentials.refresh
    credentials.refresh = lambda request: refresh(limited(request))  # type: ignore[method-assign,no-untyped-call]
    if not may_be_plain:
        for url in _urls(credentials, _DEEPEST):
            _require_protected(url, _FILE)
    return credentials


class _Limited(transport.Request):
    """Sends a request of Google's library, for a limited time, unless it would go to another machine in the clear.

    Each call that needs a token has a thread, which otherwise waits for 120 s if the server of tokens hangs.
    """

    def __init__(self, send: transport.Request, *, may_be_plain: bool, seconds: float) -> None:
        self._send = send
        self._may_be_plain = may_be_plain
        self._seconds = seconds

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Any:
        if not self._may_be_plain and urlsplit(url).hostname != _METADATA_NAME:
            _require_protected(url, _FILE)
        limit = min(timeout or self._seconds, self._seconds)
        return self._send(url, method=method, body=body, headers=headers, timeout=limit, **more)


def _urls(value: Any, depth: int) -> Iterator[str]:
    """Give every http url that credentials have, whatever their kind calls it."""
    if isinstance(value, str):
        if value.lower().startswith("http:"):
            yield value
    elif depth:
        held = value if isinstance(value, dict) else {}
        if type(value).__module__.startswith("google."):
            held = getattr(value, "__dict__", {})
        for part in held.values():
            yield from _urls(part, depth - 1)


def _require_protected(url: str, where: str) -> None:
    if not (is_protected(url, proxies=True) or is_beside_this_machine(url)):
        raise ConfigError(
            "a server that gives tokens of Google would be asked over http, where whoever is between reads them: in "
            f"production use https, or an address of this machine without a proxy (NO_PROXY), in {where}"
        )
