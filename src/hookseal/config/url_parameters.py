"""The parameters of a url of PostgreSQL: what becomes of each that libpq knows.

hookseal connects with asyncpg, which hands whatever it does not know to the server as a setting, and the server then
refuses the connection. So each parameter is looked at here: it is taken, put in the words of the driver, passed over
because nothing depends on it, or refused because leaving it out would change what it promises.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticCustomError

from hookseal.config.problems import problem

URL: Final = "DATABASE_URL"
MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FULL: Final = "verify-full"

_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_ROLES: Final = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
# Taken by the driver as libpq takes them, with the values that they may have; none for any.
TAKEN: Final[Mapping[str, tuple[str, ...]]] = {
    "application_name": (),
    "database": (),  # dbname, as some clients spell it
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
# Other words for sslmode: of JDBC and SQLAlchemy, and of libpq before 9.
MAPPED: Final[Mapping[str, Mapping[str, str]]] = {
    "requiressl": {"0": "prefer", "1": "require"},
    "ssl": {"true": "require", "false": "disable"} | {mode: mode for mode in MODES},
}
# Passed over, and why nothing is lost.
PASSED_OVER: Final[Mapping[str, str]] = {
    "async_fallback": "it is of SQLAlchemy",
    "client_encoding": "it is UTF-8",
    "connect_timeout": "hookseal waits three to five seconds for a connection",
    "fallback_application_name": "hookseal names its connections",
    "gssdelegation": "no credentials are delegated",
    "keepalives": "every statement has a time-out",
    "keepalives_count": "every statement has a time-out",
    "keepalives_idle": "every statement has a time-out",
    "keepalives_interval": "every statement has a time-out",
    "load_balance_hosts": "hosts are tried in their order",
    "max_protocol_version": "the driver speaks 3.0",
    "prepared_statement_cache_size": "it is of SQLAlchemy",
    "sslcompression": "TLS is never compressed",
    "sslsni": "the name of the host is always sent",
    "tcp_user_timeout": "every statement has a time-out",
}
# What only some values of may be passed over, and what to do about the others.
KEPT_BY_NOBODY: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "channel_binding": (("disable", "prefer"), "the driver has none: set sslmode to verify-full, or take it out"),
    "gssencmode": (("disable", "prefer"), "the driver encrypts with TLS only: set sslmode, or take it out"),
    "hostaddr": ((), "the driver resolves names itself: put the address in the place of the host"),
    "min_protocol_version": (("3.0",), "the driver speaks 3.0: take it out"),
    "replication": (("false", "off", "no", "0"), "hookseal sends statements: take it out"),
    "require_auth": ((), "the driver takes what the server asks for: set sslmode to verify-full, and take it out"),
    "requirepeer": ((), "the driver does not ask who is behind a socket: take it out"),
    "sslcertmode": (("allow",), "the driver sends a certificate when it is asked for one: take it out"),
    "sslcrldir": ((), "the driver reads one file: name it with sslcrl"),
    "sslkeylogfile": ((), "it would write down what decrypts the connection: take it out"),
}
_NAME: Final = re.compile(r"[a-z_]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the driver is given, by name, and whether that is word for word what the url says."""

    given: Mapping[str, str]
    is_as_it_stood: bool


def taken(parameters: Mapping[str, str]) -> Parameters:
    """Return what the driver is to be given of these. Raises a problem that names the parameter, never its value."""
    given: dict[str, str] = {}
    for name, value in parameters.items():
        if name in MAPPED:
            given.setdefault("sslmode", _one_of(name, value, MAPPED[name]))
        elif name in TAKEN:
            given[name] = value if not TAKEN[name] else _one_of(name, value, {each: each for each in TAKEN[name]})
        elif name in KEPT_BY_NOBODY:
            _require_nothing_lost(name, value, parameters)
        elif name not in PASSED_OVER:
            raise _unknown(name)
    if given.get("sslrootcert") == "system":
        given |= _of_the_system(given.get("sslmode", FULL))
    return Parameters(given=given, is_as_it_stood=given == parameters)


def _one_of(name: str, value: str, words: Mapping[str, str]) -> str:
    if value not in words:
        raise refused(name, f"which must be {', '.join(list(words)[:-1])} or {list(words)[-1]}")
    return words[value]


def _require_nothing_lost(name: str, value: str, parameters: Mapping[str, str]) -> None:
    harmless, advice = KEPT_BY_NOBODY[name]
    # Who checks the certificate and its name is bound to the server already.
    is_made_up_for = (name, value, parameters.get("sslmode")) == ("channel_binding", "require", FULL)
    if value not in harmless and not is_made_up_for:
        raise refused(name, f"which cannot be kept as it is set, for {advice}")


def _of_the_system(mode: str) -> dict[str, str]:
    if mode != FULL:
        raise refused("sslrootcert", "and the authorities of the system need sslmode=verify-full")
    file = ssl.get_default_verify_paths().cafile
    if not file:
        raise refused("sslrootcert", "and this system keeps no file of authorities: name one")
    return {"sslrootcert": file, "sslmode": FULL}


def _unknown(name: str) -> PydanticCustomError:
    if not _NAME.fullmatch(name):  # it may be a piece of a password
        return problem(f"{URL} has a parameter that is none of PostgreSQL: correct or remove it")
    return refused(
        name,
        "which is none of PostgreSQL: correct or remove it (settings of the server go into options=-c%20NAME%3DVALUE)",
    )


def refused(name: str, why: str) -> PydanticCustomError:
    """Return the problem with that parameter."""
    return problem(f"{URL} has the parameter {name}, {why}")
