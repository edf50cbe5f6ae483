"""Updating an endpoint: what its pointer holds, under a new MAC, and what the dispatcher decides by; all or nothing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoints, waiting
from hookseal.dispatcher.endpoints import Decided
from hookseal.ground.errors import Conflict
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations import endpoint_tls
from hookseal.operations.endpoint_tls import TlsMove
from hookseal.operations.endpoints import host, require_drainable
from hookseal.operations.operator import Operator
from hookseal.secrets import endpoint_headers, overlap, pointer, tls_identity
from hookseal.secrets.endpoint_headers import HeaderChange, Headers
from hookseal.secrets.errors import SecretError

HEADERS: Final = "headers"
TLS: Final = "tls"
_SEALED: Final = frozenset({HEADERS, TLS})
_POINTED: Final = frozenset({"url", "lead"})
_BACKOFF: Final = frozenset({"max_attempts", "backoff_base_seconds", "backoff_cap_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """The endpoint after an update: which fields changed, none if all were so before, and its generation now.

    `before` and `after` hold what the changed fields were and are; of headers the names, of TLS what may be shown.
    """

    changed: tuple[str, ...]
    generation: int
    before: Mapping[str, Any] = field(default_factory=dict, compare=False)
    after: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Headers:
    """All headers before and after a change; none before if they could not be opened."""

    before: Headers
    after: Headers

    @property
    def changed(self) -> list[str]:
        """The names of those that were set to another value, or removed."""
        names = {*self.before, *self.after}
        return sorted(name for name in names if self.before.get(name) != self.after.get(name))


async def update_endpoint(
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    wanted: dict[str, Any],
    *,
    own_drain_seconds: int,
    expect_generation: int | None = None,
) -> Updated:
    """Give the endpoint these values, all or none: `url`, `lead`, fields of `Decided`, a `HeaderChange` as `headers`.

    And a `TlsChange` as `tls`. The generation moves with url, lead, headers and TLS only, and then the oldest that
    waits for a secret is tried. Raises `NotFound`; `Conflict` if the generation is not the expected one, the tenant
    has another endpoint with the url, or back-off is set beside a schedule; `Refused` for a time-out that no drain
    lets end; `Malformed` for headers beyond their limits, and a certificate that is not valid now; `SecretTampered` if
    the generation is to move and the row was altered; what opening headers or TLS raises, unless all of it is
    replaced; `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        overlap.require_generation(found, expect_generation)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        now = asdict(decided) | {name: getattr(found, name) for name in _POINTED}
        now |= {HEADERS: decided.header_names, TLS: decided.tls_shown}
        changes = {name: value for name, value in wanted.items() if name not in _SEALED and value != now[name]}
        _require_effect(decided, changes)
        headers = await _headers(operator, found, wanted.get(HEADERS))
        if headers is not None:
            changes[HEADERS] = tuple(sorted(headers.after))
        tls = await endpoint_tls.moved(operator, found, wanted.get(TLS))
        if tls is not None:
            changes[TLS] = tls_identity.shown(tls.after)
        await _require_possible(operator, tenant, changes, own_drain_seconds=own_drain_seconds)
        if not changes:
            return Updated(changed=(), generation=found.generation)
        after = await _written(operator, found, decided, changes=changes, headers=headers, tls=tls)
        was = {name: now[name] for name in changes}
        beside = await _beside(operator, headers, tls)
        await operator.tell(_change(found, after, was, changes=changes, beside=beside))
    return Updated(changed=tuple(changes), generation=after.generation, before=was, after=changes)


async def _require_possible(
    operator: Operator, tenant: TenantId, changes: dict[str, Any], *, own_drain_seconds: int
) -> None:
    """Return only if the url is no other endpoint's, and every drain lets the time-out end."""
    if "url" in changes and (other := await endpoints.at_url(operator.connection, tenant, changes["url"])) is not None:
        raise endpoints.url_taken(other)
    if "timeout_ms" in changes:
        await require_drainable(operator, changes["timeout_ms"], own_drain_seconds=own_drain_seconds)


async def _headers(operator: Operator, found: Pointer, wanted: HeaderChange | None) -> _Headers | None:
    """Return the headers before and after the change, None if there is none."""
    if wanted is None:
        return None
    store, integrity = operator.unlocked.store_on(operator.connection), operator.unlocked.integrity
    integrity.verify(found)
    try:
        before = await endpoint_headers.opened(store, found)
    except SecretError:
        if not wanted.replaces_all:
            raise
        return _Headers(before={}, after=wanted.given)  # what is spoilt is mended so
    after = wanted.applied(before)
    return None if after == before else _Headers(before=before, after=after)


async def _written(
    operator: Operator,
    found: Pointer,
    decided: Decided,
    *,
    changes: dict[str, Any],
    headers: _Headers | None,
    tls: TlsMove | None,
) -> Pointer:
    connection, integrity = operator.connection, operator.unlocked.integrity
    pointed = {name: value for name, value in changes.items() if name in _POINTED}
    beside = {name: value for name, value in changes.items() if name not in _POINTED | _SEALED}
    if headers is not None:
        pointed["headers_ref"] = await _kept(operator, found, headers)
        beside["header_names"] = changes[HEADERS]
    if tls is not None:
        pointed["tls_ref"] = await endpoint_tls.kept(operator, found, tls)
        beside["tls_shown"] = changes[TLS]
    if beside:
        await endpoints.change(connection, found.tenant_id, found.endpoint_id, replace(decided, **beside))
    if not pointed:
        return found
    integrity.verify(found)
    await waiting.probe(connection, found.tenant_id, found.endpoint_id)
    return await pointer.moved(connection, integrity, found, **pointed)


async def _kept(operator: Operator, found: Pointer, headers: _Headers) -> str | None:
    connection = operator.connection
    ref = await endpoint_headers.keep(
        connection,
        operator.unlocked.store_on(connection),
        tenant=found.tenant_id,
        endpoint_id=found.endpoint_id,
        headers=headers.after,
    )
    return None if ref is None else str(ref)


def _require_effect(decided: Decided, changes: dict[str, Any]) -> None:
    schedule = changes.get("retry_schedule", decided.retry_schedule)
    if schedule is not None and _BACKOFF & changes.keys():
        raise Conflict(
            "the endpoint has a retry schedule, which stands in place of attempts and back-off: "
            "add --retry-schedule none",
            field="retry_schedule",
        )


async def _beside(operator: Operator, headers: _Headers | None, tls: TlsMove | None) -> dict[str, Any]:
    """Return what the audit row says of what was sealed, beside names: which values, and the key that seals."""
    if headers is None and tls is None:
        return {}
    changed = {} if headers is None else {"headers_changed": headers.changed}
    return {**changed, "key_id": await operator.unlocked.sealing_key_id(operator.connection)}


def _change(
    found: Pointer, after: Pointer, was: dict[str, Any], *, changes: dict[str, Any], beside: dict[str, Any]
) -> Change:
    # A row that did not move was not verified either: its generation may be anybody's, and the log vouches for it.
    generation = {} if after is found else {"generation": after.generation}
    return Change(
        tenant_id=found.tenant_id,
        action=Action.ENDPOINT_UPDATED,
        subject=f"endpoint:{found.endpoint_id}",
        before=_facts(was, found) | {"generation": found.generation},
        after=_facts(changes, after) | beside | generation,
    )


def _facts(values: dict[str, Any], of: Pointer) -> dict[str, Any]:
    """Return the values as an audit row may tell them: of a url only the host, of what is sealed no value."""
    told: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    if "url" in told:
        told["host"] = host(told.pop("url"))
    if HEADERS in told:
        told |= {"header_names": told.pop(HEADERS), "headers_ref": of.headers_ref}
    if TLS in told:
        told["tls_ref"] = of.tls_ref
    return told
