"""Endpoints, but for the columns that point at secrets: those belong to the secrets room."""

from dataclasses import dataclass
from typing import Final

import asyncpg

from hookseal.dispatcher.database import translated
from hookseal.ground.errors import Conflict, Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.dispatcher", "endpoints.sql")
MAX_NAME_CHARACTERS: Final = 128
MIN_TIMEOUT_MS: Final = 100
MAX_TIMEOUT_MS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """What an operator decides about an endpoint."""

    tenant_id: TenantId
    url: str
    event_types: tuple[str, ...]
    name: str | None
    timeout_ms: int


def endpoint_name(text: str | None) -> str | None:
    """Return the name, for people, if it is 1 to 128 printable characters. Raises `Malformed`."""
    if text is not None and not (0 < len(text) <= MAX_NAME_CHARACTERS and text.isprintable()):
        raise Malformed(f"name must be 1 to {MAX_NAME_CHARACTERS} printable characters", field="name")
    return text


async def insert(connection: Connection, endpoint: NewEndpoint) -> EndpointId:
    """Insert the endpoint in the caller's transaction, without a secret yet; return its id, a UUIDv7.

    Raises `Conflict` if the tenant has an endpoint with this url, `Unavailable`.
    """
    with translated():
        try:
            made: str = await connection.fetchval(
                _SQL["insert"],
                endpoint.tenant_id,
                endpoint.url,
                list(endpoint.event_types),
                endpoint.name,
                endpoint.timeout_ms,
            )
        except asyncpg.UniqueViolationError:
            raise Conflict("the tenant already has an endpoint with this url", field="url") from None
    return EndpointId(made)
