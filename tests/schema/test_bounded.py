"""Repeated statements of workers, and every list of an operator, read no more with ten times as many deliveries.

What a statement reads is counted in buffers and in rows, by EXPLAIN ANALYZE in a transaction that is rolled back. The
tables grow by ten times: that adds at most one level to an index, as growing from there to five million does.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hookseal.dispatcher.store.ledger import BEGINNING
from hookseal.postgres.statements import statements

Pool = asyncpg.Pool
FEW, MANY = 6_000, 60_000
_MOST_RATIO = 1.5  # one more level of each index
_AND_BUFFERS = 200  # what a plan of few buffers may read more, a fifth of what a scan of all deliveries does
_AND_ROWS = 1_000  # another join of a table that stays small
# Of every four deliveries two are due, one of them since longer and rung; one is held, or waits in a line; one is
# delivered.
# No trigger and no foreign key runs: they would take most of the time.
_GROW = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now() - interval '40 days' + make_interval(secs => n),
       CASE WHEN n % 2 = 0 THEN 'all' WHEN n % 100 = 1 THEN 'c' || n END, '', ''
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{{*}}' FROM generate_series({least}, {most}, 100) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, ordered, enabled)
SELECT 'held', md5(w)::uuid, 'https://a.example/' || w, '{{*}}', w = 'order', w <> 'endpoint_disabled'
FROM unnest(ARRAY['order', 'concurrency', 'endpoint_disabled']) AS w ON CONFLICT DO NOTHING;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
SELECT tenant_id, id, now() FROM hookseal.endpoints WHERE tenant_id = 'held' ON CONFLICT DO NOTHING;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at, position)
SELECT 'held', hookseal.uuid7(), md5(w)::uuid, 'e' || n, w, now(), CASE WHEN w = 'order' THEN n END
FROM generate_series({least}, {most}, 12) AS n, unnest(ARRAY['order', 'concurrency', 'endpoint_disabled']) AS w;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, rung_at, waiting_for,
    held_at, finished_at, position)
SELECT 'acme', hookseal.uuid7(), md5((n - n % 100 + 1)::text)::uuid, 'e' || n,
       CASE WHEN n % 4 = 3 THEN 'delivered' ELSE 'pending' END,
       CASE WHEN n % 4 < 3 THEN now() - make_interval(hours => 1 + n % 4, secs => -n / 1e6) END,
       CASE WHEN n % 4 = 1 THEN now() END,
       CASE WHEN n % 8 = 2 THEN 'order' WHEN n % 4 = 2 THEN 'secret' END, CASE WHEN n % 4 = 2 THEN now() END,
       CASE WHEN n % 4 = 3 THEN now() END, CASE WHEN n % 8 = 2 THEN n END
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id)
SELECT 'lanes', md5(n::text)::uuid FROM generate_series({least}, {most}, 10) AS n
UNION ALL SELECT 'held', md5('concurrency')::uuid ON CONFLICT DO NOTHING;
INSERT INTO hookseal.lines (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints ON CONFLICT DO NOTHING;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, lease_owner, lease_token,
    lease_expires_at, claimed_number, claimed_at, claimed_refs)
SELECT 'acme', hookseal.uuid7(), gen_random_uuid(), 'e' || n, 'sending', NULL, 'w', gen_random_uuid(), now(), 1, now(),
       '{{}}'
FROM generate_series({least}, 200) AS n;
INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id)
SELECT tenant_id, id, endpoint_id, event_id FROM hookseal.deliveries ON CONFLICT DO NOTHING;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
SELECT 'acme', md5((100 * n + 1)::text)::uuid, CASE WHEN n > 10 THEN now() END FROM generate_series({least}, 20) AS n;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
SELECT tenant_id, id, 1, now(), 'delivered', '{{}}', 'w' FROM hookseal.deliveries WHERE state = 'delivered'
ON CONFLICT DO NOTHING;
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
SELECT 'acme', n, now(), 'a', 'secret.rotated', 'x', '', '', '1' FROM generate_series({least}, {most}, 10) AS n;
"""
_LEADS = "UPDATE hookseal.control SET token = $1::text::uuid, until = now() + interval '1 h' WHERE name = 'outbox'"
# Deliveries that stay as they are, though their endpoint is released: how many there are must not count.
_RELEASED_FIRST = "UPDATE hookseal.held_endpoints SET released_at = '2001-01-01Z' WHERE endpoint_id = md5('{}')::uuid"
_TOKEN = "00000000-0000-4000-8000-000000000000"
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
_NOBODY = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
_OLDEST = """
SELECT string_agg(tenant_id, E'\n'), string_agg(endpoint_id::text, E'\n'), string_agg(id::text, E'\n')
FROM (SELECT * FROM hookseal.deliveries
      WHERE state = 'pending' AND waiting_for IS NULL ORDER BY next_attempt_at LIMIT 50) AS d
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A statement with its arguments, and what is done before it, in its transaction."""

    room: str
    file: str
    name: str
    arguments: tuple[Any, ...]
    before: str = ""

    @property
    def text(self) -> str:
        """The statement."""
        return statements(f"hookseal.{self.room}", f"{self.file}.sql")[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a statement reads."""

    buffers: int
    rows: float
    plan: dict[str, Any] = field(repr=False)


def _repeated(now: Any, rings: Sequence[str]) -> list[Read]:
    """Return what workers repeat, several times a second or a minute."""
    start = (BEGINNING.due_at, BEGINNING.delivery_id)
    ledger = {
        "ring_unrung": (100, 0.0, None, _TOKEN, "", None),
        "standing": (500,),
        "rung_before": (100, now, *start, now, 100),
        "end_lost_leases": (100, 30.0),
    }
    held = {
        "probe": (10, 240.0, 0.25),
        "release_strays": ("", _FIRST, "", 10),
        "cancel_held": (0, None, None, 100),
        "move_lines": ("", _FIRST, 50),
    }
    crowded = ("held", str(UUID(hashlib.md5(b"concurrency", usedforsecurity=False).hexdigest())))
    lanes = {
        "page": ("", _FIRST, 100),
        "next": (*crowded, "50", _FIRST),
        "delete": (*crowded, 100, 10.0),
        "park": (*rings, "\n".join("rate" for _ in rings[2].splitlines())),
        "due": tuple(rings),
    }
    figures = {
        "oldest_due_seconds": (),
        "due": (100,),
        "lines_stopped": (),
        "waiting": (100,),
        "retention_lag_seconds": (30,),
    }
    return [
        *(Read(room="dispatcher.store", file="ledger", name=name, arguments=given) for name, given in ledger.items()),
        *(
            Read(room="dispatcher.store", file="held_endpoints", name=name, arguments=given)
            for name, given in held.items()
        ),
        *(Read(room="dispatcher.store", file="lanes", name=name, arguments=given) for name, given in lanes.items()),
        *(
            Read(
                room="dispatcher.store",
                file="held_endpoints",
                name="release_batch",
                arguments=(100,),
                before=_RELEASED_FIRST.format(waiting_for),
            )
            for waiting_for in ("order", "concurrency", "endpoint_disabled")
        ),
        *(Read(room="worker.metrics", file="database", name=name, arguments=given) for name, given in figures.items()),
        Read(
            room="dispatcher.store",
            file="batches",
            name="claim_all",
            arguments=(*rings, "false", "w", 45.0, None, 2**25),
        ),
        Read(
            room="dispatcher.store",
            file="batches",
            name="claim_all",
            arguments=(*(each.split("\n")[0] for each in rings), "f", "w", 45.0, None, 2**25),
        ),
        Read(room="dispatcher.store", file="history", name="remove_deliveries", arguments=(30, "-infinity")),
        Read(room="dispatcher.store", file="history", name="remove_events", arguments=(30, "-infinity")),
    ]


def _lists() -> list[Read]:
    """Return the lists of operators, with each filter, also where nothing matches."""

    def page(of: str, *conditions: Any, signed_by: str | None = None) -> Read:
        given = (*conditions, _LAST, 51, signed_by, 1_000, _FIRST)
        return Read(room="dispatcher.store", file="delivery_queries", name=f"page_of_{of}", arguments=given)

    def of_events(*named: str | None) -> Read:
        given = ("acme", None, None, None, _LAST, 51, None, 1_000, _FIRST, *named)
        return Read(room="dispatcher.store", file="delivery_queries", name="page_of_events", arguments=given)

    def events(kind: str | None, correlation: str | None, until: datetime | None = None) -> Read:
        given = ("acme", kind, correlation, None, until, None, None, 1_000, 51)
        return Read(room="dispatcher.store", file="event_queries", name="page", arguments=given)

    endpoint = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
    audit = {"page": (None, "key.promoted", None, None, 51), "page_of_tenant": ("acme", "key.promoted", None, None, 51)}
    endpoints = {"page": (None, False, None, 51), "page_of_tenant": ("nobody", None, None, 51)}
    return [
        page("all", None, None, None, None),
        page("all", None, None, "no.such", None),
        page("tenant", "acme", None, None, None),
        page("tenant", "nobody", None, None, None),
        page("tenant", "acme", None, "no.such", "sending"),
        page("endpoint", None, endpoint, None, None),
        page("endpoint", None, _NOBODY, None, "delivered"),
        page("endpoint", "acme", endpoint, None, None, signed_by="db:acme:x:1"),
        page("state", None, None, None, "dead_letter"),
        page("state", "acme", endpoint, None, "failed"),
        Read(
            room="dispatcher.store",
            file="delivery_queries",
            name="count_unfinished",
            arguments=("pending", None, 1_000),
        ),
        Read(
            room="dispatcher.store",
            file="delivery_queries",
            name="count_unfinished",
            arguments=("sending", "acme", 1_000),
        ),
        page("few", None, None, None, "sending"),
        of_events("e7", None),
        of_events("no-such", None),
        of_events(None, "c101"),
        of_events(None, "all"),
        events(None, None),
        events("no.such", None),
        events(None, "all"),
        events("no.such", "c101"),
        events(None, None, datetime(2020, 1, 1, tzinfo=UTC)),
        *(Read(room="audit", file="audit", name=name, arguments=given) for name, given in audit.items()),
        *(
            Read(room="dispatcher.store", file="endpoint_queries", name=name, arguments=given)
            for name, given in endpoints.items()
        ),
    ]


async def _grown(pool: "Pool[asyncpg.Record]", least: int, most: int) -> list[tuple[Read, Cost]]:
    """Grow the tables, and return what each statement then reads."""
    async with pool.acquire() as connection:
        # While a table is small, a scan of it looks as cheap as the index that serves when it is large.
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        async with connection.transaction():
            await connection.execute(_GROW.format(least=least, most=most))
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute(_LEADS, _TOKEN)
        now = await connection.fetchval("SELECT now()")
        rings = tuple(await connection.fetchrow(_OLDEST) or ())
        repeated = [(read, await _cost_of_one_plan(connection, read)) for read in _repeated(now, rings)]
        return repeated + [(read, await _cost(connection, read, read.text, *read.arguments)) for read in _lists()]


async def _cost_of_one_plan(connection: Any, read: Read) -> Cost:
    """Do it with a plan for any arguments, and with bitmaps, as in workers: a bitmap reads all before the first row."""
    given = ", ".join(map(_literal, read.arguments))
    await connection.execute(
        f"SET enable_bitmapscan = on; SET plan_cache_mode = force_generic_plan; PREPARE repeated AS {read.text}"
    )
    cost = await _cost(connection, read, f"EXECUTE repeated ({given})" if given else "EXECUTE repeated")
    await connection.execute("DEALLOCATE repeated; RESET plan_cache_mode; SET enable_bitmapscan = off")
    return cost


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, int | float) else f"'{value}'"


async def _cost(connection: Any, read: Read, text: str, *arguments: Any) -> Cost:
    """Return what the second run of a statement reads. Nothing that it writes stays."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {text}"
    plan: dict[str, Any] = {}
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        if read.before:
            await connection.execute(read.before)
        plan = json.loads(await connection.fetchval(explain, *arguments))[0]["Plan"]
        await transaction.rollback()
    return Cost(buffers=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], rows=_rows(plan), plan=plan)


def _rows(plan: dict[str, Any]) -> float:
    """Return how many rows all nodes of the plan have read or passed by."""
    passed: float = sum(number for name, number in plan.items() if name.startswith("Rows Removed"))
    own: float = (plan["Actual Rows"] + passed) * plan["Actual Loops"]
    return own + sum(_rows(inner) for inner in plan.get("Plans", ()))


@pytest.mark.req("DEL-20")
async def test_repeated_statements_do_not_read_more_as_tables_grow(pool: "Pool[asyncpg.Record]") -> None:
    """Claim, outbox, sweep, holding, measuring, retention and every list read as much, however much is stored."""
    few = await _grown(pool, 1, FEW)
    many = await _grown(pool, FEW + 1, MANY)

    grown = [
        f"{read.name}{read.arguments} {read.before}: {before} -> {after}\n{json.dumps(after.plan, indent=1)}"
        for (read, before), (_, after) in zip(few, many, strict=True)
        if after.buffers > _MOST_RATIO * before.buffers + _AND_BUFFERS or after.rows > before.rows + _AND_ROWS
    ]
    assert not grown, "\n".join(grown)
