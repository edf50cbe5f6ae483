"""The audit log as a chain of hashes: an entry, its hash, the last entries of a chain, and what is shown. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from hookseal.errors import Malformed
from hookseal.ground import ids, json_problem
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import framed


class Action(StrEnum):
    """The kind of the change."""

    ENDPOINT_ADDED = "endpoint.added"
    ENDPOINT_UPDATED = "endpoint.updated"
    ENDPOINT_ENABLED = "endpoint.enabled"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_DELETED = "endpoint.deleted"
    ENDPOINT_PROBE_REQUESTED = "endpoint.probe_requested"
    ENDPOINT_RETRIED = "endpoint.retried"
    ENDPOINT_PROBED = "endpoint.probed"
    ENDPOINT_TESTED = "endpoint.tested"
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - the name of an action
    SECRET_ROLLED_BACK = "secret.rolled_back"  # noqa: S105 - the name of an action
    SECRET_OVERLAP_ENDED = "secret.overlap_ended"  # noqa: S105 - the name of an action
    SECRET_ROTATION_ANNOUNCED = "secret.rotation_announced"  # noqa: S105 - the name of an action
    SECRET_REVEALED = "secret.revealed"  # noqa: S105 - the name of an action
    SECRET_DESTROYED = "secret.destroyed"  # noqa: S105 - the name of an action
    SECRET_DENIED = "secret.denied"  # noqa: S105 - the name of an action
    SECRET_MIGRATED = "secret.migrated"  # noqa: S105 - the name of an action
    SECRET_MOVED = "secret.moved"  # noqa: S105 - the name of an action
    PLAINTEXT_EMPTIED = "secret.plaintext_emptied"
    PLAINTEXT_FORBIDDEN = "secret.plaintext_forbidden"
    STALE_FOUND = "stale.found"
    RESTORE_ACCEPTED = "restore.accepted"
    DELIVERY_REPLAYED = "delivery.replayed"
    DELIVERY_SKIPPED = "delivery.skipped"
    EXAMPLE_SENT = "delivery.example_sent"
    REPLAY_STARTED = "replay.started"
    REPLAY_CANCELLED = "replay.cancelled"
    REPLAY_ENDED = "replay.ended"
    PAYLOAD_READ = "event.payload_read"
    PRODUCER_GRANTED = "producer.granted"
    PRODUCER_REVOKED = "producer.revoked"
    EVENT_TYPE_ADDED = "event_type.added"
    EVENT_TYPE_UPDATED = "event_type.updated"
    TENANT_ADDED = "tenant.added"
    TENANT_UPDATED = "tenant.updated"
    TENANT_DELETED = "tenant.deleted"
    TOKEN_ADDED = "token.added"  # noqa: S105 - the name of an action
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - the name of an action
    PORTAL_ADDED = "portal.added"
    PORTAL_CODE_SPENT = "portal.code_spent"
    PORTAL_OPENED = "portal.opened"
    PORTALS_EXPIRED = "portal.expired"
    KEY_INITIALISED = "key.initialised"
    KEY_STAGED = "key.staged"
    KEY_PROMOTED = "key.promoted"
    KEY_REWRAPPED = "key.rewrapped"
    KEY_DRAINED = "key.drained"
    KEY_RETIRED = "key.retired"
    KEY_DESTROYED = "key.destroyed"
    KEY_COMPROMISED = "key.compromised"
    INTEGRITY_ROTATED = "integrity.rotated"
    CACHE_CLEARED = "cache.cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, as its audit row records it. `subject` names the changed object, for instance `endpoint:{id}`.

    `before` and `after` are facts that every reader of the log may see, never a secret: refs, the
    generation, the host of a url. They contain JSON values, and times, which become RFC 3339.
    """

    tenant_id: TenantId
    action: Action
    subject: str
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    correlation_id: str | None = None


class ChainKey(Protocol):
    """The integrity key, as the log uses it. The messages of the log begin with a label of its own."""

    @property
    def key_id(self) -> str:
        """The id of the version that authenticates new rows."""
        ...

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC under this id can be verified."""
        ...

    def authenticate(self, message: bytes) -> bytes:
        """Return the MAC of the message under the version `key_id`."""
        ...

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under that version; False for an unknown version."""
        ...


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


MAX_HEADS: Final = 100_000
_TENANT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a tenant's chain when the head was saved."""

    tenant_id: str
    sequence: int
    mac: bytes

    @property
    def is_plausible(self) -> bool:
        """Whether hookseal can have written this head. If not, it contradicts every log, and must be reported."""
        return bool(_TENANT.fullmatch(self.tenant_id)) and self.sequence >= 0 and len(self.mac) == _MAC_BYTES


class Contradiction(StrEnum):
    """How a log contradicts a saved head."""

    OLDER = "older"
    FORKED = "forked"


def parse_heads(text: str) -> tuple[Head, ...]:
    """Return the heads in the output of `hookseal audit heads --json` or `audit verify --json`. Raises `Malformed`.

    A head that hookseal cannot have written is returned as well: the log contradicts it, and the others stay usable.
    """
    try:
        tenants = json.loads(text)["tenants"]
        # Number 0 means that an append was begun and rolled back: there is no row to compare.
        heads = tuple(_head(one) for one in tenants if one["head_sequence"] not in {None, 0})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _invalid_heads(json_problem.said(text)) from None
    if not 0 < len(heads) <= MAX_HEADS:  # without heads nothing would be compared, and the log would look intact
        raise _invalid_heads()
    return heads


def find_contradiction(
    head: Head, *, ends_at: int, mac_there: bytes | None, accepted: Iterable[Head]
) -> Contradiction | None:
    """Return how a chain contradicts a head; None if it contains the head, or if an accepted restore lost it.

    `ends_at` is the sequence number of the chain's last row, 0 without any. `mac_there` is the MAC of the row with the
    head's number, None without one.
    """
    if mac_there == head.mac or head in accepted:
        return None
    return Contradiction.OLDER if ends_at < head.sequence else Contradiction.FORKED


def heads_to_json(heads: Iterable[Head]) -> list[list[object]]:
    """Return heads in the form that an audit row stores."""
    return [[head.tenant_id, head.sequence, head.mac.hex()] for head in heads]


def heads_from_json(facts: Mapping[str, Any] | str | None) -> tuple[Head, ...]:
    """Return the heads in the audit row of an accepted restore."""
    heads = facts.get("heads", []) if isinstance(facts, Mapping) else []
    return tuple(Head(tenant_id=tenant, sequence=number, mac=bytes.fromhex(mac)) for tenant, number, mac in heads)


def _head(one: Mapping[str, Any]) -> Head:
    tenant, sequence, mac = one["tenant_id"], one["head_sequence"], one["head_mac"]
    if not (
        isinstance(tenant, str)
        and "\0" not in tenant
        and type(sequence) is int
        and -(2**63) <= sequence < 2**63
        and _HEX.fullmatch(mac)
    ):
        raise _invalid_heads()
    tenant.encode()  # raises ValueError for a lone surrogate, which PostgreSQL cannot store
    return Head(tenant_id=tenant, sequence=sequence, mac=bytes.fromhex(mac))


def _invalid_heads(why: str = "") -> Malformed:
    return Malformed(
        f"the file must hold what `hookseal audit heads --json` or `hookseal audit verify --json` printed{why}",
        field="head",
    )


_LEVELS: Final = 16  # of nested lists and objects; hookseal writes three


def to_display(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row in the displayed form, without its MACs."""
    return {
        "tenant_id": row["tenant_id"],
        "sequence": row["sequence"],
        "at": row["at"],
        "actor": row["actor"],
        "action": row["action"],
        "subject": row["subject"],
        "before": parse_facts(row["before"]),
        "after": parse_facts(row["after"]),
        "correlation_id": row["correlation_id"],
    }


def cursor_of(item: Mapping[str, Any]) -> str:
    """Return the cursor of the page after this row."""
    return ids.encode_cursor(f"{item['tenant_id']}/{item['sequence']}")


def place_of(cursor: str) -> tuple[str, int]:
    """Return the tenant and number of the last row of a page. Raises `Malformed` unless a page returned the cursor."""
    tenant, slash, sequence = ids.decode_cursor(cursor).rpartition("/")
    try:
        number = int(sequence)
    except ValueError:
        raise ids.invalid_cursor() from None
    if not slash or "\0" in tenant or not LOWEST <= number < -LOWEST:
        raise ids.invalid_cursor()
    return tenant, number


def parse_facts(text: str | None) -> Any:
    """Return the facts of a row; or their text, unless `json_text` wrote it and it is not nested deeply.

    So a forged row cannot stop the log from being shown.
    """
    if text is None:
        return None
    try:
        facts = json.loads(text)
        json.dumps(facts, ensure_ascii=False).encode()  # raises for a lone surrogate, which cannot be printed
        return facts if isinstance(facts, dict) and json_text(facts) == text and _is_flat(facts) else text
    except (ValueError, RecursionError):
        return text


def _is_flat(value: object, levels: int = _LEVELS) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inner)
