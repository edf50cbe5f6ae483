"""The audit log of an Admin: who changed what, and whether the log is complete and unchanged."""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from hookseal.admin import arguments
from hookseal.admin.results.audit import (
    AuditHead,
    AuditHeads,
    AuditRow,
    BrokenRow,
    ContradictedHead,
    ExportedRow,
    StaleEndpoint,
    VerifiedLog,
    VerifiedTenant,
)
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.session import NOBODY, Session
from hookseal.audit import log
from hookseal.audit.chain import Action, Contradiction, Flaw, Head
from hookseal.audit.exported import verify_export
from hookseal.audit.log import Verified
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import TenantId
from hookseal.ground.literals import ActionName
from hookseal.secrets.restore import StaleEndpoint as Found
from hookseal.secrets.restore import StaleKind, find_stale

Progress = Callable[[str, int], None]


class Audit:
    """Lists, verifies and exports the audit log. Connection and errors are as for `Endpoints`.

    Beside those of tenants, `_system` has the rows of the installation itself, and `*` is every tenant.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self, *, tenant_id: str, action: Action | ActionName | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[AuditRow]:
        """Return up to `limit` (1 to 1000) rows, the newest first, also only those of one kind of change."""
        owner = arguments.audited_tenant(tenant_id)
        kind = None if action is None else arguments.choice(Action, action, "action")
        arguments.page(limit, cursor)
        async with self._session.reading() as connection:
            items, following = await log.page(connection, tenant=owner, action=kind, limit=limit, cursor=cursor)
        return Page(items=tuple(of_row(AuditRow, item) for item in items), next_cursor=following)

    async def heads(self, *, tenant_id: str) -> AuditHeads:
        """Return the number and the MAC of the last row of each tenant. Raises `NotFound` if the one tenant has none.

        It needs no key. Keep them where nobody who can write the tables can change them: `verify` compares them.
        """
        owner = arguments.audited_tenant(tenant_id)
        async with self._session.reading() as connection:
            tenant_heads = await log.heads(connection, tenant=owner)
        if owner is not None and not tenant_heads:
            raise _no_rows()
        return AuditHeads(tenants=tuple(map(_head, tenant_heads)))

    async def verify(
        self, *, tenant_id: str, heads: str | None = None, on_progress: Progress | None = None
    ) -> VerifiedLog:
        """Verify that no row was altered, removed, inserted or moved, and that none is missing for an endpoint.

        An older copy of the whole log looks intact, unless `heads`, an earlier output of `hookseal audit heads --json`,
        shows it. `on_progress` is called with each tenant and the number of its valid rows so far. Raises `NotFound` if
        the one tenant has no rows.
        """
        owner, saved_heads = _tenant_and_heads(tenant_id, heads)
        async with self._session.changing(NOBODY) as operator:
            await operator.compare()
            key, source = operator.unlocked.integrity, operator.connection
            verified = await log.verify(source, key, tenant=owner, on_progress=on_progress)
            await operator.unlocked.versions.refresh()  # the key may have been rotated meanwhile
            if any(each.broken is not None and each.broken.reason is Flaw.UNKNOWN_KEY for each in verified):
                verified = await log.verify(source, key, tenant=owner, on_progress=on_progress)
            contradicted = await log.find_contradictions(source, key, saved_heads)
            stale = [each async for each in find_stale(source, owner)]
        unaudited = [each for each in stale if each.kind is StaleKind.UNAUDITED]
        return _result(owner, saved_heads, verified, contradicted, unaudited)

    async def verify_export(
        self,
        *,
        tenant_id: str,
        from_export: Iterable[bytes],
        heads: str | None = None,
        on_progress: Progress | None = None,
    ) -> VerifiedLog:
        """Verify the lines that `export` printed, without the table: only the integrity key is read.

        An export has no heads: only `heads` can show that rows were removed from its end. `on_progress` is called with
        a tenant and how many of its lines were read so far.
        """
        owner, saved_heads = _tenant_and_heads(tenant_id, heads)
        async with self._session.changing(NOBODY) as operator:
            await operator.compare()
            key = operator.unlocked.integrity
        verified, contradicted = verify_export(from_export, key, saved_heads, tenant=owner, on_progress=on_progress)
        if owner is None and not verified:
            raise Malformed("the file has no row: it is no export, or the export of an empty log", field="from_export")
        return _result(owner, saved_heads, verified, contradicted)

    async def export(self, *, tenant_id: str) -> AsyncGenerator[ExportedRow, None]:
        """Yield every row with its MACs, oldest first, one tenant after the other."""
        owner = arguments.audited_tenant(tenant_id)
        async with self._session.reading() as connection:
            async for row in log.export(connection, tenant=owner):
                yield of_row(ExportedRow, row)


def contradicted_head(head: Head, how: Contradiction) -> ContradictedHead:
    """Return a saved head that the log contradicts."""
    return ContradictedHead(
        tenant_id=head.tenant_id, head_sequence=head.sequence, head_mac=head.mac.hex(), how=how.value
    )


def facts_of(stale: Found) -> dict[str, object]:
    """Return what was found, as the fields of a result."""
    return {
        "tenant_id": stale.tenant_id,
        "endpoint_id": stale.endpoint_id,
        "kind": stale.kind.value,
        "generation": stale.generation,
        "audited_generation": stale.audited_generation,
    }


def stale_endpoint(stale: Found) -> StaleEndpoint:
    """Return what was found as a result."""
    return of_row(StaleEndpoint, facts_of(stale))


def _tenant_and_heads(tenant_id: str, heads: str | None) -> tuple[TenantId | None, tuple[Head, ...]]:
    owner = arguments.audited_tenant(tenant_id)
    saved_heads = () if heads is None else arguments.heads(heads)
    return owner, tuple(head for head in saved_heads if owner in {None, head.tenant_id})


def _result(
    owner: TenantId | None,
    saved_heads: Sequence[Head],
    verified: Sequence[Verified],
    contradicted: Sequence[tuple[Head, Contradiction]],
    unaudited: Sequence[Found] = (),
) -> VerifiedLog:
    # A mistyped tenant, or a log that was removed, must not be reported as intact.
    nothing = all(each.broken is None and each.head_sequence is None for each in verified)
    if owner is not None and nothing and not saved_heads and not unaudited:
        raise _no_rows()
    return VerifiedLog(
        intact=not contradicted and not unaudited and all(each.broken is None for each in verified),
        tenants=tuple(map(_verified, verified)),
        contradicted=tuple(contradicted_head(head, how) for head, how in contradicted),
        unaudited=tuple(map(stale_endpoint, unaudited)),
    )


def _verified(one: Verified) -> VerifiedTenant:
    broken = one.broken
    return VerifiedTenant(
        tenant_id=one.tenant_id,
        rows=one.rows,
        head_sequence=one.head_sequence,
        head_mac=one.head_mac,
        broken=None if broken is None else BrokenRow(sequence=broken.sequence, reason=broken.reason.value),
    )


def _head(head: Head) -> AuditHead:
    return AuditHead(
        tenant_id=head.tenant_id, head_sequence=head.sequence, head_mac=head.mac.hex(), is_plausible=head.is_plausible
    )


def _no_rows() -> NotFound:
    return NotFound(
        "the audit log has no rows of this tenant",
        advice="correct --tenant, or find out who removed its log",
        field="tenant_id",
    )
