"""`hookseal endpoint public-key`: the key with which a receiver verifies ed25519 signatures."""

from typing import Any

from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, rfc3339
from hookseal.cli.shared.runtime import start
from hookseal.ground import ids
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint import reports


def public_key(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """Show the public key of the current secret, and of the previous one while an overlap runs.

    An endpoint that signs with hmac has no public key: its receiver needs the secret.

    Example: hookseal endpoint public-key --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    found = operate(start(NEEDS), lambda operator: reports.public_keys(operator, owner, wanted))
    emit(found, as_json=as_json, text=lambda: _text(found))


def _text(found: dict[str, Any]) -> str:
    hmac = f"none, for it signs with {Algorithm.HMAC}"
    lines = [f"current   {found['public_key'] or hmac}"]
    if found["previous_secret_ref"] is not None:
        until = rfc3339(found["previous_secret_expires_at"])
        lines.append(f"previous  {found['previous_public_key'] or hmac}, until {until}")
    return "\n".join(lines)
