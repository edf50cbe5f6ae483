"""Sets the states of a secret's versions as the pointer implies: one active, at most one previous, others retired."""

from typing import Final

from hookseal.postgres.handles import Connection
from hookseal.secrets.errors import SecretDestroyed
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.statements import statements

_SQL: Final = statements("versions.sql", package="hookseal.secrets.store")


async def arrange(connection: Connection, *, active: SecretRef, previous: SecretRef | None) -> None:
    """Make these two the active and the previous version of their name, in the caller's transaction.

    Every other active or previous version is retired. A retired `previous` and destroyed versions do not change. Raises
    `SecretDestroyed` if the material of `active` is destroyed, and `SecretUnavailable`.
    """
    older = None if previous is None else previous.version
    # the old one first, because at most one version of a name may be active
    await _SQL.execute(connection, "step_aside", active.tenant, active.name, active.version, older)
    found = await _SQL.value(connection, "activate", active.tenant, active.name, active.version)
    if found is None:
        raise SecretDestroyed("the material of that version was destroyed: rotate the secret instead")


async def retire(connection: Connection, ref: SecretRef) -> None:
    """Retire every version of the reference's name, in the caller's transaction. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "step_aside", ref.tenant, ref.name, 0, None)
