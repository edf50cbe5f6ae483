"""The audit log in PostgreSQL: appended to in the transaction of the change, verified and read in batches."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

import asyncpg

from hookseal.audit.chain import LOWEST, ORIGIN, Broken, Flaw, Link, Row, ended, followed, json_text, message
from hookseal.audit.database import translated
from hookseal.audit.entry import Action, ChainKey, Change
from hookseal.audit.heads import MAX_HEADS, Contradiction, Head, contradiction, kept
from hookseal.audit.shown import cursor_of, facts, place_of, shown
from hookseal.ground.errors import Defect, Refused
from hookseal.ground.framing import microseconds
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.ground.paging import require_limit
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Executor, connected

_SQL: Final = statements("hookseal.audit", "audit.sql")
_COVERED: Final = tuple(Row.__dataclass_fields__)
_BATCH: Final = 1_000
_ONE_ROW: Final = "INSERT 0 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What became of one tenant's chain: how many rows of it hold, what its head says, and where it is broken first.

    The head is None if there is none. Keep its number and MAC elsewhere: a log and a head that were both
    put back to an older state agree with each other, and only such a copy contradicts them.
    """

    tenant_id: str
    rows: int
    head_sequence: int | None
    head_mac: str | None
    broken: Broken | None


async def append(connection: Connection, key: ChainKey, who: str, change: Change) -> int:
    """Write the change at the end of its tenant's chain, in the caller's transaction, and return its number.

    The actor is the database role of this session and `who`. Until the transaction ends, everybody else who
    appends for the tenant waits, so the numbers have no gap. Raises `Unavailable`, and `Refused` if the role
    may not write the log or the chain does not end where its head says: the row that the head names is missing or has
    another MAC, or there is one behind it. The change must then not happen.
    """
    if not connection.is_in_transaction():
        raise Defect("an audit row is written in the transaction of its change, and there is none")
    before, after = json_text(change.before), json_text(change.after)
    with translated():
        [head] = await connection.fetch(_SQL["lock_head"], change.tenant_id, ORIGIN.mac, timeout=ANSWER_SECONDS)
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
        await _add(connection, row, at, key.authenticate(message(row)))
    return row.sequence


async def hold(connection: Connection, tenant: TenantId) -> None:
    """Have everybody else who appends for the tenant wait until the caller's transaction ends. Raises as `append`."""
    with translated():
        await connection.execute(_SQL["lock_head"], tenant, ORIGIN.mac, timeout=ANSWER_SECONDS)


async def told(source: Executor, tenant: TenantId, subject: str, action: Action, *, since: Action) -> list[Any]:
    """Return the facts of every row of the subject with that action, behind the newest one with the action `since`.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    with translated():
        async with connected(source) as connection:
            rows = await connection.fetch(
                _SQL["told_since"], tenant, subject, action.value, since.value, timeout=ANSWER_SECONDS
            )
    return [facts(row["after"]) for row in rows]


async def is_told(connection: Connection, change: Change) -> bool:
    """Return whether a row with these facts is among the newest thousand of the subject. Raises as `append`."""
    arguments = (change.tenant_id, change.subject, change.action.value, json_text(change.after))
    with translated():
        found: bool = await connection.fetchval(_SQL["is_told"], *arguments, timeout=ANSWER_SECONDS)
    return found


async def heads(source: Executor, *, tenant: TenantId | None = None) -> list[Head]:
    """Return the head of the tenant's chain, or of every chain at one moment, without a look at any row.

    Raises `Refused` for more of them than a file of heads may hold, `Unavailable`, and `Refused` if the role may not
    read them.
    """
    with translated():
        async with connected(source) as connection:
            rows = await connection.fetch(_SQL["heads"], tenant, MAX_HEADS + 1, timeout=ANSWER_SECONDS)
    if len(rows) > MAX_HEADS:
        raise Refused(f"more than {MAX_HEADS} tenants have a chain: ask for one after the other with --tenant")
    return [Head(tenant_id=row["tenant_id"], sequence=row["sequence"], mac=row["mac"]) for row in rows]


async def contradicted(source: Executor, key: ChainKey, heads: Sequence[Head]) -> list[tuple[Head, Contradiction]]:
    """Return which of the heads that were kept elsewhere the log does not hold, and how.

    Those that an accepted restore named are left out, as far as the row that says so is genuine.
    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    accepted = frozenset([head async for head in _accepted(source, key)]) if heads else frozenset()
    found: list[tuple[Head, Contradiction]] = []
    with translated():
        async with connected(source) as connection:
            for head in heads:
                [row] = await connection.fetch(_SQL["at"], head.tenant_id, head.sequence, timeout=ANSWER_SECONDS)
                how = contradiction(head, ends_at=row["last"] or 0, mac_there=row["mac"], accepted=accepted)
                if how is not None:
                    found.append((head, how))
    return found


async def verify(
    source: Executor,
    key: ChainKey,
    *,
    tenant: TenantId | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> list[Verified]:
    """Verify the chain of the tenant, or of every tenant, each up to its first broken row.

    `on_progress` is given the tenant and how many of its rows hold, after each batch. Raises
    `Unavailable`, and `Refused` if the role may not read the log.
    """
    return [await _verified(source, key, each, on_progress) for each in await _tenants(source, tenant)]


async def page(
    source: Executor, *, tenant: TenantId | None = None, action: Action | None = None, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` rows, newest first, and the cursor of the next page, None after the last.

    Raises `Malformed` for a cursor that no page gave or a limit out of 1 to 1000, `Unavailable`, `Refused`.
    """
    require_limit(limit)
    after_tenant, after_sequence = (None, None) if cursor is None else place_of(cursor)
    kind = None if action is None else action.value
    with translated():
        async with connected(source) as connection:
            rows = await connection.fetch(
                _SQL["page" if tenant is None else "page_of_tenant"],
                tenant,
                kind,
                after_tenant,
                after_sequence,
                limit + 1,
                timeout=ANSWER_SECONDS,
            )
    items = [shown(dict(row)) for row in rows[:limit]]
    return items, cursor_of(items[-1]) if len(rows) > limit else None


async def export(source: Executor, *, tenant: TenantId | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield every row of the tenant, or of one tenant after the other, oldest first, with its MACs in hex.

    Raises `Unavailable`, and `Refused` if the role may not read the log.
    """
    for each in await _tenants(source, tenant):
        async for row in _records(source, each):
            macs = {name: row[name].hex() for name in ("previous_mac", "mac")}
            yield {**shown(dict(row)), **macs, "mac_key_id": row["mac_key_id"]}


async def _add(connection: Connection, row: Row, at: datetime, mac: bytes) -> None:
    try:
        done = await connection.execute(
            _SQL["add"],
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
            timeout=ANSWER_SECONDS,
        )
    except asyncpg.UniqueViolationError:  # behind the row that the head names there is another one
        done = None
    if done != _ONE_ROW:
        raise Refused(
            "the audit log of this tenant does not end where its head says: find out who changed it with "
            "`hookseal audit verify`; until then nothing of this tenant can be changed"
        )


async def _verified(
    source: Executor, key: ChainKey, tenant: str, on_progress: Callable[[str, int], None] | None
) -> Verified:
    last, broken, first = ORIGIN, None, LOWEST
    while True:
        records, head = await _batch(source, tenant, first)
        derived = list(takewhile(_is_derived, records))
        last, broken = followed(last, map(_row, derived), key)
        if broken is None and len(derived) < len(records):
            broken = Broken(records[len(derived)]["sequence"], Flaw.ALTERED)
        if on_progress is not None:
            on_progress(tenant, last.sequence)
        if broken is not None or len(records) < _BATCH:
            break
        first = last.sequence + 1
    return Verified(
        tenant_id=tenant,
        rows=last.sequence,
        head_sequence=None if head is None else head.sequence,
        head_mac=None if head is None else head.mac.hex(),
        broken=broken or ended(last, head),
    )


async def _accepted(source: Executor, key: ChainKey) -> AsyncIterator[Head]:
    """Yield the heads of which a genuine row says that a restore was accepted which lacks them."""
    async for record in _records(source, SYSTEM_TENANT):
        row, mac = _row(record)
        if row.action == Action.RESTORE_ACCEPTED and key.is_authentic(message(row), mac, row.mac_key_id):
            for head in kept(facts(row.after)):
                yield head


async def _records(source: Executor, tenant: str) -> AsyncIterator[asyncpg.Record]:
    first = LOWEST
    while records := (await _batch(source, tenant, first))[0]:
        for record in records:
            yield record
        first = records[-1]["sequence"] + 1


def _is_derived(record: asyncpg.Record) -> bool:
    """Return whether the generation, which no MAC covers, is still made of `after`, as what is put back is known by."""
    told = facts(record["after"])
    generation = told.get("generation") if isinstance(told, dict) else None
    return bool(record["generation"] == generation)


def _row(record: asyncpg.Record) -> tuple[Row, bytes]:
    return Row(**{name: record[name] for name in _COVERED}), record["mac"]


async def _tenants(source: Executor, tenant: TenantId | None) -> Sequence[str]:
    if tenant is not None:
        return [tenant]
    with translated():
        async with connected(source) as connection:
            return [row["tenant_id"] for row in await connection.fetch(_SQL["tenants"], timeout=ANSWER_SECONDS)]


async def _batch(source: Executor, tenant: str, first: int) -> tuple[list[asyncpg.Record], Link | None]:
    """Return the next rows of a chain from that number on, fewer than a batch at its end, and the head it has now."""
    with translated():
        async with connected(source) as connection:
            records = await connection.fetch(_SQL["batch"], tenant, first, _BATCH, timeout=ANSWER_SECONDS)
    head = None if records[0]["head_sequence"] is None else Link(records[0]["head_sequence"], records[0]["head_mac"])
    return [record for record in records if record["sequence"] is not None], head
