"""Endpoints, but for the columns that point at secrets: those belong to the secrets room."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.dispatcher", "endpoints.sql")
_OF_ID: Final = frozenset({"endpoints_pkey", "endpoints_id_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """What an operator decides about an endpoint; the limits are in `endpoint_rules`.

    `retry_schedule`, if there is one, holds the seconds between the attempts and stands in place of
    `max_attempts`, `backoff_base_seconds` and `backoff_cap_seconds`. `header_names` names the headers whose
    values the secrets room keeps, `tls_shown` tells of the certificates that it keeps. `endpoint_id` is that of an
    older system; without one it is made.
    """

    tenant_id: TenantId
    url: str
    event_types: tuple[str, ...]
    name: str | None = None
    timeout_ms: int = 5_000
    scheme: Scheme = Scheme.STANDARD
    algorithm: Algorithm = Algorithm.HMAC
    max_attempts: int = 10
    backoff_base_seconds: int = 30
    backoff_cap_seconds: int = 43_200
    retry_schedule: tuple[int, ...] | None = None
    rotate_every_days: int | None = None
    header_names: tuple[str, ...] = ()
    tls_shown: Mapping[str, Any] | None = None
    endpoint_id: EndpointId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What stands in an endpoint row of the columns that this room writes."""

    event_types: tuple[str, ...]
    name: str | None
    timeout_ms: int
    max_attempts: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    retry_schedule: tuple[int, ...] | None
    rotate_every_days: int | None
    header_names: tuple[str, ...]
    tls_shown: Mapping[str, Any] | None
    enabled: bool
    disabled_reason: str | None


async def insert(connection: Connection, endpoint: NewEndpoint) -> EndpointId:
    """Insert the endpoint in the caller's transaction, without a secret yet; return its id, a UUIDv7 unless given.

    Its scheme and algorithm are written with the pointer, by the secrets room. Raises `Conflict` if the tenant has an
    endpoint with this url, or there is one with the given id, `Unavailable`.
    """
    with translated():
        try:
            made: str | None = await connection.fetchval(
                _SQL["insert"],
                endpoint.tenant_id,
                endpoint.url,
                list(endpoint.event_types),
                endpoint.name,
                endpoint.timeout_ms,
                endpoint.max_attempts,
                endpoint.backoff_base_seconds,
                endpoint.backoff_cap_seconds,
                endpoint.retry_schedule,
                endpoint.rotate_every_days,
                endpoint.endpoint_id,
            )
            if made is None:
                raise url_taken(await at_url(connection, endpoint.tenant_id, endpoint.url))
            if endpoint.header_names:
                await connection.execute(_SQL["name_headers"], endpoint.tenant_id, made, endpoint.header_names)
            if endpoint.tls_shown is not None:
                await connection.execute(_SQL["show_tls"], endpoint.tenant_id, made, json.dumps(endpoint.tls_shown))
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name in _OF_ID:
                raise Conflict("there is an endpoint with this id already", field="endpoint_id") from None
            raise
    return EndpointId(made)


def url_taken(by: EndpointId | None) -> Conflict:
    """Return the error of a url that another endpoint of the tenant has; None if that is gone by now."""
    named = "an endpoint with this url" if by is None else f"an endpoint with this url, {by}"
    return Conflict(f"the tenant already has {named}", field="url")


async def at_url(connection: Connection, tenant: TenantId, url: str) -> EndpointId | None:
    """Return which endpoint of the tenant has this url, None if none has. Raises `Unavailable`."""
    with translated():
        found: str | None = await connection.fetchval(_SQL["at_url"], tenant, url)
    return None if found is None else EndpointId(found)


async def locked(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> Decided:
    """Return what was decided, which nobody else changes until the caller's transaction ends; claims go on.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    with translated():
        row = await connection.fetchrow(_SQL["lock"], tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    schedule = row["retry_schedule"]
    return Decided(
        **dict(row)
        | {
            "event_types": tuple(row["event_types"]),
            "header_names": tuple(row["header_names"]),
            "retry_schedule": None if schedule is None else tuple(schedule),
            "tls_shown": None if row["tls_shown"] is None else json.loads(row["tls_shown"]),
        }
    )


async def change(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, decided: Decided) -> None:
    """Write what is decided now into the locked row, but for whether it is enabled. Raises `Unavailable`."""
    with translated():
        await connection.execute(
            _SQL["change"],
            tenant,
            endpoint_id,
            decided.event_types,
            decided.name,
            decided.timeout_ms,
            decided.max_attempts,
            decided.backoff_base_seconds,
            decided.backoff_cap_seconds,
            decided.retry_schedule,
            decided.rotate_every_days,
            decided.header_names,
            None if decided.tls_shown is None else json.dumps(decided.tls_shown),
        )


async def enable(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Let the locked endpoint take deliveries again. Raises `Unavailable`."""
    with translated():
        await connection.execute(_SQL["enable"], tenant, endpoint_id)


async def disable(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
    """Give the locked endpoint nothing more, from the next claim on. Raises `Unavailable`."""
    with translated():
        await connection.execute(_SQL["disable"], tenant, endpoint_id, reason)


async def delete(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Delete the row of the locked endpoint; its deliveries stay. Raises `Unavailable`."""
    with translated():
        await connection.execute(_SQL["delete"], tenant, endpoint_id)


async def smallest_drain_seconds(connection: Connection) -> int | None:
    """Return the shortest drain among the workers that are live, None if there is none.

    Raises `Unavailable`.
    """
    with translated():
        seconds: int | None = await connection.fetchval(_SQL["smallest_drain"], LIVE_SECONDS)
    return seconds
