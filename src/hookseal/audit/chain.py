"""The chain of a tenant's audit rows: what a MAC covers, and where a chain is broken. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from hookseal.audit.entry import ChainKey
from hookseal.ground.framing import framed

_LABEL: Final = b"hookseal.audit.row.v1"


class Link(NamedTuple):
    """The end of a chain: the sequence number of its last row, and that row's MAC."""

    sequence: int
    mac: bytes


ORIGIN: Final = Link(0, bytes(32))  # where every chain begins
LOWEST: Final = -(2**63)  # the lowest bigint: no row can have a lower number


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One audit row without its MAC, which covers every field.

    `at_us` is the time in microseconds since 1970, UTC, in decimal, as PostgreSQL writes it: a time outside the range
    of Python's datetime can be verified as well. `before` and `after` are JSON as stored.
    """

    tenant_id: str
    sequence: int
    at_us: str
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None
    correlation_id: str | None
    previous_mac: bytes
    mac_key_id: str


class Flaw(StrEnum):
    """How a chain is broken."""

    MISSING = "missing"
    OUT_OF_PLACE = "out_of_place"
    UNKNOWN_KEY = "unknown_key"
    ALTERED = "altered"
    UNCHAINED = "unchained"
    TRUNCATED = "truncated"
    HEAD = "head"


class Broken(NamedTuple):
    """The first broken place of a chain, and the reason."""

    sequence: int
    reason: Flaw


def mac_message(row: Row) -> bytes:
    """Return the bytes that the MAC of this row authenticates. No two rows have the same bytes."""
    return framed(
        _LABEL,
        row.mac_key_id.encode(),
        row.tenant_id.encode(),
        b"%d" % row.sequence,
        row.at_us.encode(),
        row.actor.encode(),
        row.action.encode(),
        row.subject.encode(),
        _text(row.before),
        _text(row.after),
        _text(row.correlation_id),
        row.previous_mac,
    )


def follow_chain(last: Link, rows: Iterable[tuple[Row, bytes]], key: ChainKey) -> tuple[Link, Broken | None]:
    """Follow a chain from its link `last` through rows with their MACs, ordered by sequence number.

    Return the link that was reached, and the first row that does not belong there, if any.
    """
    for row, mac in rows:
        broken = _flaw(last, row, mac, key)
        if broken is not None:
            return last, broken
        last = Link(row.sequence, mac)
    return last, None


def check_end(last: Link, head: Link | None) -> Broken | None:
    """Return how the stored head contradicts the last row, None if they agree."""
    if head is not None and head.sequence > last.sequence:
        return Broken(last.sequence + 1, Flaw.TRUNCATED)
    if (head or ORIGIN) != last:
        return Broken(last.sequence, Flaw.HEAD)
    return None


def json_text(facts: Mapping[str, object] | None) -> str | None:
    """Return the facts as the JSON that is stored: compact, in ASCII, in their order; times as RFC 3339.

    Raises `TypeError` for a value that JSON does not have, such as a masked secret, and `ValueError` for NaN.
    """
    if facts is None:
        return None
    return json.dumps(dict(facts), default=_plain, separators=(",", ":"), allow_nan=False)


def _flaw(last: Link, row: Row, mac: bytes, key: ChainKey) -> Broken | None:
    expected = last.sequence + 1
    if row.sequence > expected:
        return Broken(expected, Flaw.MISSING)
    if row.sequence < expected:
        return Broken(row.sequence, Flaw.OUT_OF_PLACE)
    if not key.knows(row.mac_key_id):
        return Broken(expected, Flaw.UNKNOWN_KEY)
    if not key.is_authentic(mac_message(row), mac, row.mac_key_id):
        return Broken(expected, Flaw.ALTERED)
    if row.previous_mac != last.mac:
        return Broken(expected, Flaw.UNCHAINED)
    return None


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _plain(value: object) -> object:
    match value:
        case datetime():
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"an audit row cannot hold a {type(value).__name__}")
