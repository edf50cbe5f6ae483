"""Beginning an installation, audited: its first master key, its own secrets, and the first row of its log."""

from collections.abc import Callable

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher.database import translated
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.operator import Operator, bound
from hookseal.schema.database import Connection
from hookseal.secrets import keys
from hookseal.secrets.boot import unlock
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.keys import KeyStatus
from hookseal.secrets.ref import Provider
from hookseal.secrets.stores.postgres import PostgresStore


async def begin(connection: Connection, keyring: KeyRing, who: str, random_bytes: Callable[[int], bytes]) -> KeyStatus:
    """Register the master key and make the installation's own secrets, once; all of it or nothing.

    Raises `Conflict` if it was begun before, `Unavailable`.
    """
    with translated():
        async with connection.transaction():
            await bound(connection)
            made = await keys.initialise(connection, keyring, PostgresStore(connection, keyring), random_bytes)
            unlocked = await unlock(connection, Provider.DB, keyring)
            await Operator(connection=connection, unlocked=unlocked, who=who).tell(_change(made))
    return made


def _change(made: KeyStatus) -> Change:
    return Change(
        tenant_id=SYSTEM_TENANT,
        action=Action.KEY_INITIALISED,
        subject=f"key:{made.key_id}",
        after={
            "key_id": made.key_id,
            "state": made.state.value,
            "integrity_ref": str(made.integrity_ref),
            "sentinel_ref": str(made.sentinel_ref),
        },
    )
