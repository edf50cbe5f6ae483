"""The tenants of an Admin: the customers of the product, whose events, endpoints and secrets hookseal keeps."""

from collections.abc import Mapping

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.status import TenantBacklog
from hookseal.admin.results.tenants import DeletedTenant, Tenant
from hookseal.admin.session import Session
from hookseal.dispatcher.store import backlog, tenants
from hookseal.ground.unset import UNSET, Unset
from hookseal.operations.tenants import add_tenant, delete_tenant, update_tenant
from hookseal.postgres.pool import Connection


class Tenants:
    """Adds, lists, changes and deletes tenants. Actor, connection and errors are as for `Endpoints`.

    Nobody must add a tenant: one that gets an endpoint is known. `tenant_id` may be the uid of a tenant here, since an
    id and a uid never mean different tenants; the methods of other groups take the id.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(
        self,
        *,
        actor: str,
        tenant_id: str | None = None,
        uid: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        connection: Connection | None = None,
    ) -> Tenant:
        """Add a tenant, also under the id of a deleted one of which no event and no delivery is kept.

        Its id is the given one; else its uid, if that can be an id; else a new one, `app_` and 32 hexadecimal digits.
        Raises `Conflict` if the id or the uid is taken, and `Malformed` if both are given and differ although the uid
        can be an id.
        """
        new = arguments.new_tenant(tenant_id, uid, name, metadata)
        async with self._session.changing(actor, connection) as operator:
            return of_row(Tenant, await add_tenant(operator, new))

    async def get(self, *, tenant_id: str, connection: Connection | None = None) -> Tenant:
        """Return the tenant with this id or uid. Raises `NotFound`, also if it is deleted."""
        wanted = arguments.tenant_or_uid(tenant_id)
        async with self._session.reading(connection) as db:
            return of_row(Tenant, await tenants.get(db, wanted))

    async def list(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        oldest_first: bool = False,
        with_backlog: bool = False,
        connection: Connection | None = None,
    ) -> Page[Tenant]:
        """Return up to `limit` (1 to 1000) tenants behind the one with the id `after`, the newest or the oldest first.

        `next_cursor` is the `after` of the next page. If that is asked for, each has its `backlog`.
        """
        arguments.page(limit, None)
        last = arguments.optional(arguments.after, after)
        order, is_counted = arguments.flag(oldest_first, "oldest_first"), arguments.flag(with_backlog, "with_backlog")
        async with self._session.reading(connection) as db:
            items, following = await tenants.page(db, limit=limit, after=last, oldest_first=order)
            counted = await backlog.of_tenants(db, [item["tenant_id"] for item in items]) if is_counted else {}
        backlogs = {tenant: of_row(TenantBacklog, figures) for tenant, figures in counted.items()}
        found = tuple(of_row(Tenant, item, backlog=backlogs.get(item["tenant_id"])) for item in items)
        return Page(items=found, next_cursor=following)

    async def update(
        self,
        *,
        tenant_id: str,
        actor: str,
        uid: str | Unset | None = UNSET,
        name: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        connection: Connection | None = None,
    ) -> Tenant:
        """Change what is given; None removes, and `metadata` replaces all. The id stays.

        Raises `Conflict` if another tenant has the uid, and `Refused` for a uid that could be the id of another tenant.
        """
        wanted, changes = arguments.tenant_or_uid(tenant_id), arguments.tenant_changes(uid, name, metadata)
        async with self._session.changing(actor, connection) as operator:
            return of_row(Tenant, await update_tenant(operator, wanted, changes))

    async def delete(self, *, tenant_id: str, actor: str, connection: Connection | None = None) -> DeletedTenant:
        """Delete the tenant with all its endpoints, and revoke its tokens, in one transaction.

        Pending deliveries are cancelled; its events and finished deliveries stay until the retention. Its id is taken
        until then, and a new endpoint of it is a `Conflict`. Rights of producers stay. Raises `Conflict` if it has more
        than 100 endpoints.
        """
        wanted = arguments.tenant_or_uid(tenant_id)
        async with self._session.changing(actor, connection) as operator:
            deleted = await delete_tenant(operator, wanted)
        return DeletedTenant(
            tenant_id=deleted.tenant_id,
            endpoints=deleted.endpoints,
            cancelled=deleted.cancelled,
            tokens=deleted.tokens,
        )
