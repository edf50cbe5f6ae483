"""Heads of chains that were saved elsewhere, and how a log can contradict them: it is older, or has another history."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hookseal.ground.errors import Malformed

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
        raise _invalid_heads() from None
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
    found = facts.get("heads", []) if isinstance(facts, Mapping) else []
    return tuple(Head(tenant_id=tenant, sequence=number, mac=bytes.fromhex(mac)) for tenant, number, mac in found)


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


def _invalid_heads() -> Malformed:
    return Malformed(
        "the file must hold what `hookseal audit heads --json` or `hookseal audit verify --json` printed", field="head"
    )
