"""A change and its audit row are committed together: if the log refuses rows, no operation changes anything."""

import importlib
import inspect
import os
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import hookseal.operations
from hookseal.config.producer import admin_settings
from hookseal.dispatcher.store.delivery_queries import Filter
from hookseal.errors import HooksealError, Refused
from hookseal.ground.ids import EndpointId
from hookseal.ground.wire import Algorithm
from hookseal.operations import deliveries, migrate_secrets, move_secrets, operator, secret
from hookseal.operations.endpoint import endpoints, reports, rotation
from hookseal.operations.key import keys
from hookseal.operations.operator import Operator
from hookseal.operations.unlocking import unwrapped
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from tests.audit.logs import tamper
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.doubles.logins import login
from tests.doubles.providers import google_outside
from tests.doubles.stored import Installation, begin, keyring
from tests.operations.test_audited import (
    ACME,
    BEFORE,
    COMPOSED,
    NEW,
    OLDER,
    ONLY_READ,
    RING,
    SECOND,
    added,
    dead,
    older,
    steps,
)
from tests.secrets.samples import register

pytestmark = pytest.mark.req("SEC-14", part="in-its-transaction")

# Columns that the steps set themselves as a precondition of an operation, and the time of that.
BY_THE_STEPS = {"secret_updated_at", "rotate_every_days", "updated_at", "changed_at"}
BREAK = "UPDATE hookseal.audit_heads SET sequence = sequence - 1"
RESTORE_HEADS = "UPDATE hookseal.audit_heads SET sequence = sequence + 1"
FIRST_ROW = """
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
VALUES ('_system', 1, now(), 'eve', 'key.initialised', 'key:x', '', '', '1')
"""
RETIRE = "UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() - interval '9 d' WHERE ref = $1"
TABLES = """
SELECT c.oid::regclass::text AS name,
       string_agg(format('%I', a.attname), ', ') FILTER (WHERE a.attname <> ALL ($1)) AS columns
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r' AND c.relname <> 'secret_leftovers'
 GROUP BY c.oid
"""  # a number is committed there before a secret is written at a provider; a worker removes it after a failed change
URL = {"DATABASE_URL": "postgresql://127.0.0.1/hookseal"}
Reading = Callable[[Operator, EndpointId], Awaitable[object]]


READS: dict[str, Reading] = {
    "require_drainable": lambda by, _: endpoints.require_drainable(by, 5000, own_drain_seconds=25),
    "wait_until_complete": lambda by, endpoint: rotation.wait_until_complete(
        by.connection, tenant=ACME, endpoint_id=endpoint, generation=9, clock=FakeClock(), report=lambda _: None
    ),
    "limit_transaction": lambda by, _: operator.limit_transaction(by.connection),
    "preview": lambda by, _: preview_migration(by),
    "records_of": lambda by, _: keys.records_of(by, keyring().sealing.key_id),
    "altered": lambda by, _: keys.altered(by, keyring().sealing.key_id),
    "purgeable": lambda by, _: secret.purgeable(by, ACME, days=0),
    "unwrapped": lambda _, __: unwrapped(admin_settings(environ=URL), clock=FakeClock()),
    "require_movable": lambda by, _: move_secrets.require_movable(by, Provider.DB),
    "remove_leftovers": lambda by, _: secret.remove_leftovers(by.connection, by.unlocked),
    "page": lambda by, _: deliveries.page(by.connection, Filter(tenant_id=ACME), limit=1, cursor=None),
    "rotation_state": lambda by, endpoint: reports.rotation_state(by.connection, ACME, endpoint),
    "versions": lambda by, endpoint: reports.versions(by.connection, ACME, endpoint),
    "public_keys": lambda by, endpoint: reports.public_keys(by, ACME, endpoint),
    "require_usable": lambda by, _: endpoints.require_usable(by, identity(Authority().client(), None)),
}


async def preview_migration(by: Operator) -> object:
    """Do a dry run for the endpoint of an older system."""
    return await migrate_secrets.preview(by, await older(by))


async def everything(pool: Pool) -> dict[str, list[str]]:
    """Return every row of every table of hookseal."""
    found = {}
    for table in await pool.fetch(TABLES, [*BY_THE_STEPS]):
        rows = await pool.fetch(f"SELECT ({table['columns']})::text AS row FROM {table['name']}")  # noqa: S608 -- ours
        found[table["name"]] = sorted(row["row"] for row in rows)
    return found


@asynccontextmanager
async def broken(pool: Pool) -> AsyncIterator[None]:
    """Make every chain refuse rows within the block, in which nothing may be changed."""
    await pool.execute(BREAK)
    before = await everything(pool)
    yield
    assert before == await everything(pool)
    await pool.execute(RESTORE_HEADS)


async def test_without_its_row_nothing_is_changed(pool: Pool, database_url: str) -> None:
    async with (
        pool.acquire() as connection,
        login(pool, database_url) as (role, _),
        google_outside(pool) as (_, outside),
    ):
        await connection.execute(FIRST_ROW)
        before = await everything(pool)
        with pytest.raises(Refused, match="does not end where its head says"):
            await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        assert before == await everything(pool)
        await tamper(pool, "DELETE FROM hookseal.audit_log")

        await keys.begin(connection, keyring(), "ada@desk", os.urandom)
        await register(pool, SECOND, "staged")
        installation = Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, RING, outside=outside))
        by = installation.operator(connection)
        first = await added(by, NEW)
        delivery = await dead(installation)
        await pool.execute(OLDER)
        for action, function, call in steps(first.pointer.endpoint_id, delivery, role):
            async with broken(pool):
                with pytest.raises(HooksealError, match="does not end where its head says"):
                    await call(by)
            entries = await pool.fetchval("SELECT count(*) FROM hookseal.audit_log")
            await call(by)
            written = 1 + len(BEFORE.get(action, ()))
            assert entries + written == await pool.fetchval("SELECT count(*) FROM hookseal.audit_log"), (
                action,
                function,
            )


@pytest.mark.parametrize("name", sorted(ONLY_READ))
async def test_an_operation_without_an_audit_row_only_reads(name: str, pool: Pool) -> None:
    installation = await begin(pool)
    endpoint = (await installation.add(replace(NEW, algorithm=Algorithm.ED25519))).pointer.endpoint_id
    other = (await installation.endpoint(url="https://receiver.example/other")).pointer
    await pool.execute(RETIRE, other.secret_ref)
    await pool.execute(OLDER)
    before = await everything(pool)
    await installation.act(READS[name], endpoint)

    assert before == await everything(pool)


def of_the_room() -> Iterator[tuple[str, Any]]:
    """Yield every public name that a module of the room defines, with its value."""
    for module in pkgutil.walk_packages(hookseal.operations.__path__, "hookseal.operations."):
        found = importlib.import_module(module.name)
        for name, value in vars(found).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == found.__name__:
                yield f"{module.name.removeprefix('hookseal.operations.')}.{name}", value


def test_every_operation_is_found() -> None:
    """Every operation is a plain coroutine function, as the search for them expects.

    None is in a class, in a generator or behind a decorator, except for what writes audit rows, what counts outcomes,
    what opens connections to stores, and what unlocks the secrets.
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

    assert {
        *("operator.Operator.changing", "operator.Operator.audit", "operator.Operator.compare", "bulk.Tally.attempt"),
        *(f"unlocking.KeptSecrets.{method}" for method in ("for_change", "integrity", "of", "aclose")),
    } == methods
    assert ["unlocking.outside"] == hidden
    assert {name.rpartition(".")[2] for name, _ in functions} >= ONLY_READ | COMPOSED


def is_asynchronous(function: Any) -> bool:
    """Return whether it may await."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
