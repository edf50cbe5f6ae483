"""Registered master keys, and records under a key whatever its state in the table is."""

from hookseal.postgres.pool import Executor, connected
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef
from tests.secrets.samples import FIRST, SECRET, ref

_KEY = "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ($1, $2, $3)"
_RECORD = """
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, wrapped_by)
VALUES ($1, $2, $3, 'db', $4, $5, ARRAY[$6::text])
"""


async def register(source: Executor, key: MasterKey = FIRST, state: str = "active") -> None:
    """Register the key in that state."""
    async with connected(source) as connection:
        await connection.execute(_KEY, key.key_id, state, key.check_value)


async def sealed_under(source: Executor, key: MasterKey, of: SecretRef | None = None) -> SecretRef:
    """Store the sample secret under this key, as the version that the ref names, and return the ref."""
    kept = ref(1, Provider.DB) if of is None else of
    record = seal(KeyRing(key), SECRET, SecretContext.of(kept, Purpose.WEBHOOK_SIGNING))
    async with connected(source) as connection:
        purpose = Purpose.WEBHOOK_SIGNING.value
        await connection.execute(_RECORD, kept.tenant, kept.name, kept.version, purpose, record, key.key_id)
    return kept
