"""What the probes ask of each dependency, on connections that nothing else uses."""

from collections.abc import Mapping
from dataclasses import replace

from hookseal.ground.errors import Unavailable
from hookseal.schema import revision
from hookseal.schema.database import Pool
from hookseal.secrets.boot import fitting
from hookseal.worker.health import Check
from hookseal.worker.resources import Resources


def ready_checks(resources: Resources) -> Mapping[str, Check]:
    """Return what must answer for a worker to deliver."""
    unlocked = replace(resources.unlocked, store=resources.unlocked.store_on(resources.probing))
    return {
        "postgresql": lambda: _takes_writes(resources.probing),
        "redis": resources.bell.ping,
        "secrets": unlocked.check_sentinel,
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
