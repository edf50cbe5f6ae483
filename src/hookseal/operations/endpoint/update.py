"""Updates an endpoint: its pointer, with a new MAC, and its settings, in one transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hookseal.audit.chain import Action
from hookseal.dispatcher.core import endpoint_rules, endpoint_settings
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.dispatcher.core.url import origin
from hookseal.dispatcher.store import endpoints, held, replays
from hookseal.dispatcher.store.endpoints import StoredEndpoint
from hookseal.errors import Conflict, Malformed, Refused, SecretDenied, SecretError
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import given_facts, host, require_drainable, require_usable
from hookseal.operations.operator import Operator
from hookseal.postgres.savepoint import savepoint
from hookseal.secrets.core import overlap
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.extras.stored import Extra
from hookseal.secrets.extras.tls_identity import TlsChange

HEADERS: Final = "headers"
TLS: Final = "tls"
_EXTRAS: Final[Mapping[str, Extra[Any]]] = {HEADERS: stored.HEADERS, TLS: stored.TLS}
_POINTER_FIELDS: Final = frozenset({"url", "lead"})
_WORDS: Final = {"client_cert": "client certificate", "ca": "certificate authorities"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """The fields that an update changed, and the generation of the endpoint after it.

    `before` and `after` hold the values of the changed fields: of headers the names, of TLS the part that may be shown.
    `dropped` names what did not go along to another origin: `headers.NAME`, `client_cert` and `ca`.
    """

    changed: tuple[str, ...]
    generation: int
    dropped: tuple[str, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict, compare=False)
    after: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """An extra before and after a change; `before` is empty if it could not be opened."""

    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Departure:
    """What a change of the origin means for sealed extras: the changes to request, and what stays behind or goes along.

    A name is `headers.NAME`, `client_cert` or `ca`.
    """

    requested: dict[str, Any]
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


async def update_endpoint(
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    requested: dict[str, Any],
    *,
    own_drain_seconds: int,
    expect_generation: int | None = None,
    expect: Mapping[str, Any] | None = None,
    shares_url: bool = False,
    keep_headers: bool | None = False,
) -> Updated:
    """Change the endpoint, all of it or nothing: its `url`, `lead`, its event types, its settings, `headers` and `tls`.

    `headers` is a `HeaderChange` and `tls` a `TlsChange`. A change of url, lead, headers or TLS raises the generation
    and probes the endpoint if it is held. With `on_dead_letter` `skip`, what stops its line leaves it.

    A url of another origin (scheme, host, port) takes along neither header values nor the client certificate, but for
    those given in the same call: who chooses the address would see them. With `keep_headers` it does, and None raises
    `Conflict` (`keep_headers`) in place of dropping anything. Raises `Refused` (`keep_headers`) unless the SQL role may
    open what it keeps.

    Raises `NotFound`; `Conflict` if the generation is not the expected one, or a field is not as in `expect`;
    `Conflict` if another endpoint of the tenant has the url, unless it is to share one (`shares_url`), or the uid, or
    back-off is set although there is a schedule that is not the default; `Refused` for a time-out longer than the drain
    of a worker; `Malformed` for headers beyond their limits, a certificate that is not valid now, and `on_dead_letter`
    without order; `SecretTampered` if the row was altered and the generation would change; the errors of opening
    headers or TLS, unless all of it is replaced; `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        overlap.require_generation(row, expect_generation)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        now: dict[str, Any] = {**decided, **{name: getattr(row, name) for name in _POINTER_FIELDS}}
        now |= {name: now[extra.shown_field] for name, extra in _EXTRAS.items()}
        _require_as_expected(now, expect or {})
        if endpoint_settings.replaces_schedule(decided["retry_schedule"], requested):
            requested = {"retry_schedule": None} | requested
        changes = {name: value for name, value in requested.items() if name not in _EXTRAS and value != now[name]}
        _require_effect(decided, changes)
        endpoint_rules.require_order(ordered=decided["ordered"], on_dead_letter=requested.get("on_dead_letter"))
        leaving = _Departure(requested=requested)
        if "url" in changes and _origin(row.url) != origin(changes["url"]):
            leaving = await _departure(operator, row, decided, requested, keep_headers=keep_headers)
        moves = await _moves(operator, row, leaving.requested)
        changes |= {name: _EXTRAS[name].shown(move.after) for name, move in moves.items()}
        await _require_possible(operator, row, changes, own_drain_seconds=own_drain_seconds, shares_url=shares_url)
        if not changes:
            return Updated(changed=(), generation=row.generation)
        after = await _write(operator, row, decided, changes=changes, moves=moves)
        before = {name: now[name] for name in changes}
        # If the pointer did not move, its MAC was not verified, so its generation must not enter the audit log.
        generation = {} if after is row else {"generation": after.generation}
        left = {name: list(what) for name, what in (("dropped", leaving.dropped), ("kept", leaving.kept)) if what}
        await operator.audit(
            Action.ENDPOINT_UPDATED,
            of=row,
            before=_facts(before, row) | {"generation": row.generation},
            after=_facts(changes, after) | await _sealed_facts(operator, moves) | generation | left,
        )
    return Updated(
        changed=tuple(changes), generation=after.generation, dropped=leaving.dropped, before=before, after=changes
    )


def _origin(url: str) -> object:
    """Return the origin of a stored url; of one that was written by hand, None, which no url has."""
    try:
        return origin(url)
    except ValueError:
        return None


async def _departure(
    operator: Operator, row: Pointer, decided: StoredEndpoint, requested: dict[str, Any], *, keep_headers: bool | None
) -> _Departure:
    """Return what to request in place of these changes, so that only what is given goes along to another origin.

    It does not depend on the columns that only show something: they have no MAC. Raises as `update_endpoint`.
    """
    operator.unlocked.integrity.verify(row)
    changes = dict(requested)
    staying = [*_headers_left(row, decided, changes), *await _tls_left(operator, row, decided, changes)]
    if keep_headers:
        await _require_openable(operator, row)
        return _Departure(requested=requested, kept=tuple(staying))
    if keep_headers is None and staying:
        words = (_WORDS.get(name) or name.replace(f"{HEADERS}.", "header ") for name in staying)
        raise Conflict(
            f"the new url is of another server, which does not get: {', '.join(words)}", field="keep_headers"
        )
    return _Departure(requested=changes, dropped=tuple(staying))


def _headers_left(row: Pointer, decided: StoredEndpoint, changes: dict[str, Any]) -> Iterator[str]:
    """Let the changes replace all headers by those that are given, and yield the names of the others."""
    if row.headers_ref is None:
        return
    change: HeaderChange = changes.get(HEADERS) or HeaderChange(given={})
    after = change.applied(dict.fromkeys(decided["header_names"], SecretMaterial(b"")))
    changes[HEADERS] = HeaderChange(given=change.given, replaces_all=True)
    yield from (f"{HEADERS}.{name}" for name in sorted(after.keys() - change.given.keys()))


async def _tls_left(
    operator: Operator, row: Pointer, decided: StoredEndpoint, changes: dict[str, Any]
) -> tuple[str, ...]:
    """Let the changes remove a client certificate that is not given, and return what is lost.

    The authorities are in the same record: if it does not open, or this role may not open it, they are lost, too.
    """
    change: TlsChange = changes.get(TLS) or TlsChange()
    if row.tls_ref is None or change.client is not None or change.without_client:
        return ()
    try:
        before = await _opened(operator, row, stored.TLS)
    except SecretError:
        gone = not (change.authorities or change.without_authorities)
        changes[TLS] = replace(change, without_client=True, without_authorities=not change.authorities)
        seen = decided["tls_shown"] or {}
        return (
            *(("client_cert",) if seen.get("client_certificate") else ()),
            *(("ca",) if gone and seen.get("authorities") else ()),
        )
    if before.client is None:
        return ()
    changes[TLS] = replace(change, without_client=True)
    return ("client_cert",)


async def _require_openable(operator: Operator, row: Pointer) -> None:
    """Raise `Refused` if this SQL role may not open the sealed extras of the endpoint."""
    for extra in _EXTRAS.values():
        try:
            await _opened(operator, row, extra)
        except SecretDenied as error:
            raise Refused(
                "only who may open the headers and the client certificate may keep them for another server",
                field="keep_headers",
                advice="leave out --keep-headers, and give them anew",
            ) from error


async def _opened(operator: Operator, row: Pointer, extra: Extra[Any]) -> Any:
    """Return the extra, opened: nothing is undone if this role may not. Raises as `stored.opened`."""
    async with savepoint(operator.connection):
        return await stored.opened(operator.unlocked.store_on(operator.connection), extra, row)


async def _require_possible(
    operator: Operator, row: Pointer, changes: dict[str, Any], *, own_drain_seconds: int, shares_url: bool
) -> None:
    """Raise an error if another endpoint has the url, or if the time-out is longer than the drain of a worker."""
    if "url" in changes and shares_url:
        await endpoints.share_url(operator.connection, row.tenant_id, row.endpoint_id)
    elif "url" in changes:
        other = await endpoints.at_url(operator.connection, row.tenant_id, changes["url"])
        if other is not None:
            raise endpoints.url_taken(other)
    if "timeout_ms" in changes:
        await require_drainable(operator, changes["timeout_ms"], own_drain_seconds=own_drain_seconds)


async def _moves(operator: Operator, row: Pointer, requested: dict[str, Any]) -> dict[str, _Move]:
    """Return the extras that change, by name. Raises `Malformed` for a certificate that is not valid now."""
    moves = {}
    for name, extra in _EXTRAS.items():
        if name in requested and (move := await _move(operator, row, extra, requested[name])) is not None:
            moves[name] = move
    if TLS in moves:  # only the new parts: a part that stays may have expired, and must not prevent the change
        await require_usable(operator, requested[TLS].given)
    return moves


async def _move(operator: Operator, row: Pointer, extra: Extra[Any], change: stored.Change[Any] | None) -> _Move | None:
    """Return the extra before and after the change, None if it does not change."""
    if change is None:
        return None
    operator.unlocked.integrity.verify(row)
    try:
        before = await _opened(operator, row, extra)  # a role without the right to open it may replace it
    except SecretError:
        if not change.replaces_all:
            raise
        return _Move(before=extra.none, after=change.initial())  # so an extra that does not open can be replaced
    after = change.applied(before)
    return None if after == before else _Move(before=before, after=after)


async def _write(
    operator: Operator, row: Pointer, decided: StoredEndpoint, *, changes: dict[str, Any], moves: dict[str, _Move]
) -> Pointer:
    connection, integrity = operator.connection, operator.unlocked.integrity
    pointed = {name: value for name, value in changes.items() if name in _POINTER_FIELDS}
    settings = {name: value for name, value in changes.items() if name not in _POINTER_FIELDS | _EXTRAS.keys()}
    for name, move in moves.items():
        extra = _EXTRAS[name]
        pointed[extra.ref_field] = await _keep(operator, row, extra, move.after)
        settings[extra.shown_field] = changes[name]
    if settings:
        await endpoints.change(connection, row.tenant_id, row.endpoint_id, {**decided, **settings})
    if settings.get("on_dead_letter") is OnDeadLetter.SKIP:
        await replays.skip_all(connection, row.tenant_id, row.endpoint_id)
    if not pointed:
        return row
    integrity.verify(row)
    await held.probe(connection, row.tenant_id, row.endpoint_id)
    return await pointer.move(connection, integrity, row, **pointed)


async def _keep(operator: Operator, row: Pointer, extra: Extra[Any], value: object) -> str | None:
    connection, store = operator.connection, operator.unlocked.store_on(operator.connection)
    ref = await stored.keep(connection, store, extra, value, tenant=row.tenant_id, endpoint_id=row.endpoint_id)
    return None if ref is None else str(ref)


def _require_as_expected(now: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """Raise `Conflict` if a field has another value than expected, and `Malformed` if there is no such field."""
    for name, value in expect.items():
        if name not in now:
            raise Malformed(f"expect must have fields of an endpoint, and {name} is none", field="expect")
        if now[name] != value:
            raise Conflict(f"{name} is not as expected: somebody changed it meanwhile", field="expect")


def _require_effect(decided: StoredEndpoint, changes: dict[str, Any]) -> None:
    schedule = changes.get("retry_schedule", decided["retry_schedule"])
    if schedule is not None and endpoint_rules.DEFAULT_BACKOFF.keys() & changes.keys():
        raise Conflict(
            "the endpoint has a retry schedule, which replaces attempts and back-off: add --retry-schedule none",
            field="retry_schedule",
        )


async def _sealed_facts(operator: Operator, moves: dict[str, _Move]) -> dict[str, Any]:
    """Return the facts of sealed extras for the audit row: the headers whose values changed, and the master key."""
    if not moves:
        return {}
    facts: dict[str, Any] = {"key_id": await operator.unlocked.sealing_key_id(operator.connection)}
    if (headers := moves.get(HEADERS)) is not None:
        names = {*headers.before, *headers.after}
        facts["headers_changed"] = sorted(name for name in names if headers.before.get(name) != headers.after.get(name))
    return facts


def _facts(values: dict[str, Any], of: Pointer) -> dict[str, Any]:
    """Return the values for an audit row: of a url only the host, no value of a sealed extra, and see `given_facts`."""
    facts = given_facts(values)
    if "url" in facts:
        facts["host"] = host(facts.pop("url"))
    if HEADERS in facts:
        facts |= {"header_names": facts.pop(HEADERS), "headers_ref": of.headers_ref}
    if TLS in facts:
        facts["tls_ref"] = of.tls_ref
    return facts
