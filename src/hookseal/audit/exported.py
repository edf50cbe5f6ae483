"""Verifies the output of `hookseal audit export`, without the table that it came from."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from hookseal.audit.chain import (
    ORIGIN,
    Action,
    Broken,
    ChainKey,
    Contradiction,
    Head,
    Link,
    Row,
    find_contradiction,
    follow_chain,
    heads_from_json,
    json_text,
    mac_message,
    parse_facts,
)
from hookseal.audit.log import Verified
from hookseal.errors import Malformed
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.ground.wire import microseconds

MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # the row of an accepted restore may contain a hundred thousand heads
_PROGRESS_EVERY: Final = 1_000
_COLUMNS: Final = {*Row.__dataclass_fields__, "at", "mac"} - {"at_us"}


@dataclass(slots=True)
class _Chain:
    """The state of a tenant's chain so far, and its MACs at the sequence numbers of the given heads."""

    last: Link = ORIGIN
    broken: Broken | None = None
    ends_at: int = 0
    lines: int = 0
    macs: dict[int, bytes] = field(default_factory=dict)


def verify_export(
    lines: Iterable[bytes],
    key: ChainKey,
    heads: Sequence[Head] = (),
    *,
    tenant: str | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> tuple[list[Verified], list[tuple[Head, Contradiction]]]:
    """Verify every chain of an export, or one tenant's, up to its first broken row, and compare it with the heads.

    An export contains no heads: only the argument `heads` can show that its end was cut off. `on_progress` is called
    every 1000 lines, and at the end, with a tenant and how many of its lines were read so far. Raises `Malformed` with
    the number of a line that `audit export` cannot have written.
    """
    chains: dict[str, _Chain] = {}
    at_heads: dict[str, set[int]] = defaultdict(set)
    accepted: set[Head] = set()
    for head in heads:
        at_heads[head.tenant_id].add(head.sequence)
    for number, line in enumerate(lines, start=1):
        row, mac = _read(line, number)
        if _accepts(row) and key.is_authentic(mac_message(row), mac, row.mac_key_id):
            accepted.update(heads_from_json(parse_facts(row.after)))
        if tenant not in {None, row.tenant_id}:
            continue
        chain = chains.setdefault(row.tenant_id, _Chain())
        chain.lines += 1
        _follow(chain, row, mac, key)
        if row.sequence in at_heads[row.tenant_id]:
            chain.macs[row.sequence] = mac
        if on_progress is not None and number % _PROGRESS_EVERY == 0:
            on_progress(row.tenant_id, chain.lines)
    if on_progress is not None:
        for name, chain in chains.items():
            on_progress(name, chain.lines)
    return [_verified(name, chain) for name, chain in sorted(chains.items())], _find_contradictions(
        heads, chains, accepted
    )


def _accepts(row: Row) -> bool:
    return row.tenant_id == SYSTEM_TENANT and row.action == Action.RESTORE_ACCEPTED


def _follow(chain: _Chain, row: Row, mac: bytes, key: ChainKey) -> None:
    chain.ends_at = max(chain.ends_at, row.sequence)
    if chain.broken is None:
        chain.last, chain.broken = follow_chain(chain.last, [(row, mac)], key)


def _verified(tenant: str, chain: _Chain) -> Verified:
    return Verified(
        tenant_id=tenant,
        rows=chain.last.sequence,
        head_sequence=chain.last.sequence,
        head_mac=chain.last.mac.hex(),
        broken=chain.broken,
    )


def _find_contradictions(
    heads: Sequence[Head], chains: Mapping[str, _Chain], accepted: set[Head]
) -> list[tuple[Head, Contradiction]]:
    contradicted: list[tuple[Head, Contradiction]] = []
    for head in heads:
        chain = chains.get(head.tenant_id, _Chain())
        contradiction = find_contradiction(
            head, ends_at=chain.ends_at, mac_there=chain.macs.get(head.sequence), accepted=accepted
        )
        if contradiction is not None:
            contradicted.append((head, contradiction))
    return contradicted


def _read(line: bytes, number: int) -> tuple[Row, bytes]:
    try:
        fields = _columns(json.loads(line, object_pairs_hook=_without_duplicates))
        row = Row(
            tenant_id=_text(fields["tenant_id"]),
            sequence=_number(fields["sequence"]),
            at_us=_at_us(_text(fields["at"])),
            actor=_text(fields["actor"]),
            action=_text(fields["action"]),
            subject=_text(fields["subject"]),
            before=_facts_text(fields["before"]),
            after=_facts_text(fields["after"]),
            correlation_id=None if fields["correlation_id"] is None else _text(fields["correlation_id"]),
            previous_mac=bytes.fromhex(fields["previous_mac"]),
            mac_key_id=_text(fields["mac_key_id"]),
        )
        mac_message(row)  # raises for a text that UTF-8 cannot encode, which no export contains
        return row, bytes.fromhex(fields["mac"])
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Malformed(f"line {number} was not printed by `hookseal audit export`", field="from_export") from None


def _columns(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the row. It must have exactly the columns of the log: no MAC covers any other."""
    if fields.keys() != _COLUMNS:
        raise ValueError
    return fields


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as an object. A duplicate name is refused: another program might read the other value."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError
    return fields


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _at_us(at: str) -> str:
    """Return the time as the MAC covers it. A time that hookseal never writes stays as it is, and fails its MAC."""
    try:
        return str(microseconds(datetime.fromisoformat(at)))
    except ValueError:
        return at


def _facts_text(value: object) -> str | None:
    """Return the facts as they were stored: compact JSON, or the text itself if it was stored in another form."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise TypeError
    return json_text(value)
