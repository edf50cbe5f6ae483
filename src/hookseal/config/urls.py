"""The urls of PostgreSQL and Redis: checked, with the address that messages may show and that holds no password."""

import re
import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic_core import PydanticCustomError

from hookseal.config.forms import problem
from hookseal.config.settings import Database, Redis

URL: Final = "DATABASE_URL"
MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FULL: Final = "verify-full"

_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_ROLES: Final = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
# The driver gives them the meaning that libpq gives them. The tuple has the allowed values; () allows any.
SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "application_name": (),
    "database": (),  # what some clients call dbname
    "dbname": (),
    "gsslib": ("gssapi", "sspi"),
    "host": (),
    "krbsrvname": (),
    "options": (),
    "passfile": (),
    "password": (),
    "port": (),
    "service": (),
    "ssl_max_protocol_version": _VERSIONS,
    "ssl_min_protocol_version": _VERSIONS,
    "sslcert": (),
    "sslcrl": (),
    "sslkey": (),
    "sslmode": MODES,
    "sslnegotiation": ("postgres", "direct"),
    "sslpassword": (),
    "sslrootcert": (),
    "target_session_attrs": _ROLES,
    "user": (),
}
# Aliases of sslmode: `ssl` of JDBC and SQLAlchemy, `requiressl` of libpq before 9.
SSLMODE_ALIASES: Final[Mapping[str, Mapping[str, str]]] = {
    "requiressl": {"0": "prefer", "1": "require"},
    "ssl": {"true": "require", "false": "disable"} | {mode: mode for mode in MODES},
}
# Ignored, and why nothing is lost.
IGNORED: Final[Mapping[str, str]] = {
    "async_fallback": "only SQLAlchemy uses it",
    "client_encoding": "it is always UTF-8",
    "connect_timeout": "hookseal waits three to five seconds for a connection",
    "fallback_application_name": "hookseal names its connections",
    "gssdelegation": "hookseal delegates no credentials",
    "keepalives": "every statement has a time-out",
    "keepalives_count": "every statement has a time-out",
    "keepalives_idle": "every statement has a time-out",
    "keepalives_interval": "every statement has a time-out",
    "load_balance_hosts": "hosts are tried in the given order",
    "max_protocol_version": "the driver speaks 3.0",
    "prepared_statement_cache_size": "only SQLAlchemy uses it",
    "sslcompression": "TLS is never compressed",
    "sslsni": "the name of the host is always sent",
    "tcp_user_timeout": "every statement has a time-out",
}
# Parameters that are ignored with these harmless values only, and what to do about any other value.
UNSUPPORTED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "channel_binding": (
        ("disable", "prefer"),
        "the driver does not support it: set sslmode to verify-full, or remove it",
    ),
    "gssencmode": (("disable", "prefer"), "the driver encrypts with TLS only: set sslmode, or remove it"),
    "hostaddr": ((), "the driver resolves names itself: write the address in place of the host"),
    "min_protocol_version": (("3.0",), "the driver speaks 3.0: remove it"),
    "replication": (("false", "off", "no", "0"), "hookseal sends SQL statements: remove it"),
    "require_auth": (
        (),
        "the driver uses any method that the server requests: set sslmode to verify-full, and remove it",
    ),
    "requirepeer": ((), "the driver does not check the user behind a socket: remove it"),
    "sslcertmode": (("allow",), "the driver sends a certificate if the server requests one: remove it"),
    "sslcrldir": ((), "the driver reads one file: name it with sslcrl"),
    "sslkeylogfile": ((), "it would write the keys of the connection to a file: remove it"),
}
_KNOWN: Final = frozenset({*SUPPORTED, *SSLMODE_ALIASES, *IGNORED, *UNSUPPORTED})
_VERIFYING: Final = frozenset(
    {"require", "verify-ca", "verify-full"}
)  # with these modes the driver reads the certificate authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The parameters for the driver, and whether they are exactly those of the url."""

    values: Mapping[str, str]
    is_unchanged: bool


def for_driver(parameters: Mapping[str, str]) -> Parameters:
    """Return the parameters for the driver. Raises a problem that names a parameter, never its value."""
    values: dict[str, str] = {}
    for name, value in parameters.items():
        if name in SSLMODE_ALIASES:
            values.setdefault("sslmode", _one_of(name, value, SSLMODE_ALIASES[name]))
        elif name in SUPPORTED:
            values[name] = (
                value if not SUPPORTED[name] else _one_of(name, value, {each: each for each in SUPPORTED[name]})
            )
        elif name in UNSUPPORTED:
            _require_no_effect(name, value, parameters)
    if values.get("sslrootcert") == "system":
        values |= _system_authorities(values.get("sslmode", FULL))
    return Parameters(values=values, is_unchanged=values == parameters)


def _one_of(name: str, value: str, words: Mapping[str, str], variable: str = URL) -> str:
    if value not in words:
        raise parameter_problem(name, f"which must be {', '.join(list(words)[:-1])} or {list(words)[-1]}", variable)
    return words[value]


def _require_no_effect(name: str, value: str, parameters: Mapping[str, str]) -> None:
    harmless, advice = UNSUPPORTED[name]
    # Verification of the certificate and its name binds the connection to the server as well.
    is_made_up_for = (name, value, parameters.get("sslmode")) == ("channel_binding", "require", FULL)
    if value not in harmless and not is_made_up_for:
        raise parameter_problem(name, f"which hookseal does not support with this value, since {advice}")


def _system_authorities(mode: str) -> dict[str, str]:
    if mode != FULL:
        raise parameter_problem("sslrootcert", "whose value `system` needs sslmode=verify-full")
    file = ssl.get_default_verify_paths().cafile
    if not file:
        raise parameter_problem(
            "sslrootcert", "whose value `system` needs a CA file of this system, and there is none: name a file"
        )
    return {"sslrootcert": file, "sslmode": FULL}


def parameter_problem(name: str, why: str, variable: str = URL) -> PydanticCustomError:
    """Return the problem with that parameter of the url in this variable."""
    return problem(f"{variable} has the parameter {name}, {why}")


def require_usable_files(parameters: Mapping[str, str]) -> None:
    """Raise a problem unless each file that the connection needs can be read and has the right content.

    The problem names the parameter and what to change, never the path.
    """
    mode = parameters.get("sslmode", "prefer")
    if mode in _VERIFYING:
        for name in ("sslrootcert", "sslcrl"):
            if name in parameters:
                _require_authorities(name, parameters[name], URL)
    if mode != "disable" and {"sslcert", "sslkey"} <= parameters.keys():
        _require_identity("sslcert", "sslkey", parameters, URL)


def _require_authorities(name: str, file: str, variable: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        what = "revoked certificates" if name == "sslcrl" else "certificates"
        why = f"whose file does not hold {what} in PEM form: name the right one"
        raise parameter_problem(name, why, variable) from None
    except (OSError, ValueError) as error:
        raise _unreadable(name, error, variable) from None


def _require_identity(certificate: str, key: str, parameters: Mapping[str, str], variable: str) -> None:
    for name in (certificate, key):  # the loading below does not say which of the two cannot be read
        _require_readable(name, parameters[name], variable)
    try:  # without a password it would ask the terminal for one
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            parameters[certificate], parameters[key], password=lambda: parameters.get("sslpassword", "")
        )
    except (OSError, ValueError):
        encrypted = "sslpassword does not decrypt the key" if variable == URL else "the key has a password: remove it"
        raise parameter_problem(
            certificate,
            f"whose certificate does not match the key in {key}, or one of the two is not in PEM form, or {encrypted}",
            variable,
        ) from None


def _require_readable(name: str, file: str, variable: str) -> None:
    try:
        open(file, "rb").close()  # noqa: PTH123 -- a path with a null byte is a ValueError here, too
    except (OSError, ValueError) as error:
        raise _unreadable(name, error, variable) from None


def _unreadable(name: str, error: Exception, variable: str) -> Exception:
    return parameter_problem(
        name,
        f"whose file cannot be read ({type(error).__name__}): let this user read it, or correct its path",
        variable,
    )


LISTEN_URL: Final = "HOOKSEAL_LISTEN_URL"

_REDIS_URL: Final = "REDIS_URL"
_TRUE: Final = ("true", "yes", "1")
_BOOLEAN: Final = (*_TRUE, "false", "no", "0")  # in any case; the client would take any other word for true
# What the client of Redis takes from its url. The tuple has the allowed values; () allows any.
REDIS_SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "client_name": (),
    "db": (),
    "lib_name": (),
    "lib_version": (),
    "max_connections": (),
    "password": (),
    "retry_on_timeout": _BOOLEAN,
    "ssl_ca_certs": (),
    "ssl_ca_data": (),
    "ssl_cert_reqs": ("none", "optional", "required"),
    "ssl_certfile": (),
    "ssl_check_hostname": _BOOLEAN,
    "ssl_ciphers": (),
    "ssl_keyfile": (),
    "username": (),
}
# What `queue.rings.pool` sets in place of the url, which an application may share: hookseal reads answers as bytes.
REDIS_IGNORED: Final = frozenset(
    {
        "decode_responses",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "protocol",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
    }
)
_LABEL: Final = "[A-Za-z0-9_-]{1,63}"  # Python itself refuses an empty or a longer one, with an error of its own
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])"
_HOSTS: Final = re.compile(rf"{_HOST}(?::[^,]*)?(?:,{_HOST}(?::[^,]*)?)*")
_HOST_AND_PORT: Final = re.compile(rf"({_HOST})(?::([^,]*))?")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_FIVE_DIGITS: Final = (_NUMBER, "a number of at most five digits")
_REDIS_FORMS: Final = {
    "client_name": (re.compile(r"[!-~]+"), "of visible ASCII characters"),  # else Redis refuses the connection
    "db": _FIVE_DIGITS,
    "max_connections": _FIVE_DIGITS,
}
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
    variable = URL
    url = _DRIVER.sub(r"\1://", text)
    parts = _split(url, {"postgresql", "postgres"}, variable)
    given = {name: value for name, value in _query(parts, _KNOWN, variable) if value}  # as in libpq, "" is none
    parameters = for_driver(given)
    require_usable_files(parameters.values)
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
    raise problem(message.replace(URL, LISTEN_URL))


def redis(text: str) -> Redis:
    """Return the url of Redis with the address that messages show.

    Raises `ValueError` if the url is of another scheme, and a problem that says which part of it is wrong.
    """
    url = _VALKEY.sub(r"redis\1://", text)
    parts = _split(url, {"redis", "rediss", "unix"}, _REDIS_URL)
    _require_parameters_of_redis(parts)
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


def _require_parameters_of_redis(parts: SplitResult) -> None:
    pairs = _query(parts, REDIS_SUPPORTED.keys() | REDIS_IGNORED, _REDIS_URL)
    names = [name for name, _ in pairs]
    # Decoded twice, as the client does up to redis 7.
    values = {name: unquote(value) for name, value in pairs if name in REDIS_SUPPORTED}
    for name, value in values.items():
        if names.count(name) > 1:  # the client would take the first, and other programs the last
            raise parameter_problem(name, "which it has more than once: keep one", _REDIS_URL)
        if (name == "username" and parts.username) or (name == "password" and parts.password):
            raise parameter_problem(name, "which it has before the '@' too: keep one", _REDIS_URL)
        if not value:  # the client would ignore it
            raise parameter_problem(name, "which is empty: write its value, or remove it", _REDIS_URL)
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise parameter_problem(name, "which is for TLS: write rediss:// or valkeys://, or remove it", _REDIS_URL)
        if name in _REDIS_FORMS and _REDIS_FORMS[name][0].fullmatch(value) is None:
            raise parameter_problem(name, f"which must be {_REDIS_FORMS[name][1]}: correct it", _REDIS_URL)
        if words := REDIS_SUPPORTED[name]:
            word = value.lower() if words is _BOOLEAN else value
            _one_of(name, word, {each: each for each in words}, _REDIS_URL)
    _require_tls_of_redis(values)


def _require_tls_of_redis(values: Mapping[str, str]) -> None:
    """Do what the client does for its first connection, and raise a problem that names what would fail there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    takes: Mapping[str, Callable[[str], None]] = {
        "ssl_ca_data": lambda text: context.load_verify_locations(cadata=text),
        "ssl_ciphers": context.set_ciphers,
    }
    for name in sorted(takes.keys() & values.keys()):
        try:
            takes[name](values[name])
        except (ssl.SSLError, TypeError, ValueError) as error:
            why = f"which cannot be used for TLS ({type(error).__name__}): correct it"
            raise parameter_problem(name, why, _REDIS_URL) from None
    if "ssl_ca_certs" in values:
        _require_authorities("ssl_ca_certs", values["ssl_ca_certs"], _REDIS_URL)
    for name, other in (("ssl_certfile", "ssl_keyfile"), ("ssl_keyfile", "ssl_certfile")):
        if name in values and other not in values:  # the client would use neither, and redis 8 the one
            raise parameter_problem(name, f"which needs {other}: add it (one file may have both)", _REDIS_URL)
    if "ssl_certfile" in values:
        _require_identity("ssl_certfile", "ssl_keyfile", values, _REDIS_URL)
    if values.get("ssl_cert_reqs") == "none" and values.get("ssl_check_hostname", "").lower() in _TRUE:
        why = "which needs ssl_cert_reqs=required: correct or remove one of the two"
        raise parameter_problem("ssl_check_hostname", why, _REDIS_URL)


def _query(parts: SplitResult, known: Collection[str], variable: str) -> list[tuple[str, str]]:
    pairs = None
    with suppress(ValueError):  # its text holds the value, so it must not become the context of the problem
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    if pairs is None:
        raise problem(f"{variable} has a parameter without a value behind the '?': write NAME=VALUE, or remove it")
    for number, (name, _) in enumerate(pairs, 1):
        if name not in known:  # it may be a piece of a password
            raise problem(
                f"{variable} has an unknown parameter, number {number} behind the '?': correct or remove it "
                "(docs/settings.md has those that are allowed)"
            )
    return pairs


def _address(parts: SplitResult, parameters: Mapping[str, str]) -> str:
    port = _DEFAULT_PORTS[parts.scheme]
    hosts = _hosts(parts.netloc, port, URL)
    if hosts:
        return hosts
    named, ports = parameters.get("host", ""), parameters.get("port", port)
    if not all(_is_port(each) for each in ports.split(",")):
        raise parameter_problem("port", f"which is {_NOT_A_PORT}: correct it")
    if named.startswith("/"):
        return f"the socket in {named}"
    if named and _HOSTS.fullmatch(named) is None:
        raise parameter_problem("host", f"which is {_NOT_A_HOST}: correct it")
    return _hosts(named, ports.partition(",")[0], URL) or "its default socket"


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
    pairs = [(host, port if own is None else own) for host, own in _pairs(text)]
    if not all(_is_port(each) for _, each in pairs):
        raise problem(f"{variable} has a port that is {_NOT_A_PORT}: correct it, or remove it with its ':'")
    return ", ".join(f"{host}:{each}" for host, each in pairs)


def _pairs(text: str) -> list[tuple[str, str | None]]:
    """Return each host with its own port, None where it has no colon."""
    return [(pair[1], pair[2]) for pair in _HOST_AND_PORT.finditer(text)]


def _is_port(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and 1 <= int(text) <= _MAX_PORT


def _not_a_host(variable: str) -> PydanticCustomError:
    return problem(
        f"{variable} has a host that is {_NOT_A_HOST}: correct it, or percent-encode '[' as %5B and ']' as %5D in the "
        "user and the password"
    )
