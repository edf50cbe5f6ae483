"""An Admin keeps its secrets unlocked, and follows what another process changes as a new Admin would."""

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hookseal import Admin
from hookseal.errors import ConfigError, Defect, HooksealError, SecretTampered
from hookseal.operations import unlocking
from hookseal.operations.key.keys import CompromiseOptions, drill, rotate_integrity_key
from hookseal.operations.unlocking import KeptSecrets
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext, SecretRef
from tests.doubles.master_keys import (
    KEEP,
    NEW,
    NEWER,
    OLD,
    PUT_BACK,
    destroy,
    holding,
    promote,
    replaced,
    retire,
    stage,
)
from tests.doubles.stored import Installation, keyring

JANE = "jane@product.example"
_INTEGRITY = "SELECT ref FROM hookseal.secret_records WHERE tenant_id = '_system' AND name = 'integrity'"
_REPLACE = "UPDATE hookseal.secret_records SET sealed = $2 WHERE ref = $1"
_DAMAGE = "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 200, get_byte(sealed, 200) # 1) WHERE ref = $1"
# Under which keys the last endpoint was written.
_LAST = """
SELECT format('sealed %s, mac %s', r.key_id, e.mac_key_id)
  FROM hookseal.endpoints AS e
  JOIN hookseal.secret_records AS r ON r.tenant_id = e.tenant_id AND r.ref = e.secret_ref
 WHERE e.id = $1::text::uuid
"""

Change = Callable[[Installation], Awaitable[object]]


async def _promote_held(process: Installation) -> None:
    await promote(process, NEW)


async def _promote_unknown(process: Installation) -> None:
    await stage(process, NEWER)
    await promote(await holding(process, OLD, NEW, NEWER), NEWER)


async def _retire(process: Installation) -> None:
    await process.pool.execute(KEEP)
    await promote(process, NEW)
    await replaced(process, OLD)
    await retire(process, OLD)


async def _put_back(process: Installation) -> None:
    """Let records under a retired key return, as a restore does."""
    await _retire(process)
    await process.pool.execute(PUT_BACK)


async def _destroy(process: Installation) -> None:
    await _retire(process)
    await destroy(await holding(process, NEW), OLD)


async def _compromise(process: Installation) -> None:
    await promote(process, NEW)
    how = CompromiseOptions(overlap_seconds=0, force=True, dry_run=False, random_bytes=os.urandom)
    async with process.pool.acquire() as connection:
        await drill(process.operator(connection), OLD.key_id, how, lambda _: None)


async def _rotate_integrity(process: Installation) -> None:
    async with process.pool.acquire() as connection:
        await rotate_integrity_key(process.operator(connection), os.urandom)


async def _replace_integrity(process: Installation) -> None:
    """Give the integrity key other material under the same number, as a restore and a rotation may."""
    ref = await process.pool.fetchval(_INTEGRITY)
    context = SecretContext.of(SecretRef.parse(ref, reserved=True), Purpose.INTEGRITY)
    await process.pool.execute(_REPLACE, ref, seal(keyring(), SecretMaterial(os.urandom(32)), context))


async def _damage_integrity(process: Installation) -> None:
    await process.pool.execute(_DAMAGE, await process.pool.fetchval(_INTEGRITY))


# What a new Admin does after each change: it makes MACs and seals under these, or fails.
CHANGES: dict[str, tuple[Change, str]] = {
    "another active key": (_promote_held, f"sealed {NEW.key_id}, mac 1"),
    "an active key that it lacks": (_promote_unknown, f"ConfigError: master key {NEWER.key_id} is the active one"),
    "a retired key": (_retire, f"sealed {NEW.key_id}, mac 1"),
    "records under a retired key": (_put_back, f"KeyRetired: master key {OLD.key_id} is retired"),
    "a destroyed key": (_destroy, f"ConfigError: master key {OLD.key_id} was destroyed"),
    "a compromised key": (_compromise, f"sealed {NEW.key_id}, mac 2"),
    "another integrity key": (_rotate_integrity, f"sealed {OLD.key_id}, mac 2"),
    "an integrity key of the same number": (_replace_integrity, "SecretTampered: the endpoint row was altered"),
    "a damaged integrity key": (_damage_integrity, "RecordTampered: "),
}


@pytest.fixture
async def process(installation: Installation) -> Installation:
    """Return another process, with the key of the installation and the next one, which is staged."""
    await stage(installation, NEW)
    return await holding(installation, OLD, NEW)


@pytest.fixture
def environ(environ: dict[str, str], process: Installation) -> dict[str, str]:
    """Return settings with both keys."""
    return environ | {"SECRETS_MASTER_KEY_PREVIOUS": base64.b64encode(NEW.material.reveal()).decode()}


async def outcome(admin: Admin, witness: Admin, endpoint_id: str, pool: Pool) -> str:
    """Return how the Admin changes and reads secrets now; the witness must be able to read what it wrote."""
    url = f"https://receiver.example/{os.urandom(8).hex()}"
    try:
        added = await admin.endpoints.add(tenant_id="acme", url=url, event_types=["*"], actor=JANE)
        await witness.secrets.reveal(tenant_id="acme", endpoint_id=added.endpoint_id, actor=JANE)
        await admin.secrets.reveal(tenant_id="acme", endpoint_id=endpoint_id, actor=JANE)
    except HooksealError as error:
        return f"{type(error).__name__}: {error}"
    written: str = await pool.fetchval(_LAST, added.endpoint_id)
    return written


@pytest.mark.parametrize("name", CHANGES)
async def test_a_long_lived_admin_does_as_a_new_one(name: str, process: Installation, environ: dict[str, str]) -> None:
    """Whatever changes of the keys, its next call has the result that it has in a new process."""
    change, expected = CHANGES[name]
    endpoint_id = (await process.endpoint()).pointer.endpoint_id
    async with Admin.connect(environ=environ) as old:
        await old.secrets.reveal(tenant_id="acme", endpoint_id=endpoint_id, actor=JANE)
        await change(process)
        async with Admin.connect(environ=environ) as new:
            of_old = await outcome(old, new, endpoint_id, process.pool)
            of_new = await outcome(new, new, endpoint_id, process.pool)

    assert of_new == of_old
    assert of_old.startswith(expected)


async def test_a_joined_change_follows_keys_that_its_transaction_does_not_see(
    process: Installation, admin: Admin
) -> None:
    """In a transaction that began before a key was destroyed, a change fails all the same."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor=JANE)
    async with process.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM hookseal.secret_keys")  # this takes the snapshot
        await _destroy(process)
        with pytest.raises(ConfigError, match="was destroyed"):
            await admin.secrets.rotate(
                tenant_id="acme", endpoint_id=added.endpoint_id, actor=JANE, connection=connection
            )


async def test_a_joined_change_does_not_turn_the_integrity_key_back(process: Installation, admin: Admin) -> None:
    """A transaction that began before the integrity key was rotated changes nothing for the others: MACs are new."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor=JANE)
    of: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": JANE}
    async with process.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM hookseal.secret_records")  # this takes the snapshot
        rotated = await admin.keys.rotate_integrity(actor=JANE)
        await admin.endpoints.add(
            tenant_id="acme", url="https://b.example", event_types=["*"], actor=JANE, connection=connection
        )
    await admin.endpoints.update(**of, url="https://c.example")
    assert rotated.key_id == await process.pool.fetchval(
        "SELECT mac_key_id FROM hookseal.endpoints WHERE url = 'https://c.example'"
    )


async def test_a_change_while_it_unlocks_is_noticed(
    process: Installation, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is destroyed just after the table of keys was read fails the next call."""
    unlock = unlocking.unlock_for_changes

    async def then_destroyed(*given: Any, **how: Any) -> Unlocked:
        unlocked = await unlock(*given, **how)
        monkeypatch.setattr(unlocking, "unlock_for_changes", unlock)
        await _destroy(process)
        return unlocked

    monkeypatch.setattr(unlocking, "unlock_for_changes", then_destroyed)
    new: dict[str, Any] = {"tenant_id": "acme", "event_types": ["*"], "actor": JANE}
    await admin.endpoints.add(**new, url="https://a.example")
    with pytest.raises(ConfigError, match="was destroyed"):
        await admin.endpoints.add(**new, url="https://b.example")


async def test_what_failed_is_not_kept(process: Installation, admin: Admin) -> None:
    """An Admin that cannot unlock fails at each call, and works again once the keys fit."""
    change: dict[str, Any] = {"tenant_id": "acme", "url": "https://a.example", "event_types": ["*"], "actor": JANE}
    await process.endpoint()
    await process.pool.execute("UPDATE hookseal.control SET token = NULL WHERE name = 'installation'")
    for _ in range(2):
        with pytest.raises(SecretTampered, match="installation"):
            await admin.endpoints.add(**change)
    await process.pool.execute("UPDATE hookseal.control SET token = gen_random_uuid() WHERE name = 'installation'")
    await admin.endpoints.add(**change)


async def test_calls_at_once_unlock_once(process: Installation, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls notice a change, the secrets are unlocked once for all of them."""
    unlocked = []
    unlock = KeptSecrets._unlock

    async def counted(kept: KeptSecrets) -> object:
        unlocked.append(kept)
        return await unlock(kept)

    monkeypatch.setattr(KeptSecrets, "_unlock", counted)
    ids = [(await process.endpoint(url=f"https://a.example/{number}")).pointer.endpoint_id for number in range(5)]
    for _ in range(2):
        await asyncio.gather(*[admin.secrets.reveal(tenant_id="acme", endpoint_id=each, actor=JANE) for each in ids])
        await process.pool.execute("UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'")

    assert 2 == len(unlocked)


async def test_kept_secrets_are_not_used_before_they_were_compared(process: Installation, admin: Admin) -> None:
    """Outside of a transaction that has compared them, there are none to use."""
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor=JANE)
    async with admin.endpoints._session.changing(JANE) as operator:
        with pytest.raises(Defect):
            operator.unlocked  # noqa: B018 -- reading it is the test
        async with operator.changing():
            assert process.unlocked.integrity.key_id == operator.unlocked.integrity.key_id
