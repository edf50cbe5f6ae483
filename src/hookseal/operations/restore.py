"""Accepts stale rows, for instance after a restore: from then on they are the newest state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hookseal.audit import log
from hookseal.audit.chain import Action, Contradiction, Head, heads_to_json
from hookseal.dispatcher.store import held
from hookseal.errors import Conflict, HooksealError, NotFound, Unavailable, with_advice
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.operator import Operator
from hookseal.operations.secret import clear_caches
from hookseal.postgres.pool import Connection
from hookseal.secrets import restore
from hookseal.secrets.core.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.key import active_key
from hookseal.secrets.resolve import epoch
from hookseal.secrets.restore import StaleEndpoint, StaleKind
from hookseal.secrets.store import records

_SUBJECT: Final = "restore"
_STALE_AGAIN: Final = "it became stale again meanwhile: run this again"
_ALTERED: Final = "the row was altered: restore what it was (runbook, HooksealSecretRefused)"
_FORGED: Final = (
    "somebody forged a row of the audit log, after which the deletion of the endpoint would have no effect: "
    "find out who with `hookseal audit verify`; its deliveries wait"
)
_REPAIRS: Final = {
    "secret_ref": "the material of its current secret is gone: rotate it with --overlap 0",
    "previous_secret_ref": "the material of its previous secret is gone: run `hookseal endpoint end-overlap`",
    "headers_ref": "its header values are gone: give all of them with `hookseal endpoint update --headers-file FILE`",
    "tls_ref": "its client certificate or authorities are gone: give them to `hookseal endpoint update` with "
    "--client-cert and --client-key, --ca-file, or --remove-client-cert and --remove-ca",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The endpoints that were accepted, those that were not, with the reason, and the heads that the log contradicts.

    `woken` deliveries wait for a secret: of each endpoint the oldest is probed, and the others follow once it is
    signed.
    `epoch` is the new restore epoch: workers discard the generations that they saw before. It is None if only one
    endpoint was accepted.
    """

    epoch: int | None
    woken: int
    endpoints: Sequence[StaleEndpoint]
    refused: Sequence[tuple[StaleEndpoint, str]]
    contradicted: Sequence[tuple[Head, Contradiction]]


@dataclass(slots=True)
class _Tally:
    accepted: list[StaleEndpoint] = field(default_factory=list)
    refused: list[tuple[StaleEndpoint, str]] = field(default_factory=list)


async def accept_restore(
    operator: Operator, heads: Sequence[Head], *, on_progress: Callable[[int], None] | None = None
) -> Accepted:
    """Accept the installation as it is, and begin a new restore epoch; both are audited.

    Each stale endpoint gets a generation above every known one, and its records get the states that its row implies.
    An endpoint whose row is gone counts as deleted. Each is accepted in a transaction of its own, so an interrupted run
    can be repeated. `heads` are heads that the operator kept: if the log contradicts one, that is accepted, too. Raises
    `Unavailable`.
    """
    await operator.compare()
    await operator.unlocked.versions.refresh()  # rows may name a version that is newer
    contradicted = await log.find_contradictions(operator.connection, operator.unlocked.integrity, heads)
    tally = _Tally()
    async for stale in restore.find_all(operator.connection, operator.unlocked.integrity):
        await _try_accept(operator, stale, tally)
        if on_progress is not None:
            on_progress(len(tally.accepted) + len(tally.refused))
    await _check_again(operator, tally)
    return await _begin_epoch(operator, tally, contradicted)


async def accept_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> Accepted:
    """Accept one endpoint as it is, as `accept_restore` does with all; no new restore epoch begins.

    An endpoint that is not stale is not changed. Raises `NotFound` if it never existed, and `Unavailable`.
    """
    await operator.compare()
    await operator.unlocked.versions.refresh()
    tally = _Tally()
    async for stale in restore.find_all(operator.connection, operator.unlocked.integrity, tenant):
        if stale.endpoint_id == endpoint_id:
            await _try_accept(operator, stale, tally)
    if not tally.accepted and not tally.refused:
        await _require_known(operator, tenant, endpoint_id)
    await _check_again(operator, tally, (tenant, endpoint_id))
    woken = (await clear_caches(operator)).woken if tally.accepted else 0
    return Accepted(epoch=None, woken=woken, endpoints=tally.accepted, refused=tally.refused, contradicted=())


async def _require_known(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> None:
    try:
        async with operator.changing() as connection:
            await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
    except NotFound:
        subject = f"endpoint:{endpoint_id}"
        if not await log.facts_since(
            operator.connection, tenant, subject, Action.ENDPOINT_DELETED, since=Action.ENDPOINT_ADDED
        ):
            raise


async def _check_again(operator: Operator, tally: _Tally, only: tuple[TenantId, EndpointId] | None = None) -> None:
    """Add every endpoint that is still stale or altered to `tally.refused`, with the steps to repair it."""
    await operator.unlocked.versions.refresh()  # a pointer that moved meanwhile may have a MAC under a newer version
    tenant = None if only is None else only[0]
    refused_ids = {stale.endpoint_id for stale, _ in tally.refused}
    accepted_ids = {stale.endpoint_id for stale in tally.accepted}
    async for stale in restore.find_all(operator.connection, operator.unlocked.integrity, tenant):
        if stale.endpoint_id not in refused_ids and (only is None or stale.endpoint_id == only[1]):
            refused_ids.add(stale.endpoint_id)
            so_far = "its row counts from now on, but " if stale.endpoint_id in accepted_ids else ""
            tally.refused.append((stale, so_far + await _steps(operator, stale)))
    tally.accepted = [stale for stale in tally.accepted if stale.endpoint_id not in refused_ids]


async def _steps(operator: Operator, stale: StaleEndpoint) -> str:
    if stale.kind is StaleKind.ALTERED:
        return _ALTERED
    missing = await restore.missing_material(operator.connection, stale.tenant_id, stale.endpoint_id)
    return _repairs_of(missing) if missing else _STALE_AGAIN


def _repairs_of(missing: Sequence[str]) -> str:
    """Return the steps that replace missing material; a rotation without an overlap needs no previous secret."""
    return "; ".join(_REPAIRS[name] for name in missing if name != "previous_secret_ref" or "secret_ref" not in missing)


async def _try_accept(operator: Operator, stale: StaleEndpoint, tally: _Tally) -> None:
    if stale.kind is StaleKind.ALTERED:
        tally.refused.append((stale, _ALTERED))
        return
    try:
        await _accept(operator, stale)
        tally.accepted.append(stale)
    except Unavailable:
        raise
    except HooksealError as error:
        tally.refused.append((stale, with_advice(error)))


async def _accept(operator: Operator, stale: StaleEndpoint) -> None:
    async with operator.changing() as connection:
        if stale.kind is StaleKind.LOST:
            await _lock_deleted(connection, stale)
            if await restore.is_lost(connection, stale):
                await _record_deletion(operator, stale)
                if await restore.is_lost(connection, stale):
                    raise Conflict(_FORGED, field="endpoint_id")
            return
        if stale.generation is None:  # it was deleted, and only its secrets are back
            await _lock_deleted(connection, stale)
            if await restore.is_deleted(connection, stale):
                await _record_deletion(operator, stale)
                await restore.destroy_again(connection, stale)
            return
        row = await pointer.lock(connection, tenant=stale.tenant_id, endpoint_id=stale.endpoint_id)
        after, facts = await restore.accept(connection, operator.unlocked.integrity, row)
        missing = await restore.missing_material(connection, stale.tenant_id, stale.endpoint_id)
        if missing and stale.kind is StaleKind.RECORD:  # a stale row is accepted anyway, because a repair needs that
            raise Conflict(_repairs_of(missing), field="endpoint_id")
        before = {"generation": row.generation, "audited_generation": row.audited_generation}
        for facts_of_row in facts or [{"generation": after.generation}]:
            await operator.audit(Action.RESTORE_ACCEPTED, of=stale, before=before, after=facts_of_row)


async def _lock_deleted(connection: Connection, stale: StaleEndpoint) -> None:
    """Lock what the deletion of the endpoint may change, in the order of a purge: records, cache epoch, log.

    Several may accept it at the same time: the lock of the log lets one of them record the deletion.
    """
    await restore.lock_records(connection, stale)
    await epoch.lock_cache(connection)
    await log.lock_chain(connection, stale.tenant_id)


async def _record_deletion(operator: Operator, stale: StaleEndpoint) -> None:
    """Delete an endpoint whose row is gone: retire its secrets, cancel its deliveries, and audit it."""
    provider = operator.unlocked.store.provider
    for name_of in (endpoint_secret_name, *(extra.name_of for extra in stored.ALL)):
        own = SecretRef(provider=provider, tenant=stale.tenant_id, name=name_of(stale.endpoint_id), version=1)
        await records.retire(operator.connection, own)
    cancelled = await held.cancel(operator.connection, stale.tenant_id, stale.endpoint_id)
    generation = pointer.generation_after(stale.audited_generation)
    after = {"generation": generation, "cancelled_deliveries": cancelled}
    before = {"audited_generation": stale.audited_generation}
    await operator.audit(Action.ENDPOINT_DELETED, of=stale, before=before, after=after)


async def _begin_epoch(
    operator: Operator, tally: _Tally, contradicted: Sequence[tuple[Head, Contradiction]]
) -> Accepted:
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        reopened = await restore.reopen_drained_keys(connection)
        new_epoch = await epoch.begin_restore(connection)
        await epoch.move_cache(connection)
        woken = await held.probe_all(connection)
        await operator.audit(
            Action.RESTORE_ACCEPTED,
            of=_SUBJECT,
            after={
                "epoch": new_epoch,
                "accepted_endpoints": len(tally.accepted),
                "refused_endpoints": len(tally.refused),
                "keys_with_records_again": reopened,
                "heads": heads_to_json(head for head, _ in contradicted),
            },
        )
    return Accepted(
        epoch=new_epoch, woken=woken, endpoints=tally.accepted, refused=tally.refused, contradicted=contradicted
    )
