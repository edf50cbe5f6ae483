"""Reads deliveries and their attempts for an operator."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.core.model import State, WaitingFor
from hookseal.dispatcher.core.why import EndpointFacts, Facts, LastAttempt
from hookseal.errors import NotFound
from hookseal.ground import ids
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId, before, encode_cursor, paged, require_limit
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

MAX_WALKED: Final = 250_000  # deliveries that one page reads to find those that match: about a second
MAX_COUNTED: Final = 5_000  # deliveries of an endpoint that one call counts: so it is answered within 20 ms
FEW: Final = 10_000  # so many unfinished deliveries are read and sorted for each page
_NEWEST: Final = str(UUID(int=2**128 - 1))
_LONGEST_AGO: Final = str(UUID(int=0))
_UNDELIVERED: Final = frozenset({State.DEAD_LETTER, State.FAILED, State.CANCELLED})
_UNFINISHED: Final = frozenset({State.PENDING, State.SENDING})

_SQL: Final = Statements("hookseal.dispatcher.store", "delivery_queries.sql", seconds=None)
_ATTEMPT: Final = (
    "number", "manual", "url", "started_at", "duration_ms", "status", "outcome", "signed_by", "worker", "snippet",
)  # fmt: skip
_OF_EVENTS: Final = "page_of_events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which deliveries to list: every condition that is set must be true.

    They were made at `since` or later, and before `until`, by the times in their ids, as for a replay job. With
    `event_id` or `correlation_id` the tenant must be set.
    `signed_by` is the reference of a secret of the endpoint; tenant and endpoint must then be set. It selects the
    deliveries with an attempt that this secret signed, or with a claim in flight that has read it.
    """

    tenant_id: TenantId | None = None
    endpoint_id: EndpointId | None = None
    event_type: str | None = None
    states: tuple[State, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    event_id: EventId | None = None
    correlation_id: str | None = None
    channel: str | None = None
    signed_by: str | None = None


async def page(
    executor: Executor,
    conditions: Filter,
    *,
    limit: int,
    cursor: str | None,
    walked: int = MAX_WALKED,
    few: int = FEW,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` deliveries, newest first, and the cursor of the next page, None after the last.

    With states in which deliveries end undelivered it reads those in these states, else those of the endpoint, else of
    the tenant, else all; it ends the page after `walked` of them, even if few match. If only deliveries are wanted
    which are pending or being sent, and all tenants have at most `few`, it reads only these.

    Raises `Malformed` for an invalid cursor or a limit outside 1 to 1000, `NotFound` without `signed_by` if the
    endpoint never existed (a deleted one has deliveries until they leave), `Unavailable`.
    """
    require_limit(limit)
    arguments = (
        conditions.tenant_id,
        conditions.endpoint_id,
        conditions.event_type,
        None if conditions.states is None else [state.value for state in conditions.states],
        before(cursor) or (_NEWEST if conditions.until is None else ids.first_uuid7_after(conditions.until)),
        limit + 1,
        conditions.signed_by,
        walked,
        _LONGEST_AGO if conditions.since is None else ids.first_uuid7(conditions.since),
        conditions.channel,
    )
    statement = await _statement(executor, conditions, min(few, walked))
    of_events = (conditions.event_id, conditions.correlation_id) if statement == _OF_EVENTS else ()
    rows = await _SQL.rows(executor, statement, *arguments, *of_events)
    if not rows and conditions.endpoint_id is not None and conditions.signed_by is None:
        await require_endpoint(executor, conditions.endpoint_id, conditions.tenant_id)
    return _page_of_matches([dict(row) for row in rows], limit)


async def show(executor: Executor, delivery_id: DeliveryId, *, tenant: TenantId | None = None) -> dict[str, Any]:
    """Return one delivery, by default of any tenant, with its attempts, oldest first, as docs/commands.md shows it.

    Raises `NotFound`, `Unavailable`.
    """
    rows = [dict(row) for row in await _SQL.rows(executor, "show", delivery_id, tenant)]
    if not rows:
        raise NotFound("there is no delivery with this id", field="delivery_id")
    attempts = [{name: row.pop(name) for name in _ATTEMPT} for row in rows]
    return rows[0] | {"attempt_log": [attempt for attempt in attempts if attempt["number"] is not None]}


async def latest(executor: Executor, tenant: TenantId, event_id: EventId, endpoint_id: EndpointId) -> DeliveryId:
    """Return the newest delivery of the event to the endpoint. Raises `NotFound`, `Unavailable`."""
    found: str | None = await _SQL.value(executor, "latest", tenant, event_id, endpoint_id)
    if found is None:
        raise NotFound("the tenant has no delivery of this event to this endpoint", field="event_id")
    return DeliveryId(found)


async def count_by_state(
    executor: Executor,
    tenant: TenantId,
    endpoint_id: EndpointId,
    *,
    since: datetime | None,
    until: datetime | None,
    walked: int = MAX_COUNTED,
) -> tuple[Counter[State], bool]:
    """Return how many deliveries of the endpoint are in each state, and whether these are all.

    They were made at `since` or later, and before `until`, by the times in their ids; the newest `walked` of them are
    counted. Raises `NotFound` if the endpoint never existed, `Unavailable`.
    """
    rows = await _SQL.rows(
        executor,
        "count_by_state",
        tenant,
        endpoint_id,
        _LONGEST_AGO if since is None else ids.first_uuid7(since),
        _NEWEST if until is None else ids.first_uuid7_after(until),
        walked,
    )
    if not rows:
        await require_endpoint(executor, endpoint_id, tenant)
    counts = Counter({State(row["state"]): row["deliveries"] for row in rows})
    return counts, counts.total() < walked


async def facts(executor: Executor, delivery_id: DeliveryId, *, tenant: TenantId | None = None) -> Facts:
    """Return what `why.explain` needs to know of the delivery, by default of any tenant.

    Raises `NotFound`, `Unavailable`.
    """
    record = await _SQL.row(executor, "why", delivery_id, LIVE_SECONDS)
    if record is None or tenant not in {None, record["tenant_id"]}:
        raise NotFound("there is no delivery with this id", field="delivery_id")
    row = dict(record)
    attempt = {name: row.pop(name) for name in ("number", "outcome", "status", "ended_at")}
    of_endpoint = ("enabled", "disabled_reason", "disabled_at", "attempts_allowed", "rate")
    endpoint = {name: row.pop(name) for name in of_endpoint}
    return Facts(
        **row
        | {
            "state": State(row["state"]),
            "ahead_state": None if row["ahead_state"] is None else State(row["ahead_state"]),
            "waiting_for": None if row["waiting_for"] is None else WaitingFor(row["waiting_for"]),
            "held_for": None if row["held_for"] is None else WaitingFor(row["held_for"]),
            "last_attempt": None if attempt["number"] is None else LastAttempt(**attempt),
            "endpoint": None if endpoint["enabled"] is None else EndpointFacts(**endpoint),
        }
    )


async def _statement(executor: Executor, conditions: Filter, few: int) -> str:
    """Return the statement whose index has the fewest deliveries to read."""
    if conditions.event_id is not None or conditions.correlation_id is not None:
        return _OF_EVENTS
    states = frozenset(conditions.states or ())
    if states and states <= _UNDELIVERED and conditions.signed_by is None:
        return "page_of_states"
    if conditions.endpoint_id is not None:
        return "page_of_endpoint"
    if states and states <= _UNFINISHED:
        unfinished = await _SQL.value(executor, "count_unfinished", [state.value for state in states], few + 1)
        if unfinished <= few:
            return "page_of_few"
    return "page_of_all" if conditions.tenant_id is None else "page_of_tenant"


def _page_of_matches(rows: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return the matching deliveries. The cursor is the last one of a full page, or else the last one that was read."""
    ended_with = rows[-1]["delivery_id"] if rows and rows[-1]["is_end"] else None
    matches = [{name: row[name] for name in row if name not in {"matches", "is_end"}} for row in rows if row["matches"]]
    items, following = paged(matches, limit, "delivery_id")
    return items, following or (None if ended_with is None else encode_cursor(ended_with))


async def require_endpoint(executor: Executor, endpoint: EndpointId, tenant: TenantId | None) -> None:
    """Return if an endpoint of the tenant, by default of any, exists or has deliveries. Raises `NotFound`."""
    if not await _SQL.value(executor, "has_endpoint", endpoint, tenant):
        missing = "there is no such endpoint" if tenant is None else "the tenant has no such endpoint"
        raise NotFound(missing, field="endpoint_id")


_SECRET_USAGE: Final = Statements("hookseal.dispatcher.store", "secret_usage.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How much one version has signed, and how many claims with a valid lease have read it."""

    attempts: int = 0
    last_signed_at: datetime | None = None
    claims_in_flight: int = 0


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> Mapping[str, Use]:
    """Return the use of every reference that ever signed for the endpoint, which may be deleted.

    Every attempt of the endpoint is counted. Raises `Unavailable`.
    """
    claims = await _SECRET_USAGE.rows(executor, "claims", tenant, endpoint_id)
    attempts = await _SECRET_USAGE.rows(executor, "attempts", tenant, endpoint_id)
    in_flight = {row["ref"]: row["claims"] for row in claims}
    signed = {row["ref"]: row for row in attempts}
    return {
        ref: Use(
            attempts=signed[ref]["attempts"] if ref in signed else 0,
            last_signed_at=signed[ref]["last_signed_at"] if ref in signed else None,
            claims_in_flight=in_flight.get(ref, 0),
        )
        for ref in in_flight.keys() | signed.keys()
    }
