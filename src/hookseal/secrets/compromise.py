"""What a master key that leaked may have given away: every version that was ever sealed under it, by the table."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.ground import paging
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.store import VersionState

_SQL: Final = statements("hookseal.secrets", "compromise.sql")
_BATCH: Final = 500
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
BEGINNING: Final = ("", "", 0)

Place = tuple[str, str, int]


class Remedy(StrEnum):
    """What ends the worth of a version that somebody may have read."""

    ROTATION = "rotation"
    END_OF_OVERLAP = "end_of_overlap"
    NEW_HEADER_VALUES = "new_header_values"
    NEW_CLIENT_KEY = "new_client_key"
    NEW_INTEGRITY_KEY = "new_integrity_key"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A version that was sealed under the key.

    `used_as` says how its endpoint has it now: current, previous, headers or tls; None for one that no endpoint names,
    and for the installation's own. `signs_on` tells of a previous one whose overlap runs, beside a current one that is
    not exposed.
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
    def place(self) -> Place:
        """Where it stands among all versions."""
        return self.tenant_id, self.name, self.version

    @property
    def remedy(self) -> Remedy:
        """What is to be done: what signs nothing any more, or ends with the rotation of another, asks for nothing."""
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


async def page(connection: Connection, key_id: str, after: Place, limit: int) -> list[Exposed]:
    """Return the next versions that were ever sealed under the key, of all tenants. Raises `SecretUnavailable`."""
    with outages_translated():
        rows = await connection.fetch(_SQL["exposed"], key_id, *after, limit)
    return [Exposed(**dict(row)) for row in rows]


async def exposed(connection: Connection, key_id: str) -> AsyncIterator[Exposed]:
    """Yield every version that was ever sealed under the key, in the order of `page`. Raises `SecretUnavailable`."""
    after: Place = BEGINNING
    while found := await page(connection, key_id, after, _BATCH):
        for each in found:
            yield each
        after = found[-1].place


def cursor_of(exposed: Exposed) -> str:
    """Return the cursor of the page that follows this version."""
    return paging.cursor_of("/".join(map(str, exposed.place)))


def place_of(cursor: str) -> Place:
    """Return where a page ended. Raises `Malformed` if no page gave the cursor."""
    match paging.place_of(cursor).split("/"):
        case [tenant, name, version] if _NUMBER.fullmatch(version) and "\0" not in tenant + name:
            return tenant, name, int(version)
        case _:
            raise paging.no_cursor()


async def count(connection: Connection, key_id: str) -> int:
    """Return how many versions were ever sealed under the key. Raises `SecretUnavailable`."""
    with outages_translated():
        number: int = await connection.fetchval(_SQL["count"], key_id)
    return number
