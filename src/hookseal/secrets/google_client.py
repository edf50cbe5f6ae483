"""What the clients of Google Secret Manager and Cloud KMS have in common: channel, credentials and logging.

No server that gives credentials is asked in the clear.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import google.auth
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport import Request as AnyRequest
from google.auth.transport.requests import Request

from hookseal.errors import Cause, ConfigError, SecretUnavailable
from hookseal.ground.tls import goes_directly, is_beside_this_machine, is_protected

RECONNECT_SECONDS: Final = 1.0  # the longest wait of a channel between two tries to connect, give or take a fifth
# By default gRPC waits up to two minutes between tries, and calls fail at once meanwhile, although the server is back.
# The waits are shorter than the time that an attempt has for its secrets, so that the first one afterwards succeeds.
OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one try may take, with TLS, on a slow way; not a wait
    ("grpc.max_reconnect_backoff_ms", int(RECONNECT_SECONDS * 1_000)),
)

_PLUGIN: Final = "grpc._plugin_wrapping"  # logs a traceback for credentials that fail, which the call raises as well
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_METADATA: Final = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")
_METADATA_NAME: Final = "metadata.google.internal"
_METADATA_ADDRESS: Final = "169.254.169.254"
_FILE: Final = "the file that GOOGLE_APPLICATION_CREDENTIALS names (token_uri and other urls)"
_TOKEN_SECONDS: Final = 10.0  # for a token; a call gives up earlier, and the next one uses a token that came late
# What Google's library raises for an answer that has not the form of Google.
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
_DEEPEST: Final = 5  # one kind of credentials may be made of another one


async def transport(
    kind: Any, channel: Callable[..., Any] | None, *, loggers: Iterable[str], may_be_plain: bool = False
) -> Any:
    """Return the transport of this kind, with the credentials of the environment or on the channel of a test.

    After an outage its channel connects again within `RECONNECT_SECONDS`. What `loggers` log below `INFO`, which may
    contain requests and answers, is not logged any more. Raises what `found_credentials` raises.
    """
    logging.getLogger(_PLUGIN).setLevel(logging.CRITICAL + 1)
    for name in loggers:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    if channel is not None:
        return kind(channel=channel(options=OPTIONS))
    # Another thread, because it may ask the machine's server of metadata, which takes 12 seconds if there is none.
    credentials = await asyncio.to_thread(partial(found_credentials, may_be_plain=may_be_plain))

    def connected(*arguments: Any, options: Iterable[tuple[str, Any]] = (), **more: Any) -> Any:
        return kind.create_channel(*arguments, options=[*options, *OPTIONS], **more)

    return kind(credentials=credentials, channel=connected)


def no_credentials_now() -> SecretUnavailable:
    """Return the error for a server of credentials that does not answer, or not in Google's form."""
    return SecretUnavailable(
        "what gives this process its credentials of Google does not answer: repair the connection to the server of "
        "metadata, or to `token_uri` of the file that GOOGLE_APPLICATION_CREDENTIALS names",
        cause=Cause.FAILING,
    )


def found_credentials(*, may_be_plain: bool, token_seconds: float = _TOKEN_SECONDS) -> Any:
    """Return the credentials that the environment provides; it may ask the server of metadata, which takes 12 seconds.

    Later a server that gives tokens has `token_seconds` to answer. Raises `ConfigError` if one would be asked over http
    on another machine, or through a proxy, unless it `may_be_plain`, as outside production; the clients of Google
    always use TLS. Raises `GoogleAuthError` and `OSError`.
    """
    if not may_be_plain:
        for name in _METADATA:
            host = os.environ.get(name, "")
            url = f"http://{host}/"
            # Whether a proxy is on the way counts only if the server is asked.
            if host and not _is_metadata(url):
                _require_protected(url, name)

    def limited(request: AnyRequest) -> _Limited:
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


class _Limited(AnyRequest):
    """Sends a request of Google's library, for a limited time, unless it would go to another machine in the clear.

    Each call that needs a token has a thread, which otherwise waits for 120 s if the server of tokens hangs.
    """

    def __init__(self, send: AnyRequest, *, may_be_plain: bool, seconds: float) -> None:
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
        if not self._may_be_plain:
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
    is_metadata = _is_metadata(url)
    if not (is_metadata or is_protected(url)):
        raise ConfigError(
            "a server that gives tokens of Google would be asked over http, where anyone in between can read them: in "
            f"production use https, or an address of this machine without a proxy (NO_PROXY), in {where}"
        )
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and not goes_directly(host):  # Google's client compares NO_PROXY with the host alone
        if is_metadata:  # it is asked by its name and by its address
            host = f"{_METADATA_NAME} and {_METADATA_ADDRESS if host == _METADATA_NAME else host}"
        raise ConfigError(
            "a server that gives tokens of Google would be asked over http through the proxy that HTTP_PROXY or "
            f"ALL_PROXY names, which can read them: in production add {host} to NO_PROXY"
            + (", or give this process GOOGLE_APPLICATION_CREDENTIALS" if is_metadata else "")
        )


def _is_metadata(url: str) -> bool:
    """Return whether this is the server of metadata of a machine of Google, whose http no router passes on."""
    try:
        return urlsplit(url).hostname == _METADATA_NAME or is_beside_this_machine(url)
    except ValueError:
        return False
