"""Heads of chains that were kept elsewhere, and what a log that lacks them must be: older, or another history."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hookseal.ground.errors import Malformed

MAX_HEADS: Final = 100_000
_TENANT: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,62}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end that a tenant's chain had when somebody looked."""

    tenant_id: str
    sequence: int
    mac: bytes

    @property
    def is_ours(self) -> bool:
        """Whether hookseal may have written it: no log can hold another one, and whoever keeps it is to be told."""
        return bool(_TENANT.fullmatch(self.tenant_id)) and self.sequence >= 0 and len(self.mac) == _MAC_BYTES


class Contradiction(StrEnum):
    """How a log contradicts a head that was kept."""

    OLDER = "older"
    FORKED = "forked"


def kept_heads(text: str) -> tuple[Head, ...]:
    """Return the heads in what `hookseal audit heads --json`, or `audit verify --json`, printed. Raises `Malformed`.

    One that somebody wrote past hookseal is among them: the log contradicts it, and the others are of use all the same.
    """
    try:
        tenants = json.loads(text)["tenants"]
        # Number 0 stands where somebody waited to append, and nobody has: there is nothing to be held to it.
        heads = tuple(_head(one) for one in tenants if one["head_sequence"] not in {None, 0})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _no_heads() from None
    if not 0 < len(heads) <= MAX_HEADS:  # with none, nothing would be compared, and all of it look intact
        raise _no_heads()
    return heads


def contradiction(
    head: Head, *, ends_at: int, mac_there: bytes | None, accepted: Iterable[Head]
) -> Contradiction | None:
    """Return how a chain contradicts a head, None if it holds it, or if it was accepted that it does not.

    `ends_at` is the number of the chain's last row now, 0 without any, `mac_there` the MAC of its row with the head's
    number, None without one.
    """
    if mac_there == head.mac or head in accepted:
        return None
    return Contradiction.OLDER if ends_at < head.sequence else Contradiction.FORKED


def told(heads: Iterable[Head]) -> list[list[object]]:
    """Return heads as an audit row keeps them."""
    return [[head.tenant_id, head.sequence, head.mac.hex()] for head in heads]


def kept(facts: Mapping[str, Any] | str | None) -> tuple[Head, ...]:
    """Return the heads that an audit row of an accepted restore keeps."""
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
        raise _no_heads()
    tenant.encode()  # half a character, which PostgreSQL cannot be asked for, is a ValueError
    return Head(tenant_id=tenant, sequence=sequence, mac=bytes.fromhex(mac))


def _no_heads() -> Malformed:
    return Malformed(
        "the file must hold what `hookseal audit heads --json` or `hookseal audit verify --json` printed", field="head"
    )
