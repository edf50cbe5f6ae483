"""`hookseal endpoint public-key`: what a receiver verifies the ed25519 signatures of an endpoint with."""

from typing import Any

from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, rfc3339
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.ground import ids
from hookseal.ground.errors import Refused
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.secrets import pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.signer import Signer, public_key_of


def public_key(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """Show the public key that verifies what is signed now, and the previous one while it signs too.

    An endpoint that signs with hmac has none: its receiver needs the secret.

    Example: hookseal endpoint public-key --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    found = run(_found(start(NEEDS), ids.tenant_id(tenant), ids.endpoint_id(endpoint)))
    emit(found, as_json=as_json, text=lambda: _text(found))


async def _found(settings: Settings, tenant: ids.TenantId, endpoint: ids.EndpointId) -> dict[str, Any]:
    async with operating(settings) as operator, operator.changing() as connection:  # nothing moves it meanwhile
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint)
        async with operator.unlocked.service.signers(found) as signers:  # once the row and its refs were checked
            keys = [await _public(operator, signer) for signer in signers]
    if not any(keys):
        raise Refused(
            f"the endpoint signs with {Algorithm.HMAC}, which has no public key: "
            f"`hookseal endpoint rotate --algorithm {Algorithm.ED25519}` gives it one",
            field="endpoint",
        )
    return _shape(found, keys)


async def _public(operator: Operator, signer: Signer) -> str | None:
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
