"""The deliveries of an Admin: what was sent to the endpoints of a tenant, and what came back."""

from collections.abc import Sequence
from datetime import datetime

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.deliveries import (
    AttemptRecord,
    Delivery,
    DeliveryDetails,
    ReplayedDelivery,
    SkippedDelivery,
)
from hookseal.admin.session import Session
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.why import Explanation, explain
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.delivery_queries import MAX_WALKED, Filter
from hookseal.dispatcher.store.replays import Replayed
from hookseal.ground.literals import DeliveryState
from hookseal.operations import deliveries as operations
from hookseal.operations.replay import replay_delivery, resend_delivery, skip_delivery
from hookseal.postgres.pool import Connection


class Deliveries:
    """Searches, replays and skips deliveries. Actor, connection and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        event_type: str | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        channel: str | None = None,
        states: Sequence[State | DeliveryState] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        signed_by: str | None = None,
        searched: int = MAX_WALKED,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[Delivery]:
        """Return up to `limit` (1 to 1000) deliveries for which every given condition is true, the newest first.

        `*` is every tenant. They are in one of the `states`, of events in the `channel`. They were made at `since` or
        later, and before `until`, as for `replays.start`. `signed_by` is the reference of a secret. A page searches at
        most `searched` deliveries, 1 to 250,000, so it may have few items and a next page.
        """
        filter_ = operations.checked(
            Filter(
                tenant_id=arguments.tenant_or_every(tenant_id),
                endpoint_id=arguments.optional(arguments.endpoint_id, endpoint_id),
                event_type=arguments.optional(arguments.event_type, event_type),
                event_id=arguments.optional(arguments.event_id, event_id),
                correlation_id=arguments.optional(arguments.correlation_id, correlation_id),
                channel=arguments.optional(arguments.channel, channel),
                states=None if states is None else arguments.delivery_states(states),
                since=arguments.moment(since, "since"),
                until=arguments.moment(until, "until"),
                signed_by=arguments.optional(arguments.signed_by, signed_by),
            )
        )
        arguments.page(limit, cursor)
        walked = arguments.searched(searched)
        async with self._session.reading(connection) as db:
            items, following = await operations.page(db, filter_, limit=limit, cursor=cursor, walked=walked)
        return Page(items=tuple(of_row(Delivery, item) for item in items), next_cursor=following)

    async def get(self, *, tenant_id: str, delivery_id: str, connection: Connection | None = None) -> DeliveryDetails:
        """Return a delivery of the tenant with every attempt."""
        owner, delivery = self._session.tenant_of_one(tenant_id), arguments.delivery_id(delivery_id)
        async with self._session.reading(connection) as db:
            row = await delivery_queries.show(db, delivery, tenant=owner)
        log = tuple(of_row(AttemptRecord, attempt) for attempt in row["attempt_log"])
        return of_row(DeliveryDetails, row, attempt_log=log)

    async def why(self, *, tenant_id: str, delivery_id: str, connection: Connection | None = None) -> Explanation:
        """Explain where a delivery of the tenant stands: what it waits for, since when, and what releases it."""
        owner, delivery = self._session.tenant_of_one(tenant_id), arguments.delivery_id(delivery_id)
        async with self._session.reading(connection) as db:
            return explain(await delivery_queries.facts(db, delivery, tenant=owner))

    async def replay(
        self,
        *,
        tenant_id: str,
        delivery_id: str,
        actor: str,
        new_id: bool = False,
        connection: Connection | None = None,
    ) -> ReplayedDelivery:
        """Send a finished delivery of the tenant again, with a new budget of attempts, or a waiting one at once.

        With `new_id` it gets a new webhook-id, so that the receiver processes it again. Raises
        `Conflict` if it is not finished and has no later attempt to wait for: its `advice` says what it waits for.
        Raises `Refused` if its endpoint is disabled.
        """
        owner, delivery = self._session.tenant_of_one(tenant_id), arguments.delivery_id(delivery_id)
        is_new = arguments.flag(new_id, "new_id")
        async with self._session.changing(actor, connection, tenant=owner) as operator, operator.changing() as db:
            return await _explained(db, await replay_delivery(operator, delivery, new_id=is_new, tenant=owner))

    async def resend(
        self,
        *,
        tenant_id: str,
        event_id: str,
        endpoint_id: str,
        actor: str,
        resend_id: str | None = None,
        connection: Connection | None = None,
    ) -> ReplayedDelivery:
        """Send the event to the endpoint again: replay its newest delivery there. It keeps its id.

        With a `resend_id` of 1 to 128 characters that has sent it already it changes nothing, and returns what it did;
        while a call with it has not ended, this one waits for that, up to 4.5 s.
        Raises as `replay` does, and `NotFound` if the event was never for the endpoint.
        """
        owner, event = arguments.tenant_id(tenant_id), arguments.event_id(event_id)
        endpoint = arguments.endpoint_id(endpoint_id)
        resend = None if resend_id is None else arguments.resend_id(resend_id)
        async with self._session.changing(actor, connection, tenant=owner) as operator, operator.changing() as db:
            return await _explained(db, await resend_delivery(operator, owner, event, endpoint, resend_id=resend))

    async def skip(
        self, *, tenant_id: str, delivery_id: str, actor: str, connection: Connection | None = None
    ) -> SkippedDelivery:
        """Let an ordered endpoint go on behind a dead letter or a failed delivery that stops it.

        The delivery stays what it is, and a later replay sends it after all others. Raises
        `Conflict` if it stops nothing.
        """
        owner, delivery = self._session.tenant_of_one(tenant_id), arguments.delivery_id(delivery_id)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            skipped = await skip_delivery(operator, delivery, tenant=owner)
        return SkippedDelivery(
            tenant_id=skipped.tenant_id,
            delivery_id=skipped.delivery_id,
            endpoint_id=skipped.endpoint_id,
            state=skipped.state.value,
        )


async def _explained(db: Connection, replayed: Replayed) -> ReplayedDelivery:
    """Return the result, with what the delivery waits for if it is held."""
    explanation = None
    if replayed.waiting_for is not None:
        explanation = explain(await delivery_queries.facts(db, replayed.delivery_id))
    return ReplayedDelivery(
        tenant_id=replayed.tenant_id,
        delivery_id=replayed.delivery_id,
        endpoint_id=replayed.endpoint_id,
        event_id=replayed.event_id,
        replay_of=replayed.replay_of,
        state=State.PENDING.value,
        waiting_for=None if replayed.waiting_for is None else replayed.waiting_for.value,
        explanation=explanation,
    )
