"""What the probes ask of each dependency, on connections that nothing else uses."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from hookseal.ground.errors import Unavailable
from hookseal.ground.sql import statements
from hookseal.schema import revision, strangers
from hookseal.schema.database import OUTAGES, Pool
from hookseal.secrets.boot import fitting
from hookseal.worker.health import CHECK_SECONDS, Check
from hookseal.worker.movement import Movement
from hookseal.worker.pause import at_most
from hookseal.worker.resources import Resources

_SQL: Final = statements("hookseal.worker", "checks.sql")


def ready_checks(resources: Resources, movement: Movement) -> Mapping[str, Check]:
    """Return what must answer for a worker to deliver, and that deliveries come to it through the queue.

    No stranger may add to the functions that its statements call.
    """
    unlocked = replace(resources.unlocked, store=resources.unlocked.store_on(resources.probing))
    return {
        "postgresql": lambda: _takes_writes(resources.probing),
        "redis": resources.bell.ping,
        "schema": lambda: strangers.refuse(resources.probing),
        "secrets": unlocked.check_sentinel,
        "queue": lambda: _moves(resources.probing, movement),
    }


def startup_checks(resources: Resources) -> Mapping[str, Check]:
    """Return what a worker was started for: the schema of its version, and keys that fit the table of keys."""

    async def keys() -> None:
        if resources.keyring is not None:
            await fitting(resources.probing, resources.keyring)

    return {"schema": lambda: revision.require(resources.probing), "keys": keys}


async def _takes_writes(pool: Pool) -> None:
    """Return once PostgreSQL answers. Raises `Unavailable` if it can only be read: a standby, before it is promoted."""
    if await pool.fetchval("SELECT current_setting('transaction_read_only') = 'on'"):
        raise Unavailable("PostgreSQL takes no writes")


async def _moves(pool: Pool, movement: Movement) -> None:
    """Raise `Unavailable` if nothing comes through the queue although a delivery was rung, and has long been due.

    PostgreSQL is asked only while nothing came for `still_seconds`. If it does not answer, its own check says so.
    """
    if movement.is_still:
        with suppress(*OUTAGES):
            await at_most(CHECK_SECONDS / 2, _require_taken(pool, movement))


async def _require_taken(pool: Pool, movement: Movement) -> None:
    if await pool.fetchval(_SQL["rung_and_not_taken"], movement.still_seconds) and movement.is_still:
        raise Unavailable("deliveries are due and were rung, and none comes through the queue")
