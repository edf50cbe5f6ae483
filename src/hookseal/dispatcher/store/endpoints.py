"""Writes endpoints, except the columns that point to secrets, which belong to the room `secrets`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_BACKOFF, DEFAULT_RETRY_SCHEDULE, LIVE_SECONDS
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "endpoints.sql", seconds=None)
_OF_ID: Final = frozenset({"endpoints_pkey", "endpoints_id_key"})
_OF_UID: Final = "endpoints_uid"
_TENANT_DELETED: Final = "HS409"  # the SQLSTATE that 0002_tenants.sql raises


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """An endpoint to be created; the limits of its values are in `endpoint_rules`.

    `retry_schedule`, if there is one, contains the seconds between the attempts and replaces `max_attempts`,
    `backoff_base_seconds` and `backoff_cap_seconds`; but if one of these is given, it replaces the default schedule.
    `uid` is the id that the product has given it, `metadata` what the product keeps with it. If it has `channels`, it
    gets only events that share one.
    `concurrency` is the most requests in flight, and `rate` the most requests a second, both over all workers.
    If it is `ordered`, its deliveries are sent one after another, and `on_dead_letter` says whether one that is given
    up stops the others. `header_names` are the names of the headers whose values the room `secrets` stores, and
    `tls_shown` describes the certificates that it stores. `endpoint_id` is set for an endpoint of an older system;
    otherwise an id is made. If `shares_url`, another endpoint of the tenant may have its url.
    """

    tenant_id: TenantId
    url: str
    event_types: tuple[str, ...]
    name: str | None = None
    uid: str | None = None
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    timeout_ms: int = 5_000
    scheme: Scheme = Scheme.STANDARD
    algorithm: Algorithm = Algorithm.HMAC
    max_attempts: int | None = None
    backoff_base_seconds: int | None = None
    backoff_cap_seconds: int | None = None
    retry_schedule: tuple[int, ...] | None = DEFAULT_RETRY_SCHEDULE
    concurrency: int | None = None
    rate: int | None = None
    ordered: bool = False
    on_dead_letter: OnDeadLetter = OnDeadLetter.STOP
    rotate_every_days: int | None = None
    header_names: tuple[str, ...] = ()
    tls_shown: Mapping[str, Any] | None = None
    endpoint_id: EndpointId | None = None
    shares_url: bool = False

    @property
    def retries(self) -> dict[str, Any]:
        """The values of the four columns that decide about retries."""
        backoff = {name: getattr(self, name) for name in DEFAULT_BACKOFF}
        own = {name: value for name, value in backoff.items() if value is not None}
        schedule = None if replaces_default(self.retry_schedule, own) else self.retry_schedule
        return DEFAULT_BACKOFF | own | {"retry_schedule": schedule}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """The columns of an endpoint row that this room writes."""

    event_types: tuple[str, ...]
    name: str | None
    uid: str | None
    description: str
    metadata: Mapping[str, str]
    channels: tuple[str, ...]
    timeout_ms: int
    max_attempts: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    retry_schedule: tuple[int, ...] | None
    concurrency: int | None
    rate: int | None
    ordered: bool
    on_dead_letter: OnDeadLetter
    rotate_every_days: int | None
    header_names: tuple[str, ...]
    tls_shown: Mapping[str, Any] | None
    enabled: bool
    disabled_reason: str | None


def replaces_default(schedule: tuple[int, ...] | None, fields: Iterable[str]) -> bool:
    """Return whether one of these fields is of back-off and so replaces the schedule, which is the default one."""
    return schedule == DEFAULT_RETRY_SCHEDULE and not DEFAULT_BACKOFF.keys().isdisjoint(fields)


async def insert(connection: Connection, endpoint: NewEndpoint) -> EndpointId:
    """Insert the endpoint without a secret, in the caller's transaction; return its id, by default a new UUIDv7.

    The room `secrets` writes its scheme and algorithm together with the pointer. Raises `Conflict` if the tenant
    already has an endpoint with this url, which it may not share, or with this uid, if the id exists, or if the tenant
    is deleted, `Unavailable`.
    """
    retries = endpoint.retries
    try:
        inserted: str | None = await _SQL.value(
            connection,
            "insert",
            endpoint.tenant_id,
            endpoint.url,
            list(endpoint.event_types),
            endpoint.name,
            endpoint.timeout_ms,
            retries["max_attempts"],
            retries["backoff_base_seconds"],
            retries["backoff_cap_seconds"],
            _words(retries["retry_schedule"]),
            endpoint.concurrency,
            endpoint.rate,
            endpoint.rotate_every_days,
            endpoint.endpoint_id,
            endpoint.ordered,
            endpoint.on_dead_letter,
            endpoint.uid,
            endpoint.description,
            json.dumps(endpoint.metadata),
            endpoint.shares_url,
            endpoint.channels,
        )
        if inserted is None:
            raise url_taken(await at_url(connection, endpoint.tenant_id, endpoint.url))
        if endpoint.header_names:
            await _SQL.execute(connection, "name_headers", endpoint.tenant_id, inserted, endpoint.header_names)
        if endpoint.tls_shown is not None:
            await _SQL.execute(connection, "show_tls", endpoint.tenant_id, inserted, json.dumps(endpoint.tls_shown))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name in _OF_ID:
            raise Conflict("there is an endpoint with this id already", field="endpoint_id") from None
        raise _uid_taken(error) from None
    except asyncpg.PostgresError as error:
        if error.sqlstate == _TENANT_DELETED:
            raise Conflict(
                "the tenant was deleted: use another id",
                advice="or add it again, once its history has left: `hookseal tenant add --tenant ID`",
                joint="; ",
                field="tenant_id",
            ) from None
        raise
    return EndpointId(inserted)


def _uid_taken(error: asyncpg.UniqueViolationError) -> Exception:
    if error.constraint_name == _OF_UID:
        return Conflict("the tenant already has an endpoint with this uid", field="uid")
    return error


def url_taken(by: EndpointId | None) -> Conflict:
    """Return the error for a url that another endpoint has; `by` is None if that endpoint was deleted meanwhile."""
    named = "an endpoint with this url" if by is None else f"an endpoint with this url, {by}"
    return Conflict(f"the tenant already has {named}", advice="--allow-same-url permits several", field="url")


async def at_url(
    connection: Connection, tenant: TenantId, url: str, *, preferred: EndpointId | None = None
) -> EndpointId | None:
    """Return the id of the tenant's endpoint with this url, None if there is none.

    Of several it is the `preferred` one, else the one with the lowest id. Raises `Unavailable`.
    """
    endpoint_id: str | None = await _SQL.value(connection, "at_url", tenant, url, preferred)
    return None if endpoint_id is None else EndpointId(endpoint_id)


async def share_url(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Let the locked endpoint have the url of another one. Raises `Unavailable`."""
    await _SQL.execute(connection, "share_url", tenant, endpoint_id)


async def locked(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> EndpointSettings:
    """Lock the endpoint until the caller's transaction ends, and return its settings. Claims do not wait for this lock.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    row = await _SQL.row(connection, "lock", tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    schedule = row["retry_schedule"]
    return EndpointSettings(
        **dict(row)
        | {
            "event_types": tuple(row["event_types"]),
            "on_dead_letter": OnDeadLetter(row["on_dead_letter"]),
            "header_names": tuple(row["header_names"]),
            "retry_schedule": None if schedule is None else tuple(map(int, schedule)),
            "tls_shown": None if row["tls_shown"] is None else json.loads(row["tls_shown"]),
            "metadata": json.loads(row["metadata"]),
            "channels": tuple(row["channels"]),
        }
    )


async def change(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, settings: EndpointSettings) -> None:
    """Write the settings of the locked endpoint, except whether it is enabled or ordered.

    Raises `Conflict` if another endpoint of the tenant has the uid, `Unavailable`.
    """
    try:
        await _SQL.execute(
            connection,
            "change",
            tenant,
            endpoint_id,
            settings.event_types,
            settings.name,
            settings.timeout_ms,
            settings.max_attempts,
            settings.backoff_base_seconds,
            settings.backoff_cap_seconds,
            _words(settings.retry_schedule),
            settings.concurrency,
            settings.rate,
            settings.rotate_every_days,
            settings.header_names,
            None if settings.tls_shown is None else json.dumps(settings.tls_shown),
            settings.on_dead_letter,
            settings.uid,
            settings.description,
            json.dumps(settings.metadata),
            settings.channels,
        )
    except asyncpg.UniqueViolationError as error:
        raise _uid_taken(error) from None


async def enable(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Enable the locked endpoint. Raises `Unavailable`."""
    await _SQL.execute(connection, "enable", tenant, endpoint_id)


async def disable(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
    """Disable the locked endpoint from the next claim on. Raises `Unavailable`."""
    await _SQL.execute(connection, "disable", tenant, endpoint_id, reason)


async def delete(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Delete the row of the locked endpoint; its deliveries stay. Raises `Unavailable`."""
    await _SQL.execute(connection, "delete", tenant, endpoint_id)


async def smallest_drain_seconds(connection: Connection) -> int | None:
    """Return the shortest drain of the live workers in seconds, None if there are none.

    Raises `Unavailable`.
    """
    seconds: int | None = await _SQL.value(connection, "smallest_drain", LIVE_SECONDS)
    return seconds


def _words(numbers: tuple[int, ...] | None) -> list[str] | None:
    return None if numbers is None else [str(number) for number in numbers]
