"""Finds rows that contradict the audit log, for instance after a restore, and accepts them."""

from collections.abc import Callable

from hookseal.admin import arguments
from hookseal.admin.audit import contradicted_head, facts_of, stale_endpoint
from hookseal.admin.results.base import of_row
from hookseal.admin.results.restores import AcceptedRestore, RefusedEndpoint, StaleEndpoints
from hookseal.admin.session import NOBODY, Session
from hookseal.errors import Malformed
from hookseal.operations import restore as operations
from hookseal.secrets import restore


class Restores:
    """Finds and accepts stale rows. Actor and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def check(self, *, tenant_id: str) -> StaleEndpoints:
        """Return the endpoints that contradict the audit log or their MACs; `*` is every tenant.

        They cannot show whether all of the database is stale: `audit.verify` with heads does.
        """
        owner = arguments.tenant_or_every(tenant_id)
        async with self._session.changing(NOBODY) as operator:
            await operator.compare()
            found = restore.find_all(operator.connection, operator.unlocked.integrity, owner)
            items = tuple([stale_endpoint(each) async for each in found])
        return StaleEndpoints(items=items, next_cursor=None)

    async def accept(
        self,
        *,
        heads: str,
        actor: str,
        tenant_id: str | None = None,
        endpoint_id: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> AcceptedRestore:
        """Accept the rows as they are, or only one endpoint of a tenant, and release the deliveries that are held.

        `heads` is an earlier output of `hookseal audit heads --json`: what the log lacks of them is on record then; for
        one endpoint they are only checked. `on_progress` is called with the number of endpoints that were looked at.
        """
        if (tenant_id is None) != (endpoint_id is None):
            raise Malformed("tenant_id and endpoint_id go together: give both, or none", field="endpoint_id")
        saved_heads = arguments.heads(heads)
        owner = arguments.optional(arguments.tenant_id, tenant_id)
        endpoint = arguments.optional(arguments.endpoint_id, endpoint_id)
        async with self._session.changing(actor) as operator:
            if owner is None or endpoint is None:
                accepted = await operations.accept_restore(operator, saved_heads, on_progress=on_progress)
            else:
                accepted = await operations.accept_endpoint(operator, owner, endpoint)
        return AcceptedRestore(
            epoch=accepted.epoch,
            woken=accepted.woken,
            accepted=tuple(map(stale_endpoint, accepted.endpoints)),
            refused=tuple(
                of_row(RefusedEndpoint, facts_of(stale), reason=reason) for stale, reason in accepted.refused
            ),
            contradicted=tuple(contradicted_head(head, how) for head, how in accepted.contradicted),
        )
