"""Public keys from Python: many calls at once, and in a transaction of the caller."""

import asyncio
from typing import Any

import pytest

from hookseal import Admin
from hookseal.audit.chain import Action
from hookseal.dispatcher.store import endpoints
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import NotFound, SecretUnusable
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.ref import Purpose, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint import pointer
from tests.doubles.stored import Installation

JANE = "jane@product.example"
NEW: dict[str, Any] = {
    "tenant_id": "acme",
    "url": "https://receiver.example/hook",
    "event_types": ["*"],
    "algorithm": "ed25519",
    "actor": JANE,
}
AT_ONCE = 30  # three times the connections of an Admin


async def test_many_calls_at_once_all_return_the_key(admin: Admin) -> None:
    """More calls at once than the Admin has connections: each waits for one, and none for a second one."""
    # One endpoint for each call, because a call locks its endpoint's row.
    urls = [f"https://receiver.example/{number}" for number in range(AT_ONCE)]
    added = [await admin.endpoints.add(**NEW | {"url": url}) for url in urls]
    asked = [admin.secrets.public_keys(tenant_id="acme", endpoint_id=each.endpoint_id) for each in added]
    keys = await asyncio.gather(*asked)

    assert [each.public_key for each in added] == [each.public_key for each in keys]


async def test_the_keys_are_those_of_the_callers_transaction(admin: Admin, installation: Installation) -> None:
    """Keys that the caller's transaction has made are returned in it, and are gone after its rollback."""
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        added = await admin.endpoints.add(**NEW, connection=connection)
        named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
        first = await admin.secrets.public_keys(**named, connection=connection)
        rotated = await admin.secrets.rotate(**named, actor=JANE, connection=connection)
        both = await admin.secrets.public_keys(**named, connection=connection)
        await transaction.rollback()
    with pytest.raises(NotFound):
        await admin.secrets.public_keys(**named)

    assert (added.public_key, None) == (first.public_key, first.previous_public_key)
    assert (rotated.public_key, added.public_key) == (both.public_key, both.previous_public_key)


async def test_a_stored_secret_that_is_no_key_pair_is_refused(admin: Admin, installation: Installation) -> None:
    """A row that says ed25519 with a secret that is none is an error, and not an endpoint that signs with hmac."""
    acme, unlocked = TenantId("acme"), installation.unlocked
    new = NewEndpoint(tenant_id=acme, url=NEW["url"], event_types=("*",), algorithm=Algorithm.ED25519)
    async with installation.pool.acquire() as connection, connection.transaction():
        endpoint = await endpoints.insert(connection, new)
        name, hmac = endpoint_secret_name(endpoint), generate_signing_secret()
        ref = await unlocked.store_on(connection).put(acme, name, hmac, purpose=Purpose.WEBHOOK_SIGNING)
        first = pointer.InitialSecrets(ref=ref, scheme=Scheme.STANDARD, algorithm=Algorithm.ED25519)
        row = await pointer.set_initial(connection, unlocked.integrity, tenant=acme, endpoint_id=endpoint, to=first)
        await installation.operator(connection).audit(Action.ENDPOINT_ADDED, of=row, after={"generation": 1})

    with pytest.raises(SecretUnusable, match="rotate it"):
        await admin.secrets.public_keys(tenant_id="acme", endpoint_id=endpoint)
