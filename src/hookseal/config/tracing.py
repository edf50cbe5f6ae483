"""The variables of OpenTelemetry, which its SDK reads itself. Here is decided whether hookseal may obey them."""

import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from hookseal.config.settings import Environment
from hookseal.ground.tls import is_protected

Tracing = Literal["off", "otlp"]
OTLP: Final = "otlp"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_DEFAULT: Final = "http://localhost:4318"
# What the SDK takes as a header. It would log any other one, with its value.
_HEADER: Final = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def problems(environ: Mapping[str, str], environment: Environment) -> list[str]:
    """Return what is wrong with these variables; no text has a value of them."""
    found = list[str]()
    protocol, endpoint, headers = (_first(environ, names) for names in (_PROTOCOLS, _ENDPOINTS, _HEADERS))
    if protocol and environ[protocol] != "http/protobuf":
        found.append(f"{protocol} must be http/protobuf or absent: hookseal sends spans by OTLP over HTTP (port 4318)")
    url = environ[endpoint] if endpoint else _DEFAULT
    has_credential = headers is not None or "@" in url
    if not _is_url(url):
        found.append(f"{endpoint} must be the url of a collector: http://HOST:4318 or https://...")
    elif has_credential and environment is Environment.PRODUCTION and not is_protected(url, proxies=True):
        found.append(
            f"{endpoint or _ENDPOINTS[1]} must be https in production: it, or {_HEADERS[1]}, has a credential, "
            "which http would send in the clear"
        )
    if headers and not all(map(_is_header, environ[headers].split(","))):
        found.append(f"{headers} must be NAME=VALUE, several separated by commas, with each value percent-encoded")
    return found


def _is_header(text: str) -> bool:
    given = text.strip()
    return not given or _HEADER.fullmatch(given) is not None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first of these names that is set, as the SDK chooses; an empty one counts as not set."""
    return next((name for name in names if environ.get(name)), None)
