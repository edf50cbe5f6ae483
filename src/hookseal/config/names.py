"""The names of variables: ours, those of a later version, typing errors, and what Kubernetes injects."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final

from hookseal.config.egress import PROXY
from hookseal.config.keys import KEY_NAMES
from hookseal.config.variables import NAMES

PREFIXES: Final = ("HOOKSEAL_", "SECRETS_")
TEST_PREFIX: Final = "HOOKSEAL_TEST_"
# They win over the plain ones, for a process that shares its environment with an app.
IN_PLACE: Final = {"HOOKSEAL_DATABASE_URL": "DATABASE_URL", "HOOKSEAL_REDIS_URL": "REDIS_URL"}
FROM_FILE: Final = {f"{name}_FILE": name for name in (*IN_PLACE, *IN_PLACE.values(), PROXY, *KEY_NAMES)}
OURS: Final = frozenset(NAMES) | frozenset(IN_PLACE) | frozenset(FROM_FILE)
# Of the providers' variables only those that no other program reads: AWS_REGION, VAULT_ADDR and their
# like are often set for somebody else.
LATER: Final = (
    "AWS_SECRET_MANAGER_ROLE_ARN",
    "BAO_MOUNT",
    "BAO_ROLE_ID",
    "BAO_SECRET_ID",
    "BAO_SECRET_ID_FILE",
    "HOOKSEAL_ENDPOINT_CONCURRENCY",
    "HOOKSEAL_RETENTION_DAYS",
    "HOOKSEAL_DISABLE_AFTER_SECONDS",
)
_NEAR: Final = 2
_ALIKE: Final = 0.7
_TCP: Final = re.compile(r"(?:tcp|udp|sctp)://\S+")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_PROTOCOL: Final = re.compile(r"tcp|udp|sctp")
# Kubernetes, "Accessing the Service", environment variables; the first shape that fits decides.
_INJECTED: Final = (
    (re.compile(r"_SERVICE_HOST$"), None),
    (re.compile(r"_SERVICE_PORT(?:_[A-Z0-9_]+)?$"), _NUMBER),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_PROTO$"), _PROTOCOL),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_PORT$"), _NUMBER),
    (re.compile(r"_PORT_\d+_(?:TCP|UDP|SCTP)_ADDR$"), None),
    (re.compile(r"_PORT(?:_\d+_(?:TCP|UDP|SCTP))?$"), _TCP),
)


def is_claimed(name: str) -> bool:
    """Return whether a variable of this name is for hookseal, spelled right or wrong."""
    return name in OURS or name in LATER or (name.startswith(PREFIXES) and not name.startswith(TEST_PREFIX))


def looks_injected(name: str, value: str) -> bool:
    """Return whether Kubernetes may have set this for a service: both the name and the value have that shape."""
    for shape, form in _INJECTED:
        if shape.search(name):
            return _is_address(value) if form is None else form.fullmatch(value) is not None
    return False


def is_near_ours(name: str) -> bool:
    """Return whether the name is within two edits of one of ours: then it is a typing error."""
    return is_near(name, (*OURS, *LATER))


def is_near(name: str, others: Iterable[str]) -> bool:
    """Return whether the name is within two edits of one of these."""
    return any(edits(name, other) <= _NEAR for other in others)


def read_as(name: str) -> str:
    """Return the variable whose value a variable of this name gives: itself, read from a file, or in its place."""
    named = FROM_FILE.get(name, name)
    return IN_PLACE.get(named, named)


def not_read(given: Collection[str]) -> frozenset[str]:
    """Return the names that another of these takes the place of: they belong to somebody else, and are not judged."""
    winners = [name for name in IN_PLACE if name in given or f"{name}_FILE" in given]
    return frozenset(form for name in winners for form in (IN_PLACE[name], f"{IN_PLACE[name]}_FILE"))


def did_you_mean(name: str) -> str:
    """Return the end of a sentence that names the likeliest of our names, "" if none is like it."""
    prefix = name.removesuffix(_end(name))
    ends = {_end(ours): ours for ours in sorted(OURS, key=lambda ours: (ours.startswith(prefix), ours))}
    found = get_close_matches(_end(name), ends, n=1, cutoff=_ALIKE)
    return f", did you mean {ends[found[0]]}?" if found else ""


def edits(one: str, other: str) -> int:
    """Return how many characters must be put in, taken out or changed to make one of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, left in enumerate(one, 1):
        row = _next_row(row, number, (left != right for right in other))
    return row[-1]


def _next_row(above: list[int], first: int, differs: Iterable[bool]) -> list[int]:
    row = [first]
    for column, different in enumerate(differs, 1):
        row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + different))
    return row


def _end(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
