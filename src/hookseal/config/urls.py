"""The urls of PostgreSQL and Redis: checked, with the address that messages may show and that holds no password."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from pydantic_core import PydanticCustomError

from hookseal.config import url_parameters
from hookseal.config.problems import problem
from hookseal.config.settings import Database, Redis

LISTEN_URL: Final = "HOOKSEAL_LISTEN_URL"

_REDIS_URL: Final = "REDIS_URL"
_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_HOSTS: Final = re.compile(rf"{_HOST}(?::[^,]*)?(?:,{_HOST}(?::[^,]*)?)*")
_HOST_AND_PORT: Final = re.compile(rf"({_HOST})(?::([^,]*))?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_REDIS_DATABASE: Final = re.compile(r"(?:/\d{0,5})?")
_DEFAULT_PORTS: Final = {"postgresql": "5432", "postgres": "5432", "redis": "6379", "rediss": "6379"}
_MAX_PORT: Final = 65_535
_DRIVER: Final = re.compile(r"^(postgres(?:ql)?)\+[a-z0-9]{1,32}://")  # as SQLAlchemy names one
_VALKEY: Final = re.compile(r"^valkey(s?)://")
_ENCODE: Final = "percent-encode '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40 in the user and the password"
_NOT_A_PORT: Final = f"not a number from 1 to {_MAX_PORT}"
_NOT_A_HOST: Final = "neither a name nor an address"


def database(text: str) -> Database:
    """Return the url of PostgreSQL, as the driver accepts it, with the address that messages show.

    Raises `ValueError` if the url is of another scheme, and a problem that says which part of the url, which parameter
    or which file is wrong. Neither holds text of the url.
    """
    variable = url_parameters.URL
    url = _DRIVER.sub(r"\1://", text)
    parts = _split(url, {"postgresql", "postgres"}, variable)
    parameters = url_parameters.for_driver(_query(parts, variable))
    url_parameters.require_usable_files(parameters.values)
    if not parameters.is_unchanged:
        url = f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(parameters.values, quote_via=quote, safe='/:,')}"
    return Database(
        url=url, address=_address(parts, parameters.values), application_name=parameters.values.get("application_name")
    )


def listen_database(text: str) -> Database:
    """Return the url of PostgreSQL for LISTEN. Raises as `database` does; the problem names `HOOKSEAL_LISTEN_URL`."""
    try:
        return replace(database(text), variable=LISTEN_URL)
    except PydanticCustomError as error:
        message = error.message()
    raise problem(message.replace(url_parameters.URL, LISTEN_URL))


def redis(text: str) -> Redis:
    """Return the url of Redis with the address that messages show.

    Raises `ValueError` if the url is of another scheme, and a problem that says which part of it is wrong.
    """
    url = _VALKEY.sub(r"redis\1://", text)
    parts = _split(url, {"redis", "rediss", "unix"}, _REDIS_URL)
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.path == "/":
            raise problem(f"{_REDIS_URL} names no socket: write unix:///PATH")
        return Redis(url=url, address=f"the socket {parts.path}")
    address = _hosts(parts.netloc, _DEFAULT_PORTS[parts.scheme], _REDIS_URL)
    if not address:
        raise problem(f"{_REDIS_URL} names no host: write {parts.scheme}://HOST:PORT/NUMBER")
    if "," in address:
        raise problem(f"{_REDIS_URL} names several hosts: name one")
    if _REDIS_DATABASE.fullmatch(parts.path) is None:  # the client would use database 0 instead
        raise problem(f"{_REDIS_URL} has a database that is not a number of at most five digits: correct it")
    return Redis(url=url, address=address)


def _query(parts: SplitResult, variable: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:  # its text holds the value, so it must not become the context of the problem
        pass
    raise problem(f"{variable} has a parameter without a value behind the '?': write NAME=VALUE, or remove it")


def _address(parts: SplitResult, parameters: Mapping[str, str]) -> str:
    port = _DEFAULT_PORTS[parts.scheme]
    hosts = _hosts(parts.netloc, port, url_parameters.URL)
    if hosts:
        return hosts
    named, ports = parameters.get("host", ""), parameters.get("port", port)
    if not all(_is_port(each) for each in ports.split(",")):
        raise url_parameters.parameter_problem("port", f"which is {_NOT_A_PORT}: correct it")
    if named.startswith("/"):
        return f"the socket in {named}"
    if named and _HOSTS.fullmatch(named) is None:
        raise url_parameters.parameter_problem("host", f"which is {_NOT_A_HOST}: correct it")
    return _hosts(named, ports.partition(",")[0], url_parameters.URL) or "its default socket"


def _split(text: str, schemes: set[str], variable: str) -> SplitResult:
    scheme = text.partition("://")[0]
    if scheme not in schemes or not text.startswith(f"{scheme}://"):
        raise ValueError
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise problem(
            f"{variable} has a space, a control character or a character beyond ASCII: remove or percent-encode it"
        )
    if "#" in text:
        raise problem(f"{variable} has a '#' that is not percent-encoded: {_ENCODE}")
    # With one of these in a password that is not percent-encoded, a piece of the password would be taken for the host.
    if "@" in "".join(re.split("[/?]", text.removeprefix(f"{scheme}://"), maxsplit=1)[1:]):
        raise problem(f"{variable} has an '@' after the first '/' or '?': {_ENCODE}")
    try:
        return urlsplit(text)
    except ValueError:  # a bracket that belongs to no IPv6 address
        pass
    raise _not_a_host(variable)


def _hosts(netloc: str, port: str, variable: str) -> str:
    """Return `host:port`, several with commas between, or "" if the url names none. Raises a problem."""
    text = netloc.rpartition("@")[2]
    if not text:
        return ""
    if _HOSTS.fullmatch(text) is None:
        raise _not_a_host(variable)
    found = [(host, port if own is None else own) for host, own in _pairs(text)]
    if not all(_is_port(each) for _, each in found):
        raise problem(f"{variable} has a port that is {_NOT_A_PORT}: correct it, or remove it with its ':'")
    return ", ".join(f"{host}:{each}" for host, each in found)


def _pairs(text: str) -> list[tuple[str, str | None]]:
    """Return each host with its own port, None where it has no colon."""
    return [(pair[1], pair[2]) for pair in _HOST_AND_PORT.finditer(text)]


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and 1 <= int(text) <= _MAX_PORT


def _not_a_host(variable: str) -> PydanticCustomError:
    return problem(
        f"{variable} has a host that is {_NOT_A_HOST}: correct it, or percent-encode '[' as %5B and ']' as %5D in the "
        "user and the password"
    )
