"""Moves secrets to another provider, audited: each endpoint in one transaction, then the installation's own."""

from enum import StrEnum
from typing import Any

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.store import held
from hookseal.errors import NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.rotation import signing
from hookseal.operations.operator import Operator
from hookseal.secrets import move
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.store.several import SeveralStores


class Movement(StrEnum):
    """The result for an endpoint: its secrets were moved now, were there before, or it is gone."""

    MOVED = "moved"
    PRESENT = "present"
    GONE = "gone"


async def require_movable(operator: Operator, to: Provider) -> None:
    """Return if every live worker, and this process, reads that provider.

    Raises `Refused` if this process does not, `Conflict` if a worker does not, and `Unavailable`.
    """
    _stores(operator, to).of(to)
    await move.require_readers(operator.connection, to, live_seconds=LIVE_SECONDS)


async def move_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, to: Provider) -> Movement:
    """Move every secret that the endpoint names to that provider, or change nothing.

    Its overlap, schemes and schedule stay as they are, and the versions that it leaves are retired. An endpoint whose
    plaintext is not migrated is left alone. Raises `SecretTampered` if its row was altered or is stale, what the
    stores raise, and `Unavailable`.
    """
    async with operator.changing() as connection:
        try:
            found = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        except NotFound:
            return Movement.GONE
        if found.mac is None or move.is_at(found, to):
            return Movement.PRESENT
        operator.unlocked.integrity.verify(found)
        store = _stores(operator, to).joined_to(connection)
        after = await move.move_endpoint(connection, store, operator.unlocked.integrity, found)
        await held.probe(connection, tenant, endpoint_id)
        sealed_under = None
        if to is Provider.DB and store.database is not None:
            sealed_under = await store.database.sealing_key_id()
        await operator.audit(
            Action.SECRET_MOVED, of=after, before=_facts(found), after=_facts(after) | {"key_id": sealed_under}
        )
    return Movement.MOVED


async def move_own(operator: Operator, to: Provider) -> list[str]:
    """Move the integrity key and the sentinel to that provider; return the refs of the versions that were moved.

    Raises what the stores raise, and `Unavailable`.
    """
    async with operator.changing() as connection:
        moved = await move.move_own(connection, _stores(operator, to).joined_to(connection))
        refs = [str(ref) for ref in moved]
        if refs:
            await operator.audit(Action.SECRET_MOVED, of=f"provider:{to}", after={"refs": refs})
    return refs


def _stores(operator: Operator, to: Provider) -> SeveralStores:
    stores = operator.unlocked.stores
    if stores is None or to not in stores.providers:
        needed = "SECRETS_MASTER_KEY" if to is Provider.DB else f"its settings, and SECRETS_ALSO_READ={to}"
        raise Refused(f"this process does not use the provider {to}: give it {needed}", field="to")
    return stores.writing_to(to)


def _facts(found: Pointer) -> dict[str, Any]:
    return signing(found) | {extra.ref_field: getattr(found, extra.ref_field) for extra in stored.ALL}
