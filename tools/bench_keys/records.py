"""The records that are re-wrapped: secrets of endpoints that do not exist, each identified by its number."""

import hashlib
from typing import Final

from hookseal.errors import SecretError
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext

_TENANTS: Final = 100
_COLUMNS: Final = ("tenant_id", "name", "version", "provider", "purpose", "scheme", "sealed", "wrapped_by")
_PREFIX: Final = "webhook-endpoint-01890a5d-ac96-774b-bcce-"
_SEALED: Final = "SELECT tenant_id, name, sealed FROM hookseal.secret_records WHERE starts_with(name, $1)"
_COUNT: Final = "SELECT count(*) FROM hookseal.secret_records WHERE key_id = $1"


async def keep(connection: Connection, ring: KeyRing, number: int) -> None:
    """Store that many records under the active key of the ring."""
    key_id = ring.sealing.key_id
    rows = []
    for count in range(number):
        context = _context(f"bench-{count % _TENANTS:02}", f"{_PREFIX}{count:012x}")
        sealed = seal(ring, _secret(count), context)
        named = (context.tenant, context.name, context.version, "db", context.purpose.value, "standard")
        rows.append((*named, sealed, [key_id]))
    await connection.copy_records_to_table(
        "secret_records", schema_name="hookseal", columns=list(_COLUMNS), records=rows
    )
    await connection.execute("ANALYZE hookseal.secret_records")


async def under(connection: Connection, key_id: str) -> int:
    """Return the number of records under that key."""
    return int(await connection.fetchval(_COUNT, key_id))


async def opened(connection: Connection, ring: KeyRing) -> int:
    """Return the number of records that decrypt to their original secret."""
    return sum([_opens(ring, *row) for row in await connection.fetch(_SEALED, _PREFIX)])


def _opens(ring: KeyRing, tenant: str, name: str, sealed: bytes) -> bool:
    try:
        return open_sealed(ring, sealed, _context(tenant, name)) == _secret(int(name.removeprefix(_PREFIX), 16))
    except SecretError:
        return False


def _context(tenant: str, name: str) -> SecretContext:
    return SecretContext(tenant=TenantId(tenant), name=name, version=1, purpose=Purpose.WEBHOOK_SIGNING)


def _secret(number: int) -> SecretMaterial:
    return SecretMaterial(b"whsec_" + hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:44].encode())
