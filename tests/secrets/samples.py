"""Samples of these tests: keys, a context, a pointer, records under a key. None of them is a real secret."""

import hashlib
from datetime import UTC, datetime

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Executor, connected
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import require_signing_secret
from hookseal.secrets.core.trust import IntegrityKey
from tests.doubles.replaced import replace

TENANT = TenantId("acme")
OTHER_TENANT = TenantId("bmce")
ENDPOINT = EndpointId("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER_ENDPOINT = EndpointId("01890a5d-ac96-774b-bcce-b302099a8058")
NAME = endpoint_secret_name(ENDPOINT)
READ_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def master_key(seed: str) -> MasterKey:
    return MasterKey(SecretMaterial(hashlib.sha256(seed.encode()).digest()))


FIRST, SECOND, THIRD = master_key("first"), master_key("second"), master_key("third")
RING = KeyRing(FIRST)
SECRET = SecretMaterial(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER_SECRET = SecretMaterial(b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
CONTEXT = SecretContext(tenant=TENANT, name=NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING)
INTEGRITY = IntegrityKey(key_id="1", material=SecretMaterial(hashlib.sha256(b"integrity").digest()))


def signing_secret(text: str, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC) -> SecretMaterial:
    """Return the secret of this text. Raises `Malformed` unless it can sign in the scheme with the algorithm."""
    secret = SecretMaterial(text.encode(errors="surrogatepass"))
    require_signing_secret(secret, scheme, algorithm)
    return secret


def ref(version: int, provider: Provider = Provider.DEV) -> SecretRef:
    """Return the reference of that version of the endpoint's signing secret."""
    return SecretRef(provider=provider, tenant=TENANT, name=NAME, version=version)


BARE = Pointer(
    tenant_id=TENANT,
    endpoint_id=ENDPOINT,
    url="https://example.com/hooks",
    scheme="standard",
    algorithm="hmac",
    secret_ref=str(ref(1)),
    previous_secret_ref=None,
    previous_secret_expires_at=None,
    previous_scheme=None,
    previous_algorithm=None,
    previous_due=False,
    headers_ref=None,
    lead="previous",
    generation=1,
    mac=None,
    mac_key_id=None,
    cache_epoch=0,
    restore_epoch=0,
    read_at=READ_AT,
    audited_generation=1,
)


def signed(pointer: Pointer) -> Pointer:
    """Return the pointer with a valid MAC, and its generation in the audit log."""
    pointer = replace(pointer, audited_generation=pointer.generation)
    return replace(pointer, mac=INTEGRITY.mac(pointer), mac_key_id=INTEGRITY.key_id)


_KEY = "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ($1, $2, $3)"
_RECORD = """
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, wrapped_by)
VALUES ($1, $2, $3, 'db', $4, $5, ARRAY[$6::text])
"""


async def register(source: Executor, key: MasterKey = FIRST, state: str = "active") -> None:
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
