"""The names of variables: known ones, those of future versions, typing errors, and those that Kubernetes injects."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final

from hookseal.config import openbao, providers
from hookseal.config.egress import PROXY
from hookseal.config.keys import KEY_NAMES, WRAPPED_NAMES
from hookseal.config.urls import LISTEN_URL
from hookseal.config.variables import NAMES

PREFIXES: Final = ("HOOKSEAL_", "SECRETS_")
TEST_PREFIX: Final = "HOOKSEAL_TEST_"
UNKNOWN_SETTINGS: Final = "HOOKSEAL_UNKNOWN_SETTINGS"
# They take precedence over the plain names, for a process that shares its environment with an app.
PREFERRED: Final = {"HOOKSEAL_DATABASE_URL": "DATABASE_URL", "HOOKSEAL_REDIS_URL": "REDIS_URL"}
FROM_FILE: Final = {
    f"{name}_FILE": name
    for name in (
        *(*PREFERRED, *PREFERRED.values(), LISTEN_URL, PROXY),
        *(*KEY_NAMES, *WRAPPED_NAMES, *openbao.CREDENTIALS),
    )
}
# The variables of OpenBao are often set for other programs: they are ours only if the settings name OpenBao.
OPENBAO: Final = openbao.OURS | {f"{name}_FILE" for name in openbao.CREDENTIALS}
KNOWN: Final = frozenset(NAMES) | frozenset(PREFERRED) | frozenset(FROM_FILE) | OPENBAO | providers.OURS
OTHER_NAMES: Final = PREFERRED | openbao.FALLBACKS | providers.FALLBACKS
_MIN_NEARNESS: Final = 0.92  # two wrong characters in the length of our names
_MIN_SIMILARITY: Final = 0.7
_TCP: Final = re.compile(r"(?:tcp|udp|sctp)://\S+")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_PROTOCOL: Final = re.compile(r"tcp|udp|sctp")
# Kubernetes, "Accessing the Service", environment variables; the first pattern that matches decides.
_INJECTED: Final = (
    (re.compile(r"_SERVICE_HOST$"), None),
    (re.compile(r"_SERVICE_PORT(?:_[A-Z0-9_]+)?$"), _NUMBER),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_PROTO$"), _PROTOCOL),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_PORT$"), _NUMBER),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_ADDR$"), None),
    (re.compile(r"_PORT(?:_\d+_(?:TCP|UDP|SCTP))?$"), _TCP),
)


def ours(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the variables that are meant for hookseal, spelled correctly or not."""
    of_openbao = OPENBAO & environ.keys() if openbao.is_used(environ) else frozenset()
    return frozenset(filter(is_for_hookseal, environ)) | of_openbao | providers.names_in(environ)


def is_for_hookseal(name: str) -> bool:
    """Return whether a variable of this name is meant for hookseal, whatever the others say."""
    if name in OPENBAO | providers.OURS:
        return False
    return name in KNOWN or (name.startswith(PREFIXES) and not name.startswith(TEST_PREFIX))


def looks_injected(name: str, value: str) -> bool:
    """Return whether Kubernetes may have set this for a service: the name and the value both have that form."""
    for shape, form in _INJECTED:
        if shape.search(name):
            return _is_address(value) if form is None else form.fullmatch(value) is not None
    return False


def is_unknown(name: str, value: str) -> bool:
    """Return whether this is no setting, and not from Kubernetes: a typing error, or a setting of another version."""
    return name not in KNOWN and (not looks_injected(name, value) or is_near_known(name))


def is_near_known(name: str) -> bool:
    """Return whether the name is almost a known one, and so a typing error."""
    return is_near(name, KNOWN)


def is_near(name: str, others: Collection[str]) -> bool:
    """Return whether the name is almost one of `others`: about two of its characters differ."""
    return bool(get_close_matches(name, others, n=1, cutoff=_MIN_NEARNESS))


def variable_set_by(name: str) -> str:
    """Return the variable that a variable of this name sets: itself, or the one whose other name this is."""
    named = FROM_FILE.get(name, name)
    return OTHER_NAMES.get(named, named)


def overridden(present: Collection[str]) -> frozenset[str]:
    """Return the names that another name among these overrides; they belong to another program, and are not checked."""
    fallbacks = openbao.FALLBACKS | providers.FALLBACKS
    pairs = [*PREFERRED.items(), *((ours, theirs) for theirs, ours in fallbacks.items())]
    losers = [loser for winner, loser in pairs if winner in present or f"{winner}_FILE" in present]
    return frozenset(form for name in losers for form in (name, f"{name}_FILE"))


def did_you_mean(name: str) -> str:
    """Return the end of a sentence that suggests the most similar known name, or "" if none is similar."""
    prefix = name.removesuffix(_without_prefix(name))
    ends = {_without_prefix(ours): ours for ours in sorted(KNOWN, key=lambda ours: (ours.startswith(prefix), ours))}
    similar = get_close_matches(_without_prefix(name), ends, n=1, cutoff=_MIN_SIMILARITY)
    return f", did you mean {ends[similar[0]]}?" if similar else ""


def _without_prefix(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
