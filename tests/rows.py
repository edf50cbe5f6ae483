"""Rows of the tables of hookseal, written directly: for states that no call reaches, or reaches late.

Each function takes a pool or a connection first. Functions that make a row return its id. A keyword is a column, and
its value what PostgreSQL stores; `NOW`, `ago` and `ahead` are times of the database, `Sql` is any other expression.

    endpoint = await rows.endpoint(pool, enabled=False, concurrency=2)      # of the tenant acme; without a secret
    delivery = await rows.delivery(pool, endpoint, state="sending", lease_expires_at=rows.NOW)
    await rows.attempt(pool, delivery, outcome="timeout", status=None)
    await rows.hold(pool, endpoint, waiting_for="breaker", probe_at=rows.ahead(minutes=5))
    await rows.lane(pool, endpoint)
    await rows.grant(pool, role)                                             # may publish for acme
    await rows.secret_record(pool, sealed=b"...")
    [one, two] = await rows.endpoints(pool, 2, tenant="globex")
    deliveries = await rows.publish(pool, 3, tenant="globex")               # by hookseal.publish, for each subscriber

    await rows.change(pool, "endpoints", enabled=False)                      # every row
    await rows.change(pool, "endpoints", endpoint, secret="old")             # the rows with these ids
    await rows.change(pool, "secret_records", where="tenant_id = 'acme'", state="retired")
    await rows.set_state(pool, "dead_letter", delivery, budget_spent=9)      # with the columns that belong to a state
    await rows.wait_for(pool, "secret", delivery, held_at=rows.ago(days=8))  # pending, and not due until released
    await rows.remove(pool, "endpoints", endpoint)
    async with rows.without_triggers(pool) as connection:                    # no trigger or foreign key acts
        await rows.change(connection, "deliveries", finished_at=rows.ago(days=31))

An endpoint that must sign has a secret: `Installation.add` of tests/doubles/stored.py makes it as an operator does.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any, Final
from uuid import uuid4

from hookseal.postgres.pool import Connection, Executor, transaction

_NUMBERS = count(1)
# What `change` and `remove` call the id of a row.
_IDS: Final = {
    "attempts": "delivery_id",
    "control": "name",
    "held_endpoints": "endpoint_id",
    "lanes": "endpoint_id",
    "endpoint_urls": "endpoint_id",
    "lines": "endpoint_id",
    "secret_keys": "key_id",
    "secret_records": "ref",
}


class Sql(str):
    """An expression of SQL as the value of a column."""

    __slots__ = ()


NOW: Final = Sql("now()")


def ago(**duration: float) -> Sql:
    """Return the time before now by this duration, in the units of `timedelta`."""
    return Sql(f"now() - interval '{timedelta(**duration).total_seconds()} s'")


def ahead(**duration: float) -> Sql:
    """Return the time after now by this duration, in the units of `timedelta`."""
    return Sql(f"now() + interval '{timedelta(**duration).total_seconds()} s'")


_NO_LEASE: Final[dict[str, Any]] = dict.fromkeys(
    ("lease_owner", "lease_token", "lease_expires_at", "claimed_number", "claimed_at", "claimed_refs")
)
_LEASE: Final[dict[str, Any]] = {
    "lease_owner": "w-1",
    "lease_token": Sql("gen_random_uuid()"),
    "lease_expires_at": ahead(seconds=45),
    "claimed_number": 1,
    "claimed_at": NOW,
    "claimed_refs": [],
}


def _columns_of(state: str) -> dict[str, Any]:
    if state == "pending":
        return {"state": state, "next_attempt_at": NOW, **_NO_LEASE}
    return {
        "state": state,
        "next_attempt_at": None,
        "waiting_for": None,
        **(_LEASE if state == "sending" else _NO_LEASE),
    }


def _values(columns: dict[str, Any], arguments: list[Any]) -> list[str]:
    """Return the expression of each column; what is no SQL becomes an argument."""
    expressions = []
    for value in columns.values():
        if isinstance(value, Sql):
            expressions.append(str(value))
        else:
            arguments.append(value)
            expressions.append(f"${len(arguments)}")
    return expressions


async def insert(source: Executor, table: str, **columns: Any) -> None:
    """Insert a row; columns that are not given have the default of the table."""
    arguments: list[Any] = []
    values = ", ".join(_values(columns, arguments))
    await source.execute(
        f"INSERT INTO hookseal.{table} ({', '.join(columns)}) VALUES ({values})",  # noqa: S608 -- names of ours
        *arguments,
    )


async def change(source: Executor, table: str, *ids: str, where: str = "true", **columns: Any) -> int:
    """Update the rows with these ids, or all, of which `where` is true; return how many these are."""
    arguments: list[Any] = []
    condition = f"({where}){_among(table, ids, arguments)}"
    pairs = zip(columns, _values(columns, arguments), strict=True)
    assignments = ", ".join(f"{column} = {value}" for column, value in pairs)
    status = await source.execute(
        f"UPDATE hookseal.{table} SET {assignments} WHERE {condition}",  # noqa: S608 -- names of ours
        *arguments,
    )
    return int(status.split()[-1])


async def remove(source: Executor, table: str, *ids: str, where: str = "true") -> int:
    """Delete the rows with these ids, or all, of which `where` is true; return how many these are."""
    arguments: list[Any] = []
    condition = f"({where}){_among(table, ids, arguments)}"
    status = await source.execute(f"DELETE FROM hookseal.{table} WHERE {condition}", *arguments)  # noqa: S608 -- ours
    return int(status.split()[-1])


def _among(table: str, ids: tuple[str, ...], arguments: list[Any]) -> str:
    if not ids:
        return ""
    arguments.append(list(ids))
    return f" AND {_IDS.get(table, 'id')}::text = ANY(${len(arguments)}::text[])"


async def endpoint(source: Executor, tenant: str = "acme", **columns: Any) -> str:
    """Insert an endpoint that subscribes to everything; return its id."""
    made = str(columns.pop("id", None) or await _new_id(source))
    given = {"url": f"https://receiver.example/{made}", "event_types": ["*"], **columns}
    await insert(source, "endpoints", tenant_id=tenant, id=made, **given)
    return made


async def endpoints(source: Executor, number: int, tenant: str = "acme", **columns: Any) -> list[str]:
    """Insert that many endpoints; return their ids in the order of the ids."""
    return [await endpoint(source, tenant, **columns) for _ in range(number)]


async def event(source: Executor, tenant: str = "acme", **columns: Any) -> str:
    """Insert an event without deliveries; return its id."""
    made: str = columns.pop("id", None) or f"event-{next(_NUMBERS)}"
    given = {"event_type": "invoice.paid", "occurred_at": NOW, "body": b"{}", "fingerprint": b"", **columns}
    await insert(source, "events", tenant_id=tenant, id=made, **given)
    return made


async def delivery(
    source: Executor,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    *,
    tenant: str = "acme",
    state: str = "pending",
    **columns: Any,
) -> str:
    """Insert a delivery in a state; return its id. By default its event is new, and its endpoint does not exist."""
    made = str(columns.pop("id", None) or await _new_id(source))
    keys = {
        "tenant_id": tenant,
        "id": made,
        "endpoint_id": endpoint_id or str(uuid4()),
        "event_id": event_id or await event(source, tenant),
    }
    await insert(source, "deliveries", **keys, **(_columns_of(state) | columns))
    return made


async def attempt(source: Executor, delivery_id: str, number: int = 1, *, tenant: str = "acme", **columns: Any) -> None:
    """Insert an attempt, which succeeded."""
    given = {
        "endpoint_id": Sql(f"(SELECT endpoint_id FROM hookseal.deliveries WHERE id = '{delivery_id}')"),  # noqa: S608 -- ours
        "started_at": NOW,
        "duration_ms": 12,
        "status": 204,
        "outcome": "delivered",
        "signed_by": [],
        "worker": "w-1",
        **columns,
    }
    await insert(source, "attempts", tenant_id=tenant, delivery_id=delivery_id, number=number, **given)


async def hold(source: Executor, endpoint_id: str, *, tenant: str = "acme", **columns: Any) -> None:
    """Hold an endpoint, because of its secret unless `waiting_for` says something else."""
    await insert(source, "held_endpoints", tenant_id=tenant, endpoint_id=endpoint_id, **columns)


async def hold_all(source: Executor, **columns: Any) -> None:
    """Hold each endpoint."""
    for row in await source.fetch("SELECT tenant_id, id::text FROM hookseal.endpoints"):
        await hold(source, row["id"], tenant=row["tenant_id"], **columns)


async def lane(source: Executor, endpoint_id: str, *, tenant: str = "acme", **columns: Any) -> None:
    """Insert the lane of an endpoint, which is at its limit."""
    await insert(source, "lanes", tenant_id=tenant, endpoint_id=endpoint_id, **columns)


async def worker(source: Executor, name: str = "w-1", **columns: Any) -> str:
    """Insert the heartbeat of a worker; return its name."""
    given = {"version": "1", "drain_seconds": 25, "lease_seconds": 45, "key_ids": [], **columns}
    await insert(source, "workers", id=name, **given)
    return name


async def grant(source: Executor, role: str, tenant: str = "acme") -> None:
    """Let a role publish for a tenant, if it is a member of the group of producers."""
    regrole = Sql(f"'{role}'::regrole")
    await insert(source, "producers", role_name=role, tenant_id=tenant, role=regrole)


async def secret_record(source: Executor, name: str = "n", version: int = 1, **columns: Any) -> str:
    """Insert a record of a secret; return its ref. Its bytes are not sealed."""
    given = {"tenant_id": "acme", "provider": "db", "purpose": "webhook_signing", "scheme": "standard", **columns}
    if given["provider"] == "db" and given.get("state") != "destroyed":
        given = {"sealed": b"\1\1", **given}
    await insert(source, "secret_records", name=name, version=version, **given)
    return f"{given['provider']}:{given['tenant_id']}:{name}:{version}"


async def publish(
    source: Executor, number: int = 1, tenant: str = "acme", event_type: str = "invoice.paid", body: str = "{}"
) -> list[str]:
    """Publish that many events in one transaction, as a producer of SQL does, without a ring; return the deliveries."""
    made = await source.fetch(
        "SELECT (p).delivery_id::text AS id FROM (SELECT hookseal.publish($1, $2, $3::json) AS p"
        " FROM generate_series(1, $4::integer)) AS published",
        *(tenant, event_type, body, number),
    )
    return [row["id"] for row in made if row["id"] is not None]


async def set_state(source: Executor, state: str, *ids: str, where: str = "true", **columns: Any) -> int:
    """Give deliveries a state, and the due time or the lease that belongs to it; return how many these are."""
    return await change(source, "deliveries", *ids, where=where, **(_columns_of(state) | columns))


async def wait_for(source: Executor, reason: str | None, *ids: str, where: str = "true", **columns: Any) -> int:
    """Let pending deliveries wait for this reason, or for none; return how many these are."""
    given = {"waiting_for": reason, "held_at": NOW if reason else None, **columns}
    return await change(source, "deliveries", *ids, where=where, **given)


@asynccontextmanager
async def without_triggers(source: Executor) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction in which no trigger and no foreign key acts, if its role may do that."""
    async with transaction(source) as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection
        await connection.execute("SET LOCAL session_replication_role = origin")


async def _new_id(source: Executor) -> str:
    made: str = await source.fetchval("SELECT hookseal.uuid7()::text")
    return made
