"""The audit log in PostgreSQL: rows are added in the transaction of the change, and verified and read in batches."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import Any, Final

import asyncpg

from hookseal.audit.chain import (
    LOWEST,
    MAX_HEADS,
    ORIGIN,
    Action,
    Broken,
    ChainKey,
    Change,
    Contradiction,
    Flaw,
    Head,
    Link,
    Row,
    check_end,
    cursor_of,
    find_contradiction,
    follow_chain,
    heads_from_json,
    json_text,
    mac_message,
    parse_facts,
    place_of,
    to_display,
)
from hookseal.errors import Defect, Refused
from hookseal.ground.ids import SYSTEM_TENANT, TenantId, require_limit
from hookseal.ground.wire import microseconds
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import Failures

FAILURES: Final = Failures(
    place="the audit log in PostgreSQL",
    denied=partial(Refused, "this SQL role has no right to the audit log: grant it hookseal_operator"),
)
_SQL: Final = Statements("hookseal.audit", "audit.sql", failures=FAILURES)
_COLUMNS_UNDER_MAC: Final = tuple(Row.__dataclass_fields__)
_BATCH_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The result for one tenant's chain: the number of valid rows, the head, and the first broken place.

    The head is None if there is none. Save its number and MAC elsewhere: a log and a head that were both
    restored to an older state agree with each other, and only such a copy contradicts them.
    """

    tenant_id: str
    rows: int
    head_sequence: int | None
    head_mac: str | None
    broken: Broken | None


async def append(connection: Connection, key: ChainKey, who: str, change: Change) -> int:
    """Add the change to its tenant's chain, in the caller's transaction, and return its sequence number.

    The actor is the database role of this session and `who`. Other appends for the tenant wait until the transaction
    ends, so the numbers have no gap. Raises `Unavailable`, and `Refused` if the role may not write the log, or if the
    chain does not end where its head says: the row of the head is missing or has another MAC, or there is a later row.
    The change must then not happen.
    """
    if not connection.is_in_transaction():
        raise Defect("an audit row must be written in the transaction of its change, and no transaction is open")
    before, after = json_text(change.before), json_text(change.after)
    [head] = await _SQL.rows(connection, "lock_head", change.tenant_id, ORIGIN.mac)
    at: datetime = head["at"]
    row = Row(
        tenant_id=change.tenant_id,
        sequence=head["sequence"] + 1,
        at_us=str(microseconds(at)),
        actor=f"{head['role']}/{who}",
        action=change.action.value,
        subject=change.subject,
        before=before,
        after=after,
        correlation_id=change.correlation_id,
        previous_mac=head["mac"],
        mac_key_id=key.key_id,
    )
    await _add(connection, row, at, key.authenticate(mac_message(row)))
    return row.sequence


async def lock_chain(connection: Connection, tenant: TenantId) -> None:
    """Make all other appends for the tenant wait until the caller's transaction ends.

    Raises `Unavailable`, and `Refused` if the role may not write the log.
    """
    await _SQL.execute(connection, "lock_head", tenant, ORIGIN.mac)


async def facts_since(source: Executor, tenant: TenantId, subject: str, action: Action, *, since: Action) -> list[Any]:
    """Return the facts of the subject's rows with that action that are newer than its last row with the action `since`.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    rows = await _SQL.rows(source, "facts_since", tenant, subject, action.value, since.value)
    return [parse_facts(row["after"]) for row in rows]


async def changes(source: Executor, tenant: TenantId, subject: str, action: Action) -> list[tuple[Any, Any]]:
    """Return the facts before and after of those of the newest thousand rows of the subject that have that action.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    rows = await _SQL.rows(source, "changes", tenant, subject, action.value)
    return [(parse_facts(row["before"]), parse_facts(row["after"])) for row in rows]


async def is_recorded(connection: Connection, change: Change) -> bool:
    """Return whether one of the newest thousand rows of the subject has this action and these facts in `after`.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    arguments = (change.tenant_id, change.subject, change.action.value, json_text(change.after))
    recorded: bool = await _SQL.value(connection, "is_recorded", *arguments)
    return recorded


async def heads(source: Executor, *, tenant: TenantId | None = None) -> list[Head]:
    """Return the head of the tenant's chain, or of every chain at one moment, without reading rows.

    Raises `Refused` if there are more heads than a file may contain, or if the role may not read them, and
    `Unavailable`.
    """
    rows = await _SQL.rows(source, "heads", tenant, MAX_HEADS + 1)
    if len(rows) > MAX_HEADS:
        raise Refused(f"more than {MAX_HEADS} tenants have a chain", advice="request them one by one with --tenant")
    return [Head(tenant_id=row["tenant_id"], sequence=row["sequence"], mac=row["mac"]) for row in rows]


async def find_contradictions(
    source: Executor, key: ChainKey, heads: Sequence[Head]
) -> list[tuple[Head, Contradiction]]:
    """Return the saved heads that the log contradicts, and how.

    Heads that an accepted restore lost are left out, if the row of the acceptance is authentic.
    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    accepted = frozenset([head async for head in _heads_lost_by_restores(source, key)]) if heads else frozenset()
    contradicted: list[tuple[Head, Contradiction]] = []
    async with _SQL.connected(source) as connection:
        for head in heads:
            [row] = await _SQL.rows(connection, "at", head.tenant_id, head.sequence)
            contradiction = find_contradiction(head, ends_at=row["last"] or 0, mac_there=row["mac"], accepted=accepted)
            if contradiction is not None:
                contradicted.append((head, contradiction))
    return contradicted


async def verify(
    source: Executor,
    key: ChainKey,
    *,
    tenant: TenantId | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> list[Verified]:
    """Verify the chain of the tenant, or of every tenant, up to its first broken row.

    `on_progress` is called after each batch with the tenant and the number of its valid rows. Raises
    `Unavailable`, and `Refused` if the role may not read the log.
    """
    return [await _verified(source, key, each, on_progress) for each in await _tenants(source, tenant)]


async def page(
    source: Executor, *, tenant: TenantId | None = None, action: Action | None = None, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` rows, newest first, and the cursor of the next page, None after the last.

    Raises `Malformed` for an invalid cursor or a limit out of 1 to 1000, `Unavailable`, `Refused`.
    """
    require_limit(limit)
    after_tenant, after_sequence = (None, None) if cursor is None else place_of(cursor)
    kind = None if action is None else action.value
    rows = await _SQL.rows(
        source, "page" if tenant is None else "page_of_tenant", tenant, kind, after_tenant, after_sequence, limit + 1
    )
    items = [to_display(dict(row)) for row in rows[:limit]]
    return items, cursor_of(items[-1]) if len(rows) > limit else None


async def export(source: Executor, *, tenant: TenantId | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield every row of the tenant, or of one tenant after another, oldest first, with its MACs in hex.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    for each in await _tenants(source, tenant):
        async for row in _records(source, each):
            macs = {name: row[name].hex() for name in ("previous_mac", "mac")}
            yield {**to_display(dict(row)), **macs, "mac_key_id": row["mac_key_id"]}


async def _add(connection: Connection, row: Row, at: datetime, mac: bytes) -> None:
    try:
        rows_added = await _SQL.execute(
            connection,
            "add",
            row.tenant_id,
            row.sequence,
            at,
            row.actor,
            row.action,
            row.subject,
            row.before,
            row.after,
            row.correlation_id,
            row.previous_mac,
            mac,
            row.mac_key_id,
            ORIGIN.mac,
        )
    except asyncpg.UniqueViolationError:  # there is already a row after that of the head
        rows_added = 0
    if rows_added != 1:
        raise Refused(
            "the audit log of this tenant does not end where its head says",
            advice="see what was changed with `hookseal audit verify`; until then nothing of this tenant can be "
            "changed",
        )


async def _verified(
    source: Executor, key: ChainKey, tenant: str, on_progress: Callable[[str, int], None] | None
) -> Verified:
    last, broken, next_sequence = ORIGIN, None, LOWEST
    while True:
        records, head = await _batch(source, tenant, next_sequence)
        consistent = list(takewhile(_has_generation_of_facts, records))
        last, broken = follow_chain(last, map(_row_and_mac, consistent), key)
        if broken is None and len(consistent) < len(records):
            broken = Broken(records[len(consistent)]["sequence"], Flaw.ALTERED)
        if on_progress is not None:
            on_progress(tenant, last.sequence)
        if broken is not None or len(records) < _BATCH_ROWS:
            break
        next_sequence = last.sequence + 1
    return Verified(
        tenant_id=tenant,
        rows=last.sequence,
        head_sequence=None if head is None else head.sequence,
        head_mac=None if head is None else head.mac.hex(),
        broken=broken or check_end(last, head),
    )


async def _heads_lost_by_restores(source: Executor, key: ChainKey) -> AsyncIterator[Head]:
    """Yield the heads that an authentic row records as lost by an accepted restore."""
    async for record in _records(source, SYSTEM_TENANT):
        row, mac = _row_and_mac(record)
        if row.action == Action.RESTORE_ACCEPTED and key.is_authentic(mac_message(row), mac, row.mac_key_id):
            for head in heads_from_json(parse_facts(row.after)):
                yield head


async def _records(source: Executor, tenant: str) -> AsyncIterator[asyncpg.Record]:
    next_sequence = LOWEST
    while records := (await _batch(source, tenant, next_sequence))[0]:
        for record in records:
            yield record
        next_sequence = records[-1]["sequence"] + 1


def _has_generation_of_facts(record: asyncpg.Record) -> bool:
    """Return whether the column `generation` is the generation in the facts of the row.

    PostgreSQL derives the column from `after`, and no MAC covers it. Stale endpoint rows are found by it.
    """
    facts = parse_facts(record["after"])
    generation = facts.get("generation") if isinstance(facts, dict) else None
    return bool(record["generation"] == generation)


def _row_and_mac(record: asyncpg.Record) -> tuple[Row, bytes]:
    return Row(**{name: record[name] for name in _COLUMNS_UNDER_MAC}), record["mac"]


async def _tenants(source: Executor, tenant: TenantId | None) -> Sequence[str]:
    if tenant is not None:
        return [tenant]
    return [row["tenant_id"] for row in await _SQL.rows(source, "tenants")]


async def _batch(source: Executor, tenant: str, first: int) -> tuple[list[asyncpg.Record], Link | None]:
    """Return the rows of a chain from the number `first` on, fewer than a batch at its end, and its current head."""
    # Each record repeats the head. A chain that has no row from `first` on gives one record, with nothing but the head.
    records = await _SQL.rows(source, "batch", tenant, first, _BATCH_ROWS)
    with_head = records[0]
    head = None if with_head["head_sequence"] is None else Link(with_head["head_sequence"], with_head["head_mac"])
    return [record for record in records if record["sequence"] is not None], head
