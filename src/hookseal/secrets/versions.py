"""Arranges the versions of a secret to what the pointer says: one active, at most one previous, the rest retired."""

from typing import Final

from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDestroyed
from hookseal.secrets.ref import SecretRef

_SQL: Final = statements("hookseal.secrets", "versions.sql")


async def arrange(connection: Connection, *, active: SecretRef, previous: SecretRef | None) -> None:
    """Make these two the active and the previous version of their name, in the caller's transaction.

    Every other version that was either is retired; what is retired or destroyed stays so. Raises
    `SecretDestroyed` if the first has no material any more, and `SecretUnavailable`.
    """
    older = None if previous is None else previous.version
    with outages_translated():  # the old one first: at most one version of a name is active at any moment
        await connection.execute(_SQL["step_aside"], active.tenant, active.name, active.version, older)
        found = await connection.fetchval(_SQL["activate"], active.tenant, active.name, active.version)
    if found is None:
        raise SecretDestroyed("the material of that version was destroyed: rotate the secret instead")


async def retire(connection: Connection, ref: SecretRef) -> None:
    """Retire every version of the reference's name, in the caller's transaction. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["step_aside"], ref.tenant, ref.name, 0, None)
