"""Shared samples of these tests: keys, a context, a pointer. None of them is a real secret."""

import hashlib
from datetime import UTC, datetime

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.trust import IntegrityKey
from tests.doubles.replaced import replace

TENANT = TenantId("acme")
OTHER_TENANT = TenantId("bmce")
ENDPOINT = EndpointId("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER_ENDPOINT = EndpointId("01890a5d-ac96-774b-bcce-b302099a8058")
NAME = endpoint_secret_name(ENDPOINT)
READ_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def master_key(seed: str) -> MasterKey:
    """Return the same key for the same seed."""
    return MasterKey(SecretMaterial(hashlib.sha256(seed.encode()).digest()))


FIRST, SECOND, THIRD = master_key("first"), master_key("second"), master_key("third")
RING = KeyRing(FIRST)
SECRET = SecretMaterial(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER_SECRET = SecretMaterial(b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
CONTEXT = SecretContext(tenant=TENANT, name=NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING)
INTEGRITY = IntegrityKey(key_id="1", material=SecretMaterial(hashlib.sha256(b"integrity").digest()))


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
    audited_generation=None,
)


def signed(pointer: Pointer) -> Pointer:
    """Return the pointer with a valid MAC."""
    return replace(pointer, mac=INTEGRITY.mac(pointer), mac_key_id=INTEGRITY.key_id)
