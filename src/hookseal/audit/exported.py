"""What `hookseal audit export` printed, verified without the table that it came from."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from hookseal.audit.chain import ORIGIN, Broken, Link, Row, followed, json_text, message
from hookseal.audit.entry import Action, ChainKey
from hookseal.audit.heads import Contradiction, Head, contradiction, kept
from hookseal.audit.log import Verified
from hookseal.audit.shown import facts
from hookseal.ground.errors import Malformed
from hookseal.ground.framing import microseconds
from hookseal.ground.ids import SYSTEM_TENANT

MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # a row that accepts a restore may name a hundred thousand heads
_TOLD_EVERY: Final = 1_000
_COLUMNS: Final = {*Row.__dataclass_fields__, "at", "mac"} - {"at_us"}


@dataclass(slots=True)
class _Chain:
    """How far the chain of a tenant was followed, and the MACs that it has where a head was kept."""

    last: Link = ORIGIN
    broken: Broken | None = None
    ends_at: int = 0
    macs: dict[int, bytes] = field(default_factory=dict)


def verify_export(
    lines: Iterable[bytes],
    key: ChainKey,
    heads: Sequence[Head] = (),
    *,
    tenant: str | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    """Verify every chain of an export, or the tenant's, each up to its first broken row, and the heads against it.

    An export has no heads of its own: what was cut off at its end only `heads` tell. `on_progress` is given the tenant
    and how many of its rows hold, now and then. Raises `Malformed`, naming the line, for what no export printed.
    """
    chains: dict[str, _Chain] = {}
    wanted: dict[str, set[int]] = defaultdict(set)
    accepted: set[Head] = set()
    for head in heads:
        wanted[head.tenant_id].add(head.sequence)
    for number, line in enumerate(lines, start=1):
        row, mac = _read(line, number)
        if _accepts(row) and key.is_authentic(message(row), mac, row.mac_key_id):
            accepted.update(kept(facts(row.after)))
        if tenant not in {None, row.tenant_id}:
            continue
        chain = chains.setdefault(row.tenant_id, _Chain())
        _follow(chain, row, mac, key)
        if row.sequence in wanted[row.tenant_id]:
            chain.macs[row.sequence] = mac
        if on_progress is not None and number % _TOLD_EVERY == 0:
            on_progress(row.tenant_id, chain.last.sequence)
    return [_verified(name, chain) for name, chain in sorted(chains.items())], _contradicted(heads, chains, accepted)


def _accepts(row: Row) -> bool:
    return row.tenant_id == SYSTEM_TENANT and row.action == Action.RESTORE_ACCEPTED


def _follow(chain: _Chain, row: Row, mac: bytes, key: ChainKey) -> None:
    chain.ends_at = max(chain.ends_at, row.sequence)
    if chain.broken is None:
        chain.last, chain.broken = followed(chain.last, [(row, mac)], key)


def _verified(tenant: str, chain: _Chain) -> Verified:
    return Verified(
        tenant_id=tenant,
        rows=chain.last.sequence,
        head_sequence=chain.last.sequence,
        head_mac=chain.last.mac.hex(),
        broken=chain.broken,
    )


def _contradicted(
    heads: Sequence[Head], chains: Mapping[str, _Chain], accepted: set[Head]
) -> list[tuple[Head, Contradiction]]:
    found: list[tuple[Head, Contradiction]] = []
    for head in heads:
        chain = chains.get(head.tenant_id, _Chain())
        how = contradiction(head, ends_at=chain.ends_at, mac_there=chain.macs.get(head.sequence), accepted=accepted)
        if how is not None:
            found.append((head, how))
    return found


def _read(line: bytes, number: int) -> tuple[Row, bytes]:
    try:
        told = _columns(json.loads(line, object_pairs_hook=_said_once))
        row = Row(
            tenant_id=_text(told["tenant_id"]),
            sequence=_number(told["sequence"]),
            at_us=_at_us(_text(told["at"])),
            actor=_text(told["actor"]),
            action=_text(told["action"]),
            subject=_text(told["subject"]),
            before=_facts_text(told["before"]),
            after=_facts_text(told["after"]),
            correlation_id=None if told["correlation_id"] is None else _text(told["correlation_id"]),
            previous_mac=bytes.fromhex(told["previous_mac"]),
            mac_key_id=_text(told["mac_key_id"]),
        )
        message(row)  # what cannot be written as UTF-8 was never exported
        return row, bytes.fromhex(told["mac"])
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Malformed(f"line {number} is not one that `hookseal audit export` printed", field="from_export") from None


def _columns(told: dict[str, Any]) -> dict[str, Any]:
    """Return the row, which has the columns of the log and no other: of what else stands there no MAC knows."""
    if told.keys() != _COLUMNS:
        raise ValueError
    return told


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of the pairs, in which nothing is said twice: others might read the other one."""
    told = dict(pairs)
    if len(told) < len(pairs):
        raise ValueError
    return told


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _at_us(at: str) -> str:
    """Return the time as the MAC covers it; one that hookseal never writes stays as it is, and fails its MAC."""
    try:
        return str(microseconds(datetime.fromisoformat(at)))
    except ValueError:
        return at


def _facts_text(value: object) -> str | None:
    """Return the facts as they were stored: compact, or, where they were not, the text itself."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise TypeError
    return json_text(value)
