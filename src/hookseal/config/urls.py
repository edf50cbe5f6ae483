"""The two urls, checked so far that a message may name the address and never the password."""

import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from hookseal.config.settings import Database, Redis

_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_HOSTS: Final = re.compile(rf"{_HOST}(?::\d{{1,5}})?(?:,{_HOST}(?::\d{{1,5}})?)*")
_REDIS_DATABASE: Final = re.compile(r"(?:/\d{0,5})?")
_DEFAULT_PORTS: Final = {"postgresql": "5432", "postgres": "5432", "redis": "6379", "rediss": "6379"}
_MAX_PORT: Final = 65_535


def database(text: str) -> Database:
    """Return the url of PostgreSQL with the address that messages name. Raises `ValueError`, without the value."""
    parts = _split(text, {"postgresql", "postgres"})
    hosts = _hosts(parts)
    directory = parse_qs(parts.query).get("host", [""])[0]
    if not hosts and directory.startswith("/"):
        return Database(url=text, address=f"the socket in {directory}")
    return Database(url=text, address=hosts or "its default socket")


def redis(text: str) -> Redis:
    """Return the url of Redis with the address that messages name. Raises `ValueError`, without the value."""
    parts = _split(text, {"redis", "rediss", "unix"})
    if parts.scheme == "unix":
        _require(parts.path.startswith("/") and parts.path != "/")
        return Redis(url=text, address=f"the socket {parts.path}")
    hosts = _hosts(parts)
    # A client would take database 0 in place of one that it cannot read.
    _require(bool(hosts) and "," not in hosts and _REDIS_DATABASE.fullmatch(parts.path) is not None)
    return Redis(url=text, address=hosts)


def _split(text: str, schemes: set[str]) -> SplitResult:
    _require(text.isascii() and text.isprintable() and " " not in text)
    parts = urlsplit(text)
    _require(text.startswith(f"{parts.scheme}://") and parts.scheme in schemes)
    # A '/', '?' or '#' in a password that is not percent-encoded would make a part of it the host.
    _require(not parts.fragment and "#" not in text and "@" not in parts.path + parts.query)
    return parts


def _hosts(parts: SplitResult) -> str:
    """Return `host:port`, several with commas between, "" if the url names none."""
    text = parts.netloc.rpartition("@")[2]
    if not text:
        return ""
    _require(_HOSTS.fullmatch(text) is not None)
    hosts = [
        host if re.search(r":\d+$", host) else f"{host}:{_DEFAULT_PORTS[parts.scheme]}" for host in text.split(",")
    ]
    _require(all(1 <= int(host.rpartition(":")[2]) <= _MAX_PORT for host in hosts))
    return ", ".join(hosts)


def _require(truth: bool) -> None:  # noqa: FBT001 - a condition is all it takes
    if not truth:
        raise ValueError
