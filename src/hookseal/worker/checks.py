"""The checks of the probes, on connections that nothing else uses."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from hookseal.errors import Cause, HooksealError, Unavailable
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import fingerprint, revision, roles
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import OUTAGES
from hookseal.secrets.key.stores import arrange_keyring
from hookseal.worker.health import CHECK_SECONDS, Check
from hookseal.worker.periodic import at_most
from hookseal.worker.recorder import Circuit, stamp
from hookseal.worker.resources import Resources
from hookseal.worker.ring_handler import Movement

_SQL: Final = Statements("hookseal.worker", "checks.sql", seconds=None)


def ready_checks(resources: Resources, movement: Movement) -> Mapping[str, Check]:
    """Return the checks of `/readyz`: dependencies answer, deliveries move, outcomes are recorded, roles are trusted.

    An untrusted role could add functions that the statements of a worker call.
    """
    unlocked = replace(resources.unlocked, store=resources.unlocked.store_on(resources.probing))
    return {
        "postgresql": lambda: _takes_writes(resources.probing),
        "redis": resources.bell.ping,
        "schema": lambda: roles.refuse(resources.probing),
        "secrets": unlocked.check_sentinel,
        "queue": lambda: _moves(resources.probing, movement),
        "records": partial(_records, resources.probing, resources.circuit),
    }


async def unaudited_rows(pool: Pool) -> list[dict[str, str]]:
    """Return tenant and id of up to ten endpoints whose deliveries wait because their rows were changed unaudited.

    They are none while PostgreSQL does not answer: its own check says that.
    """
    found: list[dict[str, str]] = []

    async def look() -> None:
        found.extend(dict(row) for row in await _SQL.rows(pool, "unaudited"))

    with suppress(*OUTAGES, HooksealError):
        await at_most(CHECK_SECONDS / 2, look())
    return found


def startup_checks(resources: Resources) -> Mapping[str, Check]:
    """Return the checks of `/startupz`: the schema is as this version makes it, and the keys fit `secret_keys`."""

    async def schema() -> None:
        await revision.require(resources.probing)
        await fingerprint.require(resources.probing)

    async def keys() -> None:
        if resources.keyring is not None:
            await arrange_keyring(resources.probing, resources.keyring)

    return {"schema": schema, "keys": keys}


async def _takes_writes(pool: Pool) -> None:
    """Raise `Unavailable` if PostgreSQL is read-only: it is a standby that is not promoted."""
    if await pool.fetchval("SELECT current_setting('transaction_read_only') = 'on'"):
        raise Unavailable("PostgreSQL accepts no writes")


async def _records(pool: Pool, circuit: Circuit) -> None:
    """Raise `Unavailable` if outcomes cannot be recorded, so that nothing is sent, or if PostgreSQL refuses some.

    If PostgreSQL does not answer, its own check fails.
    """
    circuit.refused, row = None, None
    if circuit.is_open:
        raise Unavailable(circuit.reason)
    with suppress(Unavailable):
        row = await _SQL.row(pool, "refused_outcomes")
    if row is not None:
        reason = f"PostgreSQL refuses to record what was sent ({row['reason']}): drop or correct what refuses it"
        circuit.refused = {"since": stamp(row["since"]), "outcomes": row["outcomes"], "reason": reason}
        raise Unavailable(reason, cause=Cause.REFUSED)


async def _moves(pool: Pool, movement: Movement) -> None:
    """Raise `Unavailable` if no delivery comes through the queue although one was rung and has long been due.

    It asks PostgreSQL only if no delivery came for `still_seconds`. If PostgreSQL does not answer, its own check fails.
    """
    if movement.is_still:
        with suppress(*OUTAGES):
            await at_most(CHECK_SECONDS / 2, _require_taken(pool, movement))


async def _require_taken(pool: Pool, movement: Movement) -> None:
    if await _SQL.value(pool, "rung_and_not_taken", movement.still_seconds) and movement.is_still:
        raise Unavailable("deliveries are due and were rung, but none comes through the queue")
