"""A change and its audit row are one: where the log takes no row nothing is changed, whichever operation it is."""

import importlib
import inspect
import os
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

import hookseal.operations
from hookseal.ground.errors import HooksealError, Refused
from hookseal.ground.ids import EndpointId
from hookseal.operations import endpoint_tls, endpoints, keys, migration, operator, purge, rewrap, rotation
from hookseal.operations.operator import Operator
from hookseal.secrets import pointer
from hookseal.secrets.boot import unlock
from hookseal.secrets.endpoint_tls import TlsChange
from hookseal.secrets.ref import Provider
from tests.audit.logs import tamper
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.doubles.logins import login
from tests.doubles.stored import Installation, begin, keyring
from tests.operations.test_audited import (
    ACME,
    MADE_OF_OTHERS,
    NEW,
    OLDER,
    ONLY_READ,
    PARTS,
    RING,
    SECOND,
    added,
    dead,
    older,
    steps,
)
from tests.secrets.registered import register

pytestmark = pytest.mark.req("SEC-14", part="in-its-transaction")

Pool = asyncpg.Pool
# What the steps themselves set, so that an operation has something to do.
BY_THE_STEPS = {"secret_updated_at", "rotate_every_days", "changed_at"}
BREAK = "UPDATE hookseal.audit_heads SET sequence = sequence - 1"
MEND = "UPDATE hookseal.audit_heads SET sequence = sequence + 1"
FIRST_ROW = """
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
VALUES ('_system', 1, now(), 'eve', 'key.initialised', 'key:x', '', '', '1')
"""
TABLES = """
SELECT c.oid::regclass::text AS name,
       string_agg(format('%I', a.attname), ', ') FILTER (WHERE a.attname <> ALL ($1)) AS columns
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r'
 GROUP BY c.oid
"""
Reading = Callable[[Operator, EndpointId], Awaitable[object]]


async def moved(by: Operator, endpoint: EndpointId) -> object:
    """Say what giving the endpoint a client certificate would make of its TLS identity."""
    async with by.changing() as connection:
        found = await pointer.locked(connection, tenant=ACME, endpoint_id=endpoint)
        return await endpoint_tls.moved(by, found, TlsChange(client=identity(Authority().client(), None).client))


READS: dict[str, Reading] = {
    "require_drainable": lambda by, _: endpoints.require_drainable(by, 5000, own_drain_seconds=25),
    "completed": lambda by, endpoint: rotation.completed(
        by, tenant=ACME, endpoint_id=endpoint, generation=9, clock=FakeClock(), tell=lambda _: None
    ),
    "bound": lambda by, _: operator.bound(by.connection),
    "foretell": lambda by, _: foretold(by),
    "records_of": lambda by, _: rewrap.records_of(by, keyring().sealing.key_id),
    "misnamed": lambda by, _: rewrap.misnamed(by, keyring().sealing.key_id),
    "purgeable": lambda by, _: purge.purgeable(by, ACME, days=0),
    "require_usable": lambda by, _: endpoints.require_usable(by, identity(Authority().client(), None)),
    "moved": moved,
}


async def foretold(by: Operator) -> object:
    """Say what would become of the endpoint of an older system."""
    return await migration.foretell(by, await older(by))


async def everything(pool: "Pool[asyncpg.Record]") -> dict[str, list[str]]:
    """Return every row of every table of ours."""
    found = {}
    for table in await pool.fetch(TABLES, [*BY_THE_STEPS]):
        rows = await pool.fetch(f"SELECT ({table['columns']})::text AS row FROM {table['name']}")  # noqa: S608 -- ours
        found[table["name"]] = sorted(row["row"] for row in rows)
    return found


@asynccontextmanager
async def broken(pool: "Pool[asyncpg.Record]") -> AsyncIterator[None]:
    """Have no chain take a row within the block, which then may have changed nothing at all."""
    await pool.execute(BREAK)
    before = await everything(pool)
    yield
    assert before == await everything(pool)
    await pool.execute(MEND)


async def test_without_its_row_nothing_is_changed(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """Every operation, where the audit log takes no row, is refused and leaves every row of every table as it was."""
    async with pool.acquire() as connection, login(pool, database_url) as (role, _):
        await connection.execute(FIRST_ROW)
        before = await everything(pool)
        with pytest.raises(Refused, match="hookseal audit verify"):
            await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        assert before == await everything(pool)
        await tamper(pool, "DELETE FROM hookseal.audit_log")

        await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        await register(pool, SECOND, "staged")
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, RING))
        by = installation.operator(connection)
        first = await added(by, NEW)
        delivery = await dead(installation)
        await pool.execute(OLDER)
        for action, function, call in steps(first.pointer.endpoint_id, delivery, role):
            async with broken(pool):
                with pytest.raises(HooksealError, match="does not end where its head says"):
                    await call(by)
            told = await pool.fetchval("SELECT count(*) FROM hookseal.audit_log")
            await call(by)
            assert told + 1 == await pool.fetchval("SELECT count(*) FROM hookseal.audit_log"), (action, function)


@pytest.mark.parametrize("name", sorted(ONLY_READ))
async def test_what_is_said_to_read_only_reads(name: str, pool: "Pool[asyncpg.Record]") -> None:
    """What needs no audit row changes no row of any table."""
    installation = await begin(pool)
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await pool.execute("UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() - interval '9 days'")
    await pool.execute(OLDER)
    before = await everything(pool)
    async with pool.acquire() as connection:
        await READS[name](installation.operator(connection), endpoint)

    assert before == await everything(pool)


def of_the_room() -> Iterator[tuple[str, Any]]:
    """Give every public name that a module of the room defines, and what it is."""
    for module in pkgutil.iter_modules(hookseal.operations.__path__):
        found = importlib.import_module(f"hookseal.operations.{module.name}")
        for name, value in vars(found).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == found.__name__:
                yield f"{module.name}.{name}", value


def test_no_operation_escapes_the_look() -> None:
    """Whoever changes something here is a coroutine function, as the look for them expects: none hides in a class,
    in a generator or behind a decorator; but for who audits.
    """
    classes = [(name, value) for name, value in of_the_room() if inspect.isclass(value)]
    methods = {
        f"{name}.{method}"
        for name, owner in classes
        for method, function in vars(owner).items()
        if not method.startswith("_") and is_asynchronous(inspect.unwrap(function))
    }
    functions = [(name, value) for name, value in of_the_room() if inspect.isfunction(value)]
    hidden = [
        name
        for name, value in functions
        if is_asynchronous(inspect.unwrap(value)) and not inspect.iscoroutinefunction(value)
    ]

    assert {"operator.Operator.changing", "operator.Operator.tell"} == methods
    assert [] == hidden
    assert {name.partition(".")[2] for name, _ in functions} >= ONLY_READ | MADE_OF_OTHERS | PARTS


def is_asynchronous(function: Any) -> bool:
    """Return whether it may await something."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
