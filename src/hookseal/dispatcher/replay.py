"""Replays one delivery: due again with a fresh budget, under its own id or under a new one."""

from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import State
from hookseal.ground.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.dispatcher", "replay.sql")
_ON_ITS_WAY: Final = frozenset({State.PENDING, State.SENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A delivery that is pending again. `replay_of` is the one that it repeats under an id of its own, if it does.

    `before` is the state, and the number of attempts, of the delivery that was asked for.
    """

    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    event_id: EventId
    replay_of: DeliveryId | None
    before: tuple[State, int]


async def replay(connection: Connection, wanted: DeliveryId, *, new_id: bool) -> Replayed:
    """Make the delivery due at once, in the caller's transaction; the outbox rings it after the commit.

    Its attempt numbers go on, with a fresh budget; with `new_id` it stays as it is and a new delivery of the
    same event is made. Raises `NotFound` if it or its endpoint is not there, `Conflict` while it is on its
    way, `Refused` if the endpoint is disabled, `Unavailable`.
    """
    with translated():
        row = await connection.fetchrow(_SQL["lock"], wanted)
        if row is None:
            raise NotFound("there is no delivery with this id", field="delivery")
        tenant = TenantId(row["tenant_id"])
        state = State(row["state"])
        if state in _ON_ITS_WAY:
            raise Conflict(
                f"the delivery is {state}, still on its way: there is nothing to replay yet", field="delivery"
            )
        await _require_endpoint(connection, tenant, EndpointId(row["endpoint_id"]))
        made: str = await connection.fetchval(_SQL["repeat" if new_id else "again"], tenant, wanted)
    return Replayed(
        tenant_id=tenant,
        delivery_id=DeliveryId(made),
        endpoint_id=EndpointId(row["endpoint_id"]),
        event_id=EventId(row["event_id"]),
        replay_of=wanted if new_id else row["replay_of"],
        before=(state, row["attempts"]),
    )


async def _require_endpoint(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    enabled = await connection.fetchval(_SQL["endpoint"], tenant, endpoint_id)
    if enabled is None:
        raise NotFound("the endpoint of this delivery is gone: there is nowhere to replay it to", field="endpoint")
    if not enabled:
        raise Refused(
            "the endpoint is disabled: "
            f"first run `hookseal endpoint enable --tenant {tenant} --endpoint {endpoint_id}`",
            field="endpoint",
        )
