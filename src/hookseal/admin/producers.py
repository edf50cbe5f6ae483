"""The producers of an Admin: which database roles may publish, and for which tenants."""

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.tenants import GrantedProducer, Producer, RevokedProducer
from hookseal.admin.session import Session
from hookseal.dispatcher.store import producers
from hookseal.operations.producers import grant, revoke
from hookseal.postgres.pool import Connection


class Producers:
    """Lets database roles publish for tenants. Actor, connection and errors are as for `Endpoints`.

    The tenant `*` is every tenant.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def grant(
        self, *, role: str, tenant_id: str, actor: str, connection: Connection | None = None
    ) -> GrantedProducer:
        """Let the role publish for the tenant. Raises `NotFound` if PostgreSQL has no such role.

        Raises `Refused` for a group role of hookseal, and, with the statement to run, if this database role may not
        grant it.
        """
        publisher, tenant = arguments.producer_role(role), arguments.producer_tenant(tenant_id)
        async with self._session.changing(actor, connection) as operator:
            granted = await grant(operator, publisher, tenant)
        return GrantedProducer(
            role=granted.role, tenant_id=granted.tenant_id, granted_at=granted.granted_at, changed=granted.changed
        )

    async def revoke(
        self, *, role: str, tenant_id: str, actor: str, connection: Connection | None = None
    ) -> RevokedProducer:
        """Revoke the right of the role to publish for the tenant, at once. Raises `NotFound` if it has none."""
        publisher, tenant = arguments.producer_role(role), arguments.producer_tenant(tenant_id)
        async with self._session.changing(actor, connection) as operator:
            revoked = await revoke(operator, publisher, tenant)
        return RevokedProducer(
            role=revoked.role,
            tenant_id=revoked.tenant_id,
            left_to_run=revoked.statement,
            still_for_every_tenant=revoked.still_for_every_tenant,
        )

    async def list(
        self, *, role: str | None = None, tenant_id: str | None = None, connection: Connection | None = None
    ) -> Page[Producer]:
        """Return the rights of one role or of all, for one tenant (`*`: for every tenant) or all, on one page."""
        publisher = arguments.optional(arguments.producer_role, role)
        tenant = arguments.optional(arguments.producer_tenant, tenant_id)
        async with self._session.reading(connection) as db:
            rights = await producers.every(db, role=publisher, tenant=tenant)
        return Page(items=tuple(of_row(Producer, each) for each in rights), next_cursor=None)
