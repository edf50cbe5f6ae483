"""Finding what was put back to an older state, and accepting it: from then on it is the newest that anybody knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hookseal.audit import log
from hookseal.audit.entry import Action, Change
from hookseal.audit.heads import Contradiction, Head, told
from hookseal.dispatcher import waiting
from hookseal.ground.errors import Conflict, HooksealError, NotFound, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.operations.caches import clear_caches
from hookseal.operations.operator import Operator
from hookseal.secrets import active_key, epoch, pointer, put_back, versions
from hookseal.secrets.put_back import PutBack, PutBackKind
from hookseal.secrets.ref import SecretRef, endpoint_headers_name, endpoint_secret_name, endpoint_tls_name

_SUBJECT: Final = "restore"
_AGAIN: Final = "it was put back again meanwhile: run this again"
_ALTERED: Final = "the row was altered: put back what it was (runbook, HooksealSecretRefused)"
_FORGED: Final = (
    "somebody forged a row of the audit log, behind which its deletion would count for nothing: "
    "find out who with `hookseal audit verify`; its deliveries wait"
)
_GONE: Final = {
    "secret_ref": "the material of its current secret is gone: rotate it with --overlap 0",
    "previous_secret_ref": "the material of its previous secret is gone: hookseal endpoint end-overlap",
    "headers_ref": "its header values are gone: give all of them with hookseal endpoint update --headers-file",
    "tls_ref": "its client certificate or authorities are gone: hookseal endpoint update with --client-cert and "
    "--client-key, --ca-file, or --remove-client-cert and --remove-ca",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What was accepted, what could not be and why, and which heads that were kept the log does not hold.

    `woken` deliveries wait for a secret: of each endpoint the oldest is tried, the others go out once it was signed.
    `epoch` is that of restores: workers forget the generations that they saw under an older one. It is None if only
    one endpoint was accepted.
    """

    epoch: int | None
    woken: int
    endpoints: Sequence[PutBack]
    refused: Sequence[tuple[PutBack, str]]
    contradicted: Sequence[tuple[Head, Contradiction]]


@dataclass(slots=True)
class _Tally:
    accepted: list[PutBack] = field(default_factory=list)
    refused: list[tuple[PutBack, str]] = field(default_factory=list)


async def accept_restore(
    operator: Operator, heads: Sequence[Head], *, on_progress: Callable[[int], None] | None = None
) -> Accepted:
    """Take the installation as it stands for lawful, and open a new epoch; both audited.

    Each endpoint that was put back gets a generation above every one that is known, and its records the states that
    its row says; one whose row is gone counts as deleted. They are accepted one by one: who is interrupted runs it
    again. `heads` are those that were kept before: what the log lacks of them is then no contradiction any more.
    Raises `Unavailable`.
    """
    await operator.unlocked.versions.refresh()  # rows may name a version that was made since
    contradicted = await log.contradicted(operator.connection, operator.unlocked.integrity, heads)
    tally = _Tally()
    async for found in put_back.found(operator.connection):
        await _tried(operator, found, tally)
        if on_progress is not None:
            on_progress(len(tally.accepted) + len(tally.refused))
    await _look_again(operator, tally)
    return await _opened(operator, tally, contradicted)


async def accept_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> Accepted:
    """Take one endpoint as it stands for lawful, as `accept_restore` does with all; no epoch of restores begins.

    An endpoint that was not put back stays as it is. Raises `NotFound` if there is none, and was none, `Unavailable`.
    """
    await operator.unlocked.versions.refresh()
    tally = _Tally()
    async for found in put_back.found(operator.connection, tenant):
        if found.endpoint_id == endpoint_id:
            await _tried(operator, found, tally)
    if not tally.accepted and not tally.refused:
        await _require_known(operator, tenant, endpoint_id)
    await _look_again(operator, tally, (tenant, endpoint_id))
    woken = (await clear_caches(operator)).woken if tally.accepted else 0
    return Accepted(epoch=None, woken=woken, endpoints=tally.accepted, refused=tally.refused, contradicted=())


async def _require_known(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> None:
    try:
        async with operator.changing() as connection:
            await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
    except NotFound:
        subject = f"endpoint:{endpoint_id}"
        if not await log.told(
            operator.connection, tenant, subject, Action.ENDPOINT_DELETED, since=Action.ENDPOINT_ADDED
        ):
            raise


async def _look_again(operator: Operator, tally: _Tally, only: tuple[TenantId, EndpointId] | None = None) -> None:
    """Move what is still not as it should be to what was refused: each with what is to be done about it."""
    await operator.unlocked.versions.refresh()  # what moved meanwhile under a newer one was not altered
    tenant = None if only is None else only[0]
    known = {found.endpoint_id for found, _ in tally.refused}
    moved = {found.endpoint_id for found in tally.accepted}
    looks = (
        put_back.found(operator.connection, tenant),
        put_back.altered(operator.connection, operator.unlocked.integrity, tenant),
    )
    for look in looks:
        async for found in look:
            if found.endpoint_id not in known and (only is None or found.endpoint_id == only[1]):
                known.add(found.endpoint_id)
                so_far = "its row counts from now on, but " if found.endpoint_id in moved else ""
                tally.refused.append((found, so_far + await _to_do(operator, found)))
    tally.accepted = [found for found in tally.accepted if found.endpoint_id not in known]


async def _to_do(operator: Operator, found: PutBack) -> str:
    if found.kind is PutBackKind.ALTERED:
        return _ALTERED
    gone = await put_back.gone(operator.connection, found.tenant_id, found.endpoint_id)
    return _mend(gone) if gone else _AGAIN


def _mend(gone: Sequence[str]) -> str:
    """Return what brings back material that is gone; a rotation without an overlap needs no previous secret."""
    return "; ".join(_GONE[name] for name in gone if name != "previous_secret_ref" or "secret_ref" not in gone)


async def _tried(operator: Operator, found: PutBack, tally: _Tally) -> None:
    try:
        await _accept(operator, found)
        tally.accepted.append(found)
    except Unavailable:
        raise
    except HooksealError as error:
        tally.refused.append((found, str(error)))


async def _accept(operator: Operator, found: PutBack) -> None:
    async with operator.changing() as connection:
        if found.kind is PutBackKind.LOST:
            await log.hold(connection, found.tenant_id)  # of many who accept it one lets it go
            if await put_back.is_lost(connection, found):
                await _let_go(operator, found)
                if await put_back.is_lost(connection, found):
                    raise Conflict(_FORGED, field="endpoint")
            return
        if found.generation is None:  # it was deleted: only its secrets are there again
            await log.hold(connection, found.tenant_id)
            if await put_back.is_deleted(connection, found):
                await _let_go(operator, found)
                await put_back.destroy_again(connection, found)
            return
        locked = await pointer.locked(connection, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
        after, facts = await put_back.accept(connection, operator.unlocked.integrity, locked)
        gone = await put_back.gone(connection, found.tenant_id, found.endpoint_id)
        if gone and found.kind is PutBackKind.RECORD:  # an old row is accepted all the same: only then it can be mended
            raise Conflict(_mend(gone), field="endpoint")
        before = {"generation": locked.generation, "audited_generation": locked.audited_generation}
        for known in facts or [{"generation": after.generation}]:
            await operator.tell(replace(_change(found, before), after=known))


async def _let_go(operator: Operator, found: PutBack) -> None:
    """Do what a deletion does for an endpoint whose row is gone."""
    provider = operator.unlocked.store.provider
    for name_of in (endpoint_secret_name, endpoint_headers_name, endpoint_tls_name):
        own = SecretRef(provider=provider, tenant=found.tenant_id, name=name_of(found.endpoint_id), version=1)
        await versions.retire(operator.connection, own)
    cancelled = await waiting.cancel(operator.connection, found.tenant_id, found.endpoint_id)
    gone = pointer.generation_after(found.audited_generation)
    after = {"generation": gone, "cancelled_deliveries": cancelled}
    change = _change(found, {"audited_generation": found.audited_generation})
    await operator.tell(replace(change, action=Action.ENDPOINT_DELETED, after=after))


async def _opened(operator: Operator, tally: _Tally, contradicted: Sequence[tuple[Head, Contradiction]]) -> Accepted:
    async with operator.changing() as connection:
        await active_key.hold(connection)
        reopened = await put_back.reopened(connection)
        opened = await epoch.open_restore(connection)
        await epoch.move(connection)
        woken = await waiting.probe_all(connection)
        await operator.tell(
            Change(
                tenant_id=SYSTEM_TENANT,
                action=Action.RESTORE_ACCEPTED,
                subject=_SUBJECT,
                after={
                    "epoch": opened,
                    "accepted_endpoints": len(tally.accepted),
                    "refused_endpoints": len(tally.refused),
                    "keys_with_records_again": reopened,
                    "heads": told(head for head, _ in contradicted),
                },
            )
        )
    return Accepted(
        epoch=opened, woken=woken, endpoints=tally.accepted, refused=tally.refused, contradicted=contradicted
    )


def _change(found: PutBack, before: Mapping[str, object]) -> Change:
    return Change(
        tenant_id=found.tenant_id,
        action=Action.RESTORE_ACCEPTED,
        subject=f"endpoint:{found.endpoint_id}",
        before=before,
    )
