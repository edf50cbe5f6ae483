"""The two urls, checked so far that a message may name the address and never the password."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from hookseal.config import tls_files, url_parameters
from hookseal.config.settings import Database, Redis

_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_HOSTS: Final = re.compile(rf"{_HOST}(?::\d{{1,5}})?(?:,{_HOST}(?::\d{{1,5}})?)*")
_PORTS: Final = re.compile(r"\d{1,5}(?:,\d{1,5})*")
_REDIS_DATABASE: Final = re.compile(r"(?:/\d{0,5})?")
_DEFAULT_PORTS: Final = {"postgresql": "5432", "postgres": "5432", "redis": "6379", "rediss": "6379"}
_MAX_PORT: Final = 65_535
_DRIVER: Final = re.compile(r"^(postgres(?:ql)?)\+[a-z0-9]{1,32}://")  # as SQLAlchemy names one
_VALKEY: Final = re.compile(r"^valkey(s?)://")


def database(text: str) -> Database:
    """Return the url of PostgreSQL, as the driver takes it, with the address that messages name.

    Raises `ValueError`, without the value, and a problem that names a parameter which cannot be kept or a file that
    cannot be used (`config/url_parameters.py`).
    """
    url = _DRIVER.sub(r"\1://", text)
    parts = _split(url, {"postgresql", "postgres"})
    parameters = url_parameters.taken(_query(parts))
    tls_files.require_usable(parameters.given)
    if not parameters.is_as_it_stood:
        url = f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(parameters.given, quote_via=quote, safe='/:,')}"
    return Database(
        url=url, address=_address(parts, parameters.given), application_name=parameters.given.get("application_name")
    )


def redis(text: str) -> Redis:
    """Return the url of Redis with the address that messages name. Raises `ValueError`, without the value."""
    url = _VALKEY.sub(r"redis\1://", text)
    parts = _split(url, {"redis", "rediss", "unix"})
    if parts.scheme == "unix":
        _require(parts.path.startswith("/") and parts.path != "/")
        return Redis(url=url, address=f"the socket {parts.path}")
    hosts = _hosts(parts.netloc, _DEFAULT_PORTS[parts.scheme])
    # A client would take database 0 in place of one that it cannot read.
    _require(bool(hosts) and "," not in hosts and _REDIS_DATABASE.fullmatch(parts.path) is not None)
    return Redis(url=url, address=hosts)


def _query(parts: SplitResult) -> dict[str, str]:
    try:
        return dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:  # whose text holds the value
        pass
    raise ValueError


def _address(parts: SplitResult, parameters: Mapping[str, str]) -> str:
    port = _DEFAULT_PORTS[parts.scheme]
    hosts = _hosts(parts.netloc, port)
    if hosts:
        return hosts
    named, ports = parameters.get("host", ""), parameters.get("port", port)
    _require(_PORTS.fullmatch(ports) is not None)
    if named.startswith("/"):
        return f"the socket in {named}"
    return _hosts(named, ports.partition(",")[0]) or "its default socket"


def _split(text: str, schemes: set[str]) -> SplitResult:
    _require(text.isascii() and text.isprintable() and " " not in text)
    parts = urlsplit(text)
    _require(text.startswith(f"{parts.scheme}://") and parts.scheme in schemes)
    # A '/', '?' or '#' in a password that is not percent-encoded would make a part of it the host.
    _require(not parts.fragment and "#" not in text and "@" not in parts.path + parts.query)
    return parts


def _hosts(netloc: str, port: str) -> str:
    """Return `host:port`, several with commas between, "" if it names none."""
    text = netloc.rpartition("@")[2]
    if not text:
        return ""
    _require(_HOSTS.fullmatch(text) is not None)
    hosts = [host if re.search(r":\d+$", host) else f"{host}:{port}" for host in text.split(",")]
    _require(all(1 <= int(host.rpartition(":")[2]) <= _MAX_PORT for host in hosts))
    return ", ".join(hosts)


def _require(truth: bool) -> None:  # noqa: FBT001 - a condition is all it takes
    if not truth:
        raise ValueError
