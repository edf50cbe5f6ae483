"""Replays deliveries: due again with a new budget, under their own ids or a new one. Skips those that stop a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.model import State, WaitingFor
from hookseal.ground.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.postgres.handles import Connection
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "replay.sql", seconds=None)
_UNFINISHED: Final = frozenset({State.PENDING, State.SENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A delivery that is pending again. `replay_of` is the delivery that it repeats, if it has a new id.

    `waiting_for` says why it is held, if its endpoint is; otherwise it is due. `before` is the previous state and the
    number of attempts of the delivery that was replayed.
    """

    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    event_id: EventId
    replay_of: DeliveryId | None
    waiting_for: WaitingFor | None
    before: tuple[State, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A delivery that no longer stops the line of its endpoint; its `state` stays."""

    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    state: State


async def replay(
    connection: Connection, delivery_id: DeliveryId, *, new_id: bool, tenant: TenantId | None = None
) -> Replayed:
    """Make the delivery due at once, in the caller's transaction; the outbox rings it after the commit.

    If its endpoint is held or has no room, it waits with its other deliveries. Its budget is new, and its attempt
    numbers continue. A delivery that is to be tried again later keeps its budget.
    With `new_id` the delivery is not changed, and a new delivery of the same event is created. Raises `NotFound` if it,
    by default of any tenant, or its endpoint does not exist, `Conflict` if it is held, due already or being sent, or
    with `new_id` not finished, `Refused` if the endpoint is disabled, `Unavailable`.
    """
    enabled = await _SQL.value(connection, "endpoint_of", delivery_id, tenant)
    row = await _SQL.row(connection, "lock", delivery_id)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise NotFound("there is no delivery with this id", field="delivery")
    tenant = TenantId(row["tenant_id"])
    state = State(row["state"])
    hastened = bool(row["is_put_off"]) and not new_id
    if state in _UNFINISHED and not hastened:
        raise Conflict(f"the delivery is {state}, not finished: there is nothing to replay yet", field="delivery")
    _require_enabled(enabled, tenant, EndpointId(row["endpoint_id"]))
    statement = "hasten" if hastened else "repeat" if new_id else "again"
    [replayed] = await _SQL.rows(connection, statement, tenant, [delivery_id])
    return Replayed(
        tenant_id=tenant,
        delivery_id=DeliveryId(replayed["id"]),
        endpoint_id=EndpointId(row["endpoint_id"]),
        event_id=EventId(row["event_id"]),
        replay_of=delivery_id if new_id else row["replay_of"],
        waiting_for=None if replayed["waiting_for"] is None else WaitingFor(replayed["waiting_for"]),
        before=(state, row["attempts"]),
    )


async def replay_all(connection: Connection, tenant: TenantId, deliveries: Sequence[str]) -> int:
    """Make these finished deliveries due at once, each with a new budget, in the caller's transaction; return how many.

    Those of a held endpoint are held with it. A delivery that is not finished any more, or whose endpoint is gone, is
    not changed. Raises `Unavailable`.
    """
    return len(await _SQL.rows(connection, "again", tenant, deliveries))


async def skip(connection: Connection, delivery_id: DeliveryId, *, tenant: TenantId | None = None) -> Skipped:
    """Take a delivery that was given up out of the line that it stops, in the caller's transaction.

    The leader makes the next delivery of the line due after the commit. Raises `NotFound` if it does not exist, by
    default of any tenant, `Conflict` if it stops no line, and `Unavailable`.
    """
    row = await _SQL.row(connection, "lock", delivery_id)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise NotFound("there is no delivery with this id", field="delivery")
    tenant, endpoint_id = TenantId(row["tenant_id"]), EndpointId(row["endpoint_id"])
    if not await _SQL.execute(connection, "skip", tenant, delivery_id, endpoint_id):
        raise Conflict(
            f"the delivery is {row['state']} and stops no line: only a dead letter or a failed delivery of an ordered "
            "endpoint that stops can be skipped",
            field="delivery",
        )
    return Skipped(tenant_id=tenant, delivery_id=delivery_id, endpoint_id=endpoint_id, state=State(row["state"]))


async def skip_all(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Take whatever stops the line of this endpoint out of it. Raises `Unavailable`."""
    await _SQL.execute(connection, "skip", tenant, None, endpoint_id)


async def require_endpoint(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return if the endpoint exists and is enabled, which then holds until the caller's transaction ends.

    Raises `NotFound`, `Refused` if it is disabled, and `Unavailable`.
    """
    _require_enabled(await _SQL.value(connection, "endpoint", tenant, endpoint_id), tenant, endpoint_id)


def _require_enabled(enabled: bool | None, tenant: TenantId, endpoint_id: EndpointId) -> None:  # noqa: FBT001 -- read
    if enabled is None:
        raise NotFound("the endpoint is gone: there is nowhere to replay to", field="endpoint")
    if not enabled:
        raise Refused(
            "the endpoint is disabled: "
            f"first run `hookseal endpoint enable --tenant {tenant} --endpoint {endpoint_id}`",
            field="endpoint",
        )
