"""Searches deliveries, also by the secret that signed them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import delivery_queries, event_queries
from hookseal.dispatcher.store.delivery_queries import MAX_WALKED, Filter
from hookseal.errors import Malformed
from hookseal.ground.ids import EventId, TenantId
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.store import version_report


def checked(filter_: Filter) -> Filter:
    """Return the filter, with the tenant and the endpoint of the secret in `signed_by`.

    Raises `Malformed` with the field if conditions contradict each other, or need a tenant.
    """
    if filter_.signed_by is not None:
        if filter_.event_id is not None or filter_.correlation_id is not None:
            raise Malformed("signed_by cannot be combined with an event id or a correlation id", field="signed_by")
        version, owner = version_report.signing_ref(filter_.signed_by)
        if filter_.tenant_id not in {None, version.tenant}:
            raise Malformed("the secret is of another tenant: leave one of them out", field="signed_by")
        if filter_.endpoint_id not in {None, owner}:
            raise Malformed("the secret is of another endpoint: leave one of them out", field="signed_by")
        return replace(filter_, tenant_id=version.tenant, endpoint_id=owner, signed_by=str(version))
    if filter_.tenant_id is None:
        for name in ("event_id", "correlation_id"):
            if getattr(filter_, name) is not None:
                raise Malformed(
                    f"{name.replace('_', ' ')}s are those of a tenant", advice="name it with --tenant", field=name
                )
    return filter_


async def page(
    executor: Executor, filter_: Filter, *, limit: int, cursor: str | None, walked: int = MAX_WALKED
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of deliveries for a `checked` filter. Raises as `delivery_queries.page` does.

    Raises `NotFound` if the secret in `signed_by` never existed.
    """
    items, following = await delivery_queries.page(executor, filter_, limit=limit, cursor=cursor, walked=walked)
    if filter_.signed_by is not None and not items:
        await version_report.require_known(executor, SecretRef.parse(filter_.signed_by))
    return items, following


async def read_payload(operator: Operator, tenant: TenantId, event_id: EventId) -> bytes:
    """Audit and return the body of the event, byte for byte as it is sent. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        body = await event_queries.body(connection, tenant, event_id)
        await operator.audit(
            Action.PAYLOAD_READ, of=f"event:{event_id}", tenant=tenant, after={"body_bytes": len(body)}
        )
    return body


async def read_payloads(
    operator: Operator, tenant: TenantId, event_ids: Sequence[EventId], *, most_bytes: int
) -> dict[str, bytes]:
    """Audit and return the body of each of these events that exists, by its id, within `most_bytes` as `bodies` says.

    If none exists, nothing was read, and nothing is audited. Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        bodies = await event_queries.bodies(connection, tenant, event_ids, most_bytes=most_bytes)
        if bodies:
            facts = {"event_ids": sorted(bodies), "body_bytes": sum(map(len, bodies.values()))}
            await operator.audit(Action.PAYLOAD_READ, of="events", tenant=tenant, after=facts)
    return bodies
