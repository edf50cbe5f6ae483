"""What an operator watches: the audit log of a tenant, and how much there is in the whole installation."""

from typing import Annotated, Any, Final

import msgspec

from hookseal.admin import AuditRow, Scope
from hookseal.api.call import OURS, OWN, Asked, Call, NoQuery, Out, read
from hookseal.api.paging import ListOut, Paged, following, one_way
from hookseal.audit.chain import Action, cursor_of


class Audited(Paged):
    """Which rows of the audit log a list has."""

    action: Action | None = None


class AuditRowOut(Out):
    """Who changed what. `id` is the number of the row in the log of its tenant; `before` and `after` have the facts."""

    id: str
    at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | str | None
    after: dict[str, Any] | str | None
    correlation_id: str | None


class OverviewOut(Out):
    """How much there is in the installation. A count of `most` means so many or more.

    Of the `pending` deliveries, `waiting` ones wait for something else than their time. A worker is live if it was
    heard of in the last 30 seconds.
    """

    tenants: int
    endpoints: int
    disabled_endpoints: int
    failing_endpoints: int
    held_endpoints: int
    pending: int
    waiting: int
    sending: int
    dead_letters: int
    failed: int
    running_replays: int
    live_workers: int
    most: int


def _shown(row: AuditRow) -> AuditRowOut:
    """Return a row without the database role of the process, which no customer knows."""
    _, _, who = row.actor.partition("/")
    return AuditRowOut(
        id=str(row.sequence),
        at=row.at,
        actor=who or row.actor,
        action=row.action,
        subject=row.subject,
        before=row.before if isinstance(row.before, str | None) else dict(row.before),
        after=row.after if isinstance(row.after, str | None) else dict(row.after),
        correlation_id=row.correlation_id,
    )


async def audit(asked: Asked[Audited, None]) -> ListOut[AuditRowOut]:
    """List the audit log of an application, the newest row first."""
    after = following(asked.query.iterator)
    page = await asked.admin.audit.list(
        tenant_id=asked.tenant,
        action=asked.query.action,
        limit=asked.query.limit,
        cursor=None if after is None else cursor_of({"tenant_id": asked.tenant, "sequence": after}),
    )
    rows = [_shown(each) for each in page.items]
    return one_way(rows, [each.id for each in rows], done=page.next_cursor is None)


async def overview(asked: Asked[NoQuery, None]) -> OverviewOut:
    """Count what there is in the whole installation."""
    counts = await asked.admin.overview()
    return OverviewOut(**{name: getattr(counts, name) for name in OverviewOut.__struct_fields__})


CALLS: Final[tuple[Call, ...]] = (
    read(
        *("hookseal.audit.list", OWN + "/audit", audit),
        query=Audited,
        result=ListOut[AuditRowOut],
        names={"cursor": "iterator"},
    ),
    Call(
        name="hookseal.overview",
        method="GET",
        path=OURS + "/overview",
        scopes=frozenset({Scope.OPERATE}),
        handler=overview,
        result=OverviewOut,
        of_every_tenant=True,
    ),
)
