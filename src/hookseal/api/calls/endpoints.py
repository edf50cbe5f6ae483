"""Endpoints: where the messages of an application go, what signs them, and which headers they have."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import UNSET, UnsetType

from hookseal.admin import Endpoint, Scope
from hookseal.api import problems
from hookseal.api.call import APP, Answer, Asked, Call, In, NoQuery, Once, Out, derived_id, manage, read
from hookseal.api.forms import (
    Channel,
    Description,
    EndpointUid,
    GracePeriod,
    Headers,
    Metadata,
    Subscription,
    ThrottleRate,
    Url,
)
from hookseal.api.paging import ListOut, Moment, OfEndpoints, Ordered, listed, position
from hookseal.errors import Conflict, NotFound
from hookseal.secrets.core.material import SecretMaterial

ONE: Final = APP + "/endpoint/{endpoint_id}"
DISABLED: Final = "disabled through the API"
DROPPED: Final = "hookseal-dropped"
_LOST: Final = {
    DROPPED: "What was removed since the url is of another scheme, host or port, and the token may not reveal: "
    "`headers.NAME`, `client_cert` and `ca`, with commas between them."
}
_EVERY: Final = ("*",)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAMES: Final = {
    "rate": "throttleRate",
    "change_headers": "headers",
    "after": "iterator",
    "before": "iterator",
}


class EndpointIn(In):
    """A new endpoint. `eventTypes` and `filterTypes` are the same; without them, and empty, it gets every message."""

    url: Url
    description: Description | None = None
    uid: EndpointUid | None = None
    throttle_rate: ThrottleRate | None = None
    rate_limit: None = None  # the older name of `throttleRate`, which older clients send as null
    disabled: bool | None = None
    event_types: list[Subscription] | None = None
    filter_types: list[Subscription] | None = None
    channels: list[Channel] | None = None
    metadata: Metadata | None = None
    headers: Headers | None = None
    secret: str | None = None
    version: Literal[1] | None = None  # which older clients send


class EndpointUpdate(In):
    """All settings of an endpoint: what is left out gets its default."""

    url: Url
    description: Description | None = None
    uid: EndpointUid | None = None
    throttle_rate: ThrottleRate | None = None
    rate_limit: None = None
    disabled: bool | None = None
    event_types: list[Subscription] | None = None
    filter_types: list[Subscription] | None = None
    channels: list[Channel] | None = None
    metadata: Metadata | None = None
    version: Literal[1] | None = None


class EndpointPatch(In):
    """What to change of an endpoint; null removes."""

    url: Url | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    uid: EndpointUid | UnsetType | None = UNSET
    throttle_rate: ThrottleRate | UnsetType | None = UNSET
    rate_limit: UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    event_types: list[Subscription] | UnsetType | None = UNSET
    filter_types: list[Subscription] | UnsetType | None = UNSET
    channels: list[Channel] | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET
    version: Literal[1] | UnsetType | None = UNSET


class EndpointOut(Out):
    """An endpoint."""

    id: str
    uid: str | None
    url: str
    description: str
    throttle_rate: int | None
    rate_limit: int | None
    disabled: bool
    event_types: list[str] | None
    filter_types: list[str] | None
    channels: list[str] | None
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    version: int = 1


class Endpoints(Ordered):
    """Which endpoints a list has."""

    iterator: OfEndpoints | None = None


class Range(In):
    """When the deliveries that are counted were made."""

    since: Moment | None = None
    until: Moment | None = None


class StatsOut(Out):
    """How many messages to an endpoint are in each state; of those that were never sent, `canceled`.

    Unless they are `complete`, older ones were not counted.
    """

    success: int
    pending: int
    sending: int
    fail: int
    canceled: int
    complete: bool


class SecretOut(Out):
    """The signing secret of an endpoint; for ed25519 its public key."""

    key: str


class RotateIn(In):
    """How to rotate: with this secret or a new one, and how many seconds the old one signs, too, by default a day."""

    key: str | None = None
    grace_period_seconds: GracePeriod | None = None


class HeadersIn(In):
    """All headers that requests to an endpoint have in addition."""

    headers: Headers


class HeadersPatch(In):
    """Headers to set, and to remove; the others stay."""

    headers: dict[str, str | None]
    delete_headers: list[str] | None = None


class HeadersOut(Out):
    """The names of the headers. Their values are never shown."""

    headers: dict[str, str]
    sensitive: list[str]


def shown(endpoint: Endpoint) -> EndpointOut:
    """Return an endpoint as Svix shows it. Every type is null."""
    types = None if endpoint.event_types == _EVERY else [*endpoint.event_types]
    return EndpointOut(
        id=endpoint.endpoint_id,
        uid=endpoint.uid,
        url=endpoint.url,
        description=endpoint.description,
        throttle_rate=endpoint.rate,
        rate_limit=endpoint.rate,
        disabled=not endpoint.enabled,
        event_types=types,
        filter_types=types,
        channels=[*endpoint.channels] or None,
        metadata=dict(endpoint.metadata),
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
    )


def named(text: str) -> tuple[str | None, str | None]:
    """Return the id of the endpoint that a request names, or its uid: what has the form of an id is one."""
    return (text, None) if _UUID.fullmatch(text) else (None, text)


async def found(asked: Asked[Any, Any]) -> Endpoint:
    """Return the endpoint that the path names. Raises `NotFound`."""
    endpoint_id, uid = named(asked.path["endpoint_id"])
    return await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=endpoint_id, uid=uid)


async def found_id(asked: Asked[Any, Any], text: str | None = None) -> str:
    """Return the id of the endpoint that the path, or this text, names. Only a uid is looked up. Raises `NotFound`."""
    endpoint_id, uid = named(asked.path["endpoint_id"] if text is None else text)
    if endpoint_id is not None:
        return endpoint_id
    return (await asked.admin.endpoints.find(tenant_id=asked.tenant, uid=uid)).endpoint_id


def _enabled(*, disabled: bool) -> dict[str, Any]:
    return {"enabled": False, "reason": DISABLED} if disabled else {"enabled": True}


def _types(body: EndpointIn | EndpointUpdate | EndpointPatch) -> Any:
    """Return the event types to set; `UNSET` if the body has none.

    Null and an empty list are every type: a page with svix-react sends the empty one. Raises `Problem` if both names
    differ.
    """
    given = [each for each in (body.event_types, body.filter_types) if each is not UNSET]
    several = [each for each in given if each is not None]
    if len(several) == 2 and several[0] != several[1]:  # noqa: PLR2004 -- both names
        raise problems.invalid(("body", "filterTypes"), "differs from eventTypes")
    if not given:
        return UNSET
    return several[0] if several and several[0] else [*_EVERY]


async def listing(asked: Asked[Endpoints, None]) -> ListOut[EndpointOut]:
    """List the endpoints of an application, the newest first."""
    after, before = position(asked.query.iterator)
    page = await asked.admin.endpoints.list(
        tenant_id=asked.tenant,
        limit=asked.query.limit,
        after=after,
        before=before,
        oldest_first=asked.query.order == "ascending",
    )
    return listed(
        [shown(each) for each in page.items], [each.endpoint_id for each in page.items], done=page.next_cursor is None
    )


async def create(asked: Asked[NoQuery, EndpointIn]) -> EndpointOut:
    """Add an endpoint, with a signing secret."""
    return await added_with(asked, asked.body, uid=asked.body.uid, headers=asked.body.headers, secret=asked.body.secret)


async def added_with(
    asked: Asked[Any, Any],
    body: EndpointIn | EndpointUpdate,
    *,
    uid: str | None,
    headers: Mapping[str, str] | None = None,
    secret: str | None = None,
    **settings: Any,
) -> EndpointOut:
    """Add an endpoint, with these settings in addition."""
    added = await asked.admin.endpoints.add(
        tenant_id=asked.tenant,
        url=body.url,
        event_types=_types(body),
        uid=uid,
        description=body.description or "",
        metadata=body.metadata or {},
        channels=body.channels or [],
        rate=body.throttle_rate,
        **_enabled(disabled=bool(body.disabled)),
        headers=headers,
        secret=secret,
        actor=asked.access.actor,
        **{"scheme": asked.scheme, **settings},
    )
    return await by_id(asked, added.endpoint_id)


async def by_id(asked: Asked[Any, Any], endpoint_id: str) -> EndpointOut:
    """Return the endpoint with this id. Raises `NotFound`."""
    return shown(await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=endpoint_id))


async def get(asked: Asked[NoQuery, None]) -> EndpointOut:
    """Return an endpoint, by its id or its uid."""
    return shown(await found(asked))


async def upsert(asked: Asked[NoQuery, EndpointUpdate]) -> EndpointOut | Answer:
    """Set all settings of an endpoint. If none has this uid, add one."""
    body, (_, uid) = asked.body, named(asked.path["endpoint_id"])
    try:
        endpoint = await found(asked)
    except NotFound:
        if uid is None or body.uid not in {None, uid}:
            raise
        return Answer(status=201, content=await added_with(asked, body, uid=uid))
    return await _updated(
        asked,
        endpoint.endpoint_id,
        url=body.url,
        event_types=_types(body),
        uid=body.uid if body.uid is not None else uid,
        description=body.description or "",
        metadata=body.metadata or {},
        channels=body.channels or [],
        rate=body.throttle_rate,
        **_enabled(disabled=bool(body.disabled)),
    )


async def patch(asked: Asked[NoQuery, EndpointPatch]) -> EndpointOut | Answer:
    """Change what is given of an endpoint."""
    body = asked.body
    changes = {
        "url": body.url,
        "event_types": _types(body),
        "uid": body.uid,
        "description": body.description,
        "metadata": body.metadata,
        "channels": UNSET if body.channels is UNSET else body.channels or [],
        "rate": body.throttle_rate,
    }
    given = {name: value for name, value in changes.items() if value is not UNSET}
    if body.disabled is not UNSET:
        given |= _enabled(disabled=body.disabled)
    if not given:
        return shown(await found(asked))
    return await _updated(asked, await found_id(asked), **given)


async def _updated(asked: Asked[Any, Any], endpoint_id: str, **changes: Any) -> Answer:
    """Change the endpoint. Who may see its secrets may send its headers to another address."""
    updated = await asked.admin.endpoints.update(
        tenant_id=asked.tenant,
        endpoint_id=endpoint_id,
        keep_headers=asked.access.may_reveal,
        actor=asked.access.actor,
        **changes,
    )
    headers = {DROPPED: ", ".join(updated.dropped)} if updated.dropped else {}
    return Answer(status=200, content=await by_id(asked, endpoint_id), headers=headers)


async def delete(asked: Asked[NoQuery, None]) -> None:
    """Delete an endpoint, and cancel what waits for it."""
    await asked.admin.endpoints.delete(
        tenant_id=asked.tenant, endpoint_id=await found_id(asked), actor=asked.access.actor
    )


async def get_secret(asked: Asked[NoQuery, None]) -> SecretOut:
    """Return the secret with which a receiver verifies. The audit log records it."""
    revealed = await asked.admin.secrets.reveal(
        tenant_id=asked.tenant, endpoint_id=await found_id(asked), actor=asked.access.actor
    )
    return _key(revealed.secret, revealed.public_key)


async def rotate(asked: Asked[NoQuery, RotateIn]) -> SecretOut:
    """Give the endpoint a new secret, and return it. The same `Idempotency-Key` rotates once.

    Svix says 204 here, but its clients read a body.
    """
    body, endpoint_id = asked.body, await found_id(asked)
    try:
        rotated = await asked.admin.secrets.rotate(
            tenant_id=asked.tenant,
            endpoint_id=endpoint_id,
            overlap_seconds=body.grace_period_seconds,
            secret=body.key,
            rotation_id=None if asked.key is None else derived_id(asked.access, asked.key),
            wait=None,
            actor=asked.access.actor,
        )
    except Conflict as error:
        if error.field == "rotation_id":
            raise problems.other_content() from None
        raise await _running(asked, endpoint_id, error) from None
    if rotated.secret is None and rotated.public_key is None:
        raise problems.conflict("the secret of this rotation has been replaced since")
    return _key(rotated.secret, rotated.public_key)


async def _running(asked: Asked[Any, Any], endpoint_id: str, error: Conflict) -> Exception:
    """Return the conflict of a rotation, with the time until which the earlier one runs and what may be done."""
    status = await asked.admin.secrets.status(tenant_id=asked.tenant, endpoint_id=endpoint_id)
    if not status.overlapping or status.previous_secret_expires_at is None:
        return error
    return problems.conflict(
        f"an earlier rotation runs until {status.previous_secret_expires_at:%Y-%m-%dT%H:%M:%SZ}: until then two "
        "secrets sign, and a third would make a receiver fail that knows only the oldest. Rotate after that time; "
        "or, if the secret leaked, rotate with a gracePeriodSeconds of 0, which retires every older secret at once"
    )


def _key(secret: SecretMaterial | None, public_key: str | None) -> SecretOut:
    return SecretOut(key=public_key or "" if secret is None else secret.reveal().decode())


async def get_headers(asked: Asked[NoQuery, None]) -> HeadersOut:
    """Return the names of the headers that requests to an endpoint have in addition."""
    details = await asked.admin.endpoints.get(tenant_id=asked.tenant, endpoint_id=await found_id(asked))
    return HeadersOut(headers={}, sensitive=[*details.header_names])


async def set_headers(asked: Asked[NoQuery, HeadersIn]) -> None:
    """Set these headers, and no others."""
    await asked.admin.endpoints.update(
        tenant_id=asked.tenant,
        endpoint_id=await found_id(asked),
        headers=asked.body.headers,
        actor=asked.access.actor,
    )


async def patch_headers(asked: Asked[NoQuery, HeadersPatch]) -> None:
    """Set these headers, and remove those that are null or named in `deleteHeaders`."""
    removed = dict.fromkeys(asked.body.delete_headers or ())
    await asked.admin.endpoints.update(
        tenant_id=asked.tenant,
        endpoint_id=await found_id(asked),
        change_headers={**removed, **asked.body.headers},
        actor=asked.access.actor,
    )


async def get_stats(asked: Asked[Range, None]) -> StatsOut:
    """Count the messages to an endpoint by their state, the newest 5,000 at most."""
    endpoint = await found(asked)
    counts = await asked.admin.endpoints.deliveries_by_state(
        tenant_id=asked.tenant, endpoint_id=endpoint.endpoint_id, since=asked.query.since, until=asked.query.until
    )
    return StatsOut(
        success=counts.delivered,
        pending=counts.pending,
        sending=counts.sending,
        fail=counts.dead_letter + counts.failed,
        canceled=counts.cancelled,
        complete=counts.complete,
    )


_CHANGE: Final = {"names": NAMES}
CALLS: Final = (
    read("endpoint.list", APP + "/endpoint", listing, query=Endpoints, result=ListOut[EndpointOut], **_CHANGE),
    manage(
        *("endpoint.create", "POST", APP + "/endpoint", create),
        body=EndpointIn,
        result=EndpointOut,
        status=201,
        once=Once(result_id="id", again=by_id),
        names=NAMES,
    ),
    read("endpoint.get", ONE, get, result=EndpointOut),
    manage("endpoint.upsert", "PUT", ONE, upsert, body=EndpointUpdate, result=EndpointOut, headers=_LOST, **_CHANGE),
    manage("endpoint.patch", "PATCH", ONE, patch, body=EndpointPatch, result=EndpointOut, headers=_LOST, **_CHANGE),
    manage("endpoint.delete", "DELETE", ONE, delete, status=204),
    Call(
        name="endpoint.get_secret",
        method="GET",
        path=ONE + "/secret",
        scopes=frozenset({Scope.REVEAL}),
        handler=get_secret,
        result=SecretOut,
    ),
    Call(
        name="endpoint.rotate_secret",
        method="POST",
        path=ONE + "/secret/rotate",
        scopes=frozenset({Scope.MANAGE, Scope.REVEAL}),
        handler=rotate,
        body=RotateIn,
        result=SecretOut,
        names={"secret": "key", "overlap_seconds": "gracePeriodSeconds"},
    ),
    read("endpoint.get_stats", ONE + "/stats", get_stats, query=Range, result=StatsOut),
    read("endpoint.get_headers", ONE + "/headers", get_headers, result=HeadersOut),
    manage("endpoint.set_headers", "PUT", ONE + "/headers", set_headers, body=HeadersIn, status=204, **_CHANGE),
    manage(
        "endpoint.patch_headers", "PATCH", ONE + "/headers", patch_headers, body=HeadersPatch, status=204, **_CHANGE
    ),
)
