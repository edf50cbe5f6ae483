"""Updating an endpoint: what its pointer holds, under a new MAC, and what the dispatcher decides by; all or nothing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoints
from hookseal.dispatcher.endpoints import Decided
from hookseal.ground.errors import Conflict
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoints import host, require_drainable
from hookseal.operations.operator import Operator
from hookseal.secrets import overlap, pointer

_POINTED: Final = frozenset({"url", "lead"})
_BACKOFF: Final = frozenset({"max_attempts", "backoff_base_seconds", "backoff_cap_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """The endpoint after an update: which fields changed, none if all were so before, and its generation now.

    `before` holds what the changed fields were.
    """

    changed: tuple[str, ...]
    generation: int
    before: Mapping[str, Any] = field(default_factory=dict, compare=False)


async def update_endpoint(
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    wanted: dict[str, Any],
    *,
    own_drain_seconds: int,
    expect_generation: int | None = None,
) -> Updated:
    """Give the endpoint these values: `url` and `lead`, and fields of `Decided`; all of them or none.

    The generation moves with `url` and `lead` only. Raises `NotFound`; `Conflict` if the generation is not
    the expected one, the tenant has another endpoint with the url, or back-off is set beside a schedule;
    `Refused` for a time-out that no drain lets end; `SecretTampered` if url or lead are to change and the
    row was altered; `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        overlap.require_generation(found, expect_generation)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        now = asdict(decided) | {name: getattr(found, name) for name in _POINTED}
        changes = {name: value for name, value in wanted.items() if value != now[name]}
        _require_effect(decided, changes)
        if "timeout_ms" in changes:
            await require_drainable(operator, changes["timeout_ms"], own_drain_seconds=own_drain_seconds)
        if not changes:
            return Updated(changed=(), generation=found.generation)
        after = await _written(operator, found, decided, changes)
        await operator.tell(_change(found, after, now, changes))
    return Updated(changed=tuple(changes), generation=after.generation, before={name: now[name] for name in changes})


async def _written(operator: Operator, found: Pointer, decided: Decided, changes: dict[str, Any]) -> Pointer:
    connection, integrity = operator.connection, operator.unlocked.integrity
    pointed = {name: value for name, value in changes.items() if name in _POINTED}
    beside = {name: value for name, value in changes.items() if name not in _POINTED}
    if beside:
        await endpoints.change(connection, found.tenant_id, found.endpoint_id, replace(decided, **beside))
    if not pointed:
        return found
    integrity.verify(found)
    return await pointer.moved(connection, integrity, found, **pointed)


def _require_effect(decided: Decided, changes: dict[str, Any]) -> None:
    schedule = changes.get("retry_schedule", decided.retry_schedule)
    if schedule is not None and _BACKOFF & changes.keys():
        raise Conflict(
            "the endpoint has a retry schedule, which stands in place of attempts and back-off: "
            "add --retry-schedule none",
            field="retry_schedule",
        )


def _change(found: Pointer, after: Pointer, now: dict[str, Any], changes: dict[str, Any]) -> Change:
    return Change(
        tenant_id=found.tenant_id,
        action=Action.ENDPOINT_UPDATED,
        subject=f"endpoint:{found.endpoint_id}",
        before=_facts({name: now[name] for name in changes}) | {"generation": found.generation},
        after=_facts(changes) | {"generation": after.generation},
    )


def _facts(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as an audit row may tell them: of a url only the host."""
    told: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {"host": host(told.pop("url")), **told} if "url" in told else told
