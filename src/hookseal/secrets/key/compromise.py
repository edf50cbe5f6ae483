"""Lists what a leaked master key exposes: every version in the table that was ever sealed under it."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.ground import ids
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.postgres.pool import Connection
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.statements import statements
from hookseal.secrets.store.port import VersionState

_SQL: Final = statements("compromise.sql", package="hookseal.secrets.key")
_BATCH: Final = 500
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
BEGINNING: Final = ("", "", 0)

Cursor = tuple[str, str, int]


class Remedy(StrEnum):
    """What makes an exposed version worthless."""

    ROTATION = "rotation"
    END_OF_OVERLAP = "end_of_overlap"
    NEW_HEADER_VALUES = "new_header_values"
    NEW_CLIENT_KEY = "new_client_key"
    NEW_INTEGRITY_KEY = "new_integrity_key"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A version that was sealed under the key.

    `used_as` is the column in which its endpoint names it now: current, previous, headers or tls. It is None for a
    version that no endpoint names, and for the installation's own. `signs_on`: it is the previous version of a running
    overlap, and the current version is not exposed.
    """

    tenant_id: TenantId
    name: str
    version: int
    ref: str
    purpose: str
    state: str
    endpoint_id: EndpointId | None
    generation: int | None
    used_as: str | None
    signs_on: bool = False

    @property
    def place(self) -> Cursor:
        """Its position in the order of all versions."""
        return self.tenant_id, self.name, self.version

    @property
    def remedy(self) -> Remedy:
        """What to do. NONE if it no longer signs, or if the rotation of another version ends its use."""
        if self.used_as == "current":
            return Remedy.ROTATION
        if self.signs_on:
            return Remedy.END_OF_OVERLAP
        if self.used_as == "headers":
            return Remedy.NEW_HEADER_VALUES
        if self.used_as == "tls":
            return Remedy.NEW_CLIENT_KEY
        is_integrity = self.tenant_id == SYSTEM_TENANT and self.name == INTEGRITY_NAME
        return Remedy.NEW_INTEGRITY_KEY if is_integrity and self.state == VersionState.ACTIVE else Remedy.NONE


async def page(connection: Connection, key_id: str, after: Cursor, limit: int) -> list[Exposed]:
    """Return a page of the versions of all tenants that were ever sealed under the key. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(connection, "exposed", key_id, *after, limit)
    return [Exposed(**dict(row)) for row in rows]


async def exposed(connection: Connection, key_id: str) -> AsyncIterator[Exposed]:
    """Yield every version that was ever sealed under the key, in the order of `page`. Raises `SecretUnavailable`."""
    after: Cursor = BEGINNING
    while versions := await page(connection, key_id, after, _BATCH):
        for version in versions:
            yield version
        after = versions[-1].place


def cursor_of(exposed: Exposed) -> str:
    """Return the cursor of the page that follows this version."""
    return ids.encode_cursor("/".join(map(str, exposed.place)))


def place_of(cursor: str) -> Cursor:
    """Return the position in a cursor. Raises `Malformed` if `cursor_of` did not make it."""
    match ids.decode_cursor(cursor).split("/"):
        case [tenant, name, version] if _NUMBER.fullmatch(version) and "\0" not in tenant + name:
            return tenant, name, int(version)
        case _:
            raise ids.invalid_cursor()


async def count(connection: Connection, key_id: str) -> int:
    """Return how many versions were ever sealed under the key. Raises `SecretUnavailable`."""
    number: int = await _SQL.value(connection, "count", key_id)
    return number
