"""Moves secrets to another provider, audited: each endpoint in one transaction, then the installation's own."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.store import held
from hookseal.errors import NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.bulk import Further, OnProgress, Report, Tally, side_by_side
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


_DRY_RUN_LABELS: Final[dict[str, str]] = {
    Movement.MOVED: "to move",
    Movement.PRESENT: "there already",
    Movement.GONE: "gone meanwhile",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedAll:
    """The result: `tally` counts each `Movement`, and `own` are the installation's own refs that were moved."""

    tally: Tally
    own: tuple[str, ...]


async def move_all(
    operator: Operator,
    further: Further,
    to: Provider,
    tenant: TenantId | None,
    *,
    is_dry: bool,
    report: Report,
    on_progress: OnProgress | None = None,
) -> MovedAll:
    """Move the secrets of every endpoint, of this tenant or of all, several at once, each in a transaction of its own.

    If it was for all tenants, and none failed, the installation's own secrets follow. `is_dry` only counts. Raises as
    `require_movable`, what the stores raise for the installation's own, and what `side_by_side` and `Tally.attempt`
    raise.
    """
    await operator.compare()
    await require_movable(operator, to)
    tally = Tally("endpoint", report, labels=_DRY_RUN_LABELS if is_dry else None, on_progress=on_progress)

    async def work(operator: Operator, found: Pointer) -> str:
        if is_dry:
            return Movement.PRESENT if _stays(found, to) else Movement.MOVED
        return await move_endpoint(operator, found.tenant_id, found.endpoint_id, to)

    async def one(operator: Operator, found: Pointer) -> None:
        place = {"tenant_id": found.tenant_id, "endpoint_id": found.endpoint_id}
        await tally.attempt(operator, place, work(operator, found))

    await side_by_side(operator, further, pointer.iterate(operator.connection, tenant), one)
    tally.end()
    has_own = not is_dry and tenant is None and not tally.failures
    return MovedAll(tally=tally, own=tuple(await move_own(operator, to)) if has_own else ())


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
        if _stays(found, to):
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


def _stays(found: Pointer, to: Provider) -> bool:
    """Return whether nothing of the endpoint is to be moved: it is there, or its plaintext is not migrated."""
    return found.mac is None or move.is_at(found, to)


def _stores(operator: Operator, to: Provider) -> SeveralStores:
    stores = operator.unlocked.stores
    if stores is None or to not in stores.providers:
        needed = "SECRETS_MASTER_KEY" if to is Provider.DB else f"its settings, and SECRETS_ALSO_READ={to}"
        raise Refused(f"this process does not use the provider {to}", advice=f"give it {needed}", field="to")
    return stores.writing_to(to)


def _facts(found: Pointer) -> dict[str, Any]:
    return signing(found) | {extra.ref_field: getattr(found, extra.ref_field) for extra in stored.ALL}
