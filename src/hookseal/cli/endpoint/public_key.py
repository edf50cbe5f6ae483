"""`hookseal endpoint public-key`: the key with which a receiver verifies ed25519 signatures."""

from typing import Any

from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, rfc3339
from hookseal.cli.shared.runtime import start
from hookseal.ground import ids
from hookseal.ground.errors import Refused
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.ref import Purpose, SecretRef
from hookseal.secrets.signing.signer import Signer, public_key_of


def public_key(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """Show the public key of the current secret, and of the previous one while an overlap runs.

    An endpoint that signs with hmac has no public key: its receiver needs the secret.

    Example: hookseal endpoint public-key --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    found = operate(start(NEEDS), lambda operator: _public_keys(operator, owner, wanted))
    emit(found, as_json=as_json, text=lambda: _text(found))


async def _public_keys(operator: Operator, tenant: ids.TenantId, endpoint: ids.EndpointId) -> dict[str, Any]:
    async with operator.changing() as connection:  # the row is locked, so that no rotation changes it meanwhile
        found = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint)
        async with operator.unlocked.service.signers(found) as signers:  # checks the row and its references first
            keys = [await _public_key(operator, signer) for signer in signers]
    if not any(keys):
        raise Refused(
            f"the endpoint signs with {Algorithm.HMAC}, which has no public key: "
            f"`hookseal endpoint rotate --algorithm {Algorithm.ED25519}` gives it one",
            field="endpoint",
        )
    return _shape(found, keys)


async def _public_key(operator: Operator, signer: Signer) -> str | None:
    if signer.algorithm is not Algorithm.ED25519:
        return None
    store = operator.unlocked.store_on(operator.connection)
    return public_key_of(await store.get(SecretRef.parse(signer.ref), purpose=Purpose.WEBHOOK_SIGNING))


def _shape(found: Pointer, keys: list[str | None]) -> dict[str, Any]:
    current, previous = keys if found.previous_due else (keys[0], None)
    return {
        "tenant_id": found.tenant_id,
        "endpoint_id": found.endpoint_id,
        "generation": found.generation,
        "secret_ref": found.secret_ref,
        "public_key": current,
        "previous_secret_ref": found.previous_secret_ref if found.previous_due else None,
        "previous_secret_expires_at": found.previous_secret_expires_at if found.previous_due else None,
        "previous_public_key": previous,
    }


def _text(found: dict[str, Any]) -> str:
    hmac = f"none, for it signs with {Algorithm.HMAC}"
    lines = [f"current   {found['public_key'] or hmac}"]
    if found["previous_secret_ref"] is not None:
        until = rfc3339(found["previous_secret_expires_at"])
        lines.append(f"previous  {found['previous_public_key'] or hmac}, until {until}")
    return "\n".join(lines)
