"""Writes endpoints, except the columns that point to secrets, which belong to the room `secrets`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import asyncpg
import msgspec

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.core.endpoint_settings import EndpointSettings, complete
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
    """An endpoint to be created, with those of its settings that were given.

    `header_names` are the names of the headers whose values the room `secrets` stores, and `tls_shown` describes the
    certificates that it stores. `endpoint_id` is set for an endpoint of an older system; otherwise an id is made. If
    `shares_url`, another endpoint of the tenant may have its url.
    """

    tenant_id: TenantId
    url: str
    event_types: tuple[str, ...]
    settings: EndpointSettings = field(default_factory=EndpointSettings)
    scheme: Scheme = Scheme.STANDARD
    algorithm: Algorithm = Algorithm.HMAC
    header_names: tuple[str, ...] = ()
    tls_shown: Mapping[str, Any] | None = None
    endpoint_id: EndpointId | None = None
    shares_url: bool = False

    @property
    def uid(self) -> str | None:
        """The id of the product's own, None without one."""
        return self.settings.get("uid")

    @property
    def ordered(self) -> bool:
        """Whether its deliveries are sent one after another."""
        return self.settings.get("ordered", False)


class StoredEndpoint(EndpointSettings):
    """The columns of an endpoint row that this room writes."""

    event_types: tuple[str, ...]
    header_names: tuple[str, ...]
    tls_shown: Mapping[str, Any] | None
    enabled: bool
    disabled_reason: str | None


async def insert(connection: Connection, endpoint: NewEndpoint) -> EndpointId:
    """Insert the endpoint without a secret, in the caller's transaction; return its id, by default a new UUIDv7.

    The room `secrets` writes its scheme and algorithm together with the pointer. Raises `Conflict` if the tenant
    already has an endpoint with this url, which it may not share, or with this uid, if the id exists, or if the tenant
    is deleted, `Unavailable`.
    """
    row = complete(endpoint.settings) | {"event_types": endpoint.event_types}
    try:
        inserted: str | None = await _SQL.value(
            connection,
            "insert",
            endpoint.tenant_id,
            endpoint.endpoint_id,
            endpoint.url,
            endpoint.shares_url,
            _encoded(row),
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


def _encoded(row: Mapping[str, Any]) -> str:
    return msgspec.json.encode(row, enc_hook=dict).decode()


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


async def locked(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> StoredEndpoint:
    """Lock the endpoint until the caller's transaction ends, and return its settings. Claims do not wait for this lock.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    row: str | None = await _SQL.value(connection, "lock", tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    values: dict[str, Any] = msgspec.json.decode(row)
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return cast("StoredEndpoint", frozen)


async def change(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, row: Mapping[str, Any]) -> None:
    """Write the settings of the locked endpoint, except whether it is enabled or ordered.

    Raises `Conflict` if another endpoint of the tenant has the uid, `Unavailable`.
    """
    try:
        await _SQL.execute(connection, "change", tenant, endpoint_id, _encoded(row))
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
