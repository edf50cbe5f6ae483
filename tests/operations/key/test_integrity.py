"""The integrity key during changes of the master key, and with a provider without master keys."""

import os

import pytest

from hookseal.audit import log
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles.stored import Installation, keyring
from tests.secrets.samples import SECOND

pytestmark = pytest.mark.req("SEC-24", part="integrity-key")


async def test_a_new_master_key_opens_the_integrity_key(installation: Installation) -> None:
    """Under a new master key it still opens, its next version is sealed under that key, and all rows verify."""
    pool, first = installation.pool, keyring().sealing
    added = await installation.endpoint()
    await pool.execute("UPDATE hookseal.secret_keys SET state = 'decrypt_only'")
    await pool.execute(
        "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ($1, 'active', $2)",
        SECOND.key_id,
        SECOND.check_value,
    )
    unlocked = await unlock(pool, Provider.DB, KeyRing(SECOND, (first,)))
    unlocked.integrity.verify(added.pointer)
    async with pool.acquire() as connection:
        await rotate_integrity_key(Operator(connection=connection, unlocked=unlocked, who="ada@desk"), os.urandom)
    after = await Installation(pool=pool, unlocked=unlocked).endpoint("bmce")

    again = await unlock(pool, Provider.DB, KeyRing(SECOND, (first,)))
    for pointer, key_id in ((added.pointer, "1"), (after.pointer, "2")):
        assert key_id == pointer.mac_key_id
        again.integrity.verify(pointer)
    assert [None, None, None] == [each.broken for each in await log.verify(pool, again.integrity)]
    rows = await pool.fetch("SELECT key_id FROM hookseal.secret_records WHERE name = 'integrity' ORDER BY version")
    assert [first.key_id, SECOND.key_id] == [row["key_id"] for row in rows]


async def test_a_running_command_uses_the_newest_version(installation: Installation) -> None:
    """A long command uses a newer version from its next change on, and reads it on the changing connection."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as first, installation.pool.acquire() as lane:
        long = Operator(connection=lane, unlocked=await unlock(first, Provider.DB, keyring()), who="ada@desk")
        async with first.transaction():  # other lanes read there meanwhile, each on its own connection
            cursor = first.cursor("SELECT generate_series(1, 1000)")
            await anext(aiter(cursor))
            async with installation.pool.acquire() as another:
                await rotate_integrity_key(installation.operator(another), os.urandom)
                await rotate_secret(installation.operator(another), revocation(endpoint))
            await rotate_secret(long, revocation(endpoint))

    assert ("2", 3, "2") == tuple(
        await installation.pool.fetchrow(
            "SELECT mac_key_id, generation, (SELECT mac_key_id FROM hookseal.audit_log WHERE tenant_id = 'acme'"
            " ORDER BY sequence DESC LIMIT 1) FROM hookseal.endpoints"
        )
        or ()
    )


async def test_an_altered_version_stops_no_change(installation: Installation) -> None:
    """An altered newest version stops no change: the newest version that is known is used."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        long = Operator(
            connection=connection, unlocked=await unlock(installation.pool, Provider.DB, keyring()), who="a"
        )
        await rotate_integrity_key(installation.operator(connection), os.urandom)
        await installation.pool.execute(
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 40, 255 - get_byte(sealed, 40))"
            " WHERE name = 'integrity' AND version = 2"
        )
        await rotate_secret(long, revocation(endpoint))

    assert "1" == await installation.pool.fetchval("SELECT mac_key_id FROM hookseal.endpoints")


def revocation(endpoint: EndpointId) -> RotationRequest:
    """Return a revocation."""
    return RotationRequest(
        tenant_id=TenantId("acme"), endpoint_id=endpoint, overlap_seconds=0, secret=generate_signing_secret()
    )


async def test_a_provider_without_master_keys_stores_it(pool: Pool) -> None:
    """A provider without master keys stores the integrity key itself: it rotates, and older versions still verify."""
    unlocked = await unlock(pool, Provider.DEV, None)
    message = b"a message"
    before = unlocked.integrity.authenticate(message)
    async with pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        rotated = await rotate_integrity_key(operator, os.urandom)

    assert ("2", ("1",), None) == (rotated.key_id, rotated.older, await unlocked.sealing_key_id(pool))
    assert unlocked.integrity.is_authentic(message, before, "1")
    assert before != unlocked.integrity.authenticate(message)
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.secret_records")
