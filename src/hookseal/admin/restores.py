"""What an Admin does after a restore: it finds rows that are older than the audit log says, and accepts them."""

from collections.abc import Callable

from hookseal.admin import arguments
from hookseal.admin.audit import contradicted_head
from hookseal.admin.results import AcceptedRestore, RefusedEndpoint, StaleEndpoint, StaleEndpoints, of_row
from hookseal.admin.session import NOBODY, Session
from hookseal.errors import Malformed
from hookseal.operations import restore as operations
from hookseal.secrets import restore
from hookseal.secrets.restore import StaleEndpoint as Found


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
            found = [one async for one in restore.find_stale(operator.connection, owner)]
            known = {one.endpoint_id for one in found}
            altered = restore.find_altered(operator.connection, operator.unlocked.integrity, owner)
            found += [one async for one in altered if one.endpoint_id not in known]
        return StaleEndpoints(items=tuple(map(_stale, found)), next_cursor=None)

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
        kept = arguments.heads(heads)
        owner = arguments.optional(arguments.tenant_id, tenant_id)
        wanted = arguments.optional(arguments.endpoint_id, endpoint_id)
        async with self._session.changing(actor) as operator:
            if owner is None or wanted is None:
                accepted = await operations.accept_restore(operator, kept, on_progress=on_progress)
            else:
                accepted = await operations.accept_endpoint(operator, owner, wanted)
        return AcceptedRestore(
            epoch=accepted.epoch,
            woken=accepted.woken,
            accepted=tuple(map(_stale, accepted.endpoints)),
            refused=tuple(of_row(RefusedEndpoint, _facts(found), reason=reason) for found, reason in accepted.refused),
            contradicted=tuple(contradicted_head(head, how) for head, how in accepted.contradicted),
        )


def _facts(found: Found) -> dict[str, object]:
    return {
        "tenant_id": found.tenant_id,
        "endpoint_id": found.endpoint_id,
        "kind": found.kind.value,
        "generation": found.generation,
        "audited_generation": found.audited_generation,
    }


def _stale(found: Found) -> StaleEndpoint:
    return of_row(StaleEndpoint, _facts(found))
