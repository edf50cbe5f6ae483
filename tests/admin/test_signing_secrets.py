"""Signing secrets from Python: rotated, rolled back, revoked and revealed, and in no repr."""

import asyncio
import base64
import copy
import pickle
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import AddedEndpoint
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.errors import Conflict, InDoubt, Malformed
from tests.cli.lost_commit_proxy import losing_the_commit
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("DEL-18", part="manage")

JANE = "jane@product.example"
NEW: dict[str, Any] = {
    "tenant_id": "acme",
    "url": "https://receiver.example/hook",
    "event_types": ["*"],
    "actor": JANE,
}


@pytest.fixture
async def added(admin: Admin) -> AddedEndpoint:
    """Return a new endpoint."""
    return await admin.endpoints.add(**NEW)


def named(added: AddedEndpoint, **more: Any) -> dict[str, Any]:
    """Return the arguments that name the endpoint and the user."""
    return {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": JANE} | more


async def test_a_rotation_is_rolled_back_and_ended(
    admin: Admin, added: AddedEndpoint, installation: Installation
) -> None:
    """Both secrets sign for the overlap; it is rolled back, ended, and each step is on record."""
    rotated = await admin.secrets.rotate(**named(added))
    assert (2, added.secret_ref, 0, False) == (
        *(rotated.generation, rotated.previous_secret_ref, rotated.older_claims, rotated.repeated),
    )
    status = await admin.secrets.status(tenant_id="acme", endpoint_id=added.endpoint_id)
    assert (True, rotated.secret_ref, 0) == (status.overlapping, status.secret_ref, status.older_claims)
    assert [rotated.rotation_id] == [each.rotation_id for each in status.rotations]
    assert status.seconds_left is not None
    assert 86_000 < status.seconds_left <= 86_400
    with pytest.raises(Conflict, match="overlap"):
        await admin.secrets.rotate(**named(added))

    back = await admin.secrets.roll_back(**named(added, expect_generation=2))
    assert (added.secret_ref, rotated.secret_ref) == (back.secret_ref, back.previous_secret_ref)
    ended = await admin.secrets.end_overlap(**named(added))
    assert (None, 0) == (ended.previous_secret_ref, ended.older_claims)
    assert added.secret == (await admin.secrets.reveal(**named(added))).secret
    actions = ("rotated", "rolled_back", "overlap_ended", "revealed")
    assert [(f"secret.{action}", JANE) for action in actions] == [
        (row["action"], row["who"]) for row in (await audited(installation.pool))[1:]
    ]


async def test_a_repeated_rotation_id_rotates_nothing(admin: Admin, added: AddedEndpoint) -> None:
    """The same rotation id rotates nothing and returns the same secret; with other arguments it is a conflict."""
    first = await admin.secrets.rotate(**named(added, rotation_id="r-1"))
    again = await admin.secrets.rotate(**named(added, rotation_id="r-1"))
    assert (True, first.secret, first.secret_ref) == (again.repeated, again.secret, again.secret_ref)
    with pytest.raises(Conflict) as caught:
        await admin.secrets.rotate(**named(added, rotation_id="r-1", overlap_seconds=0))

    assert "rotation_id" == caught.value.field


async def test_a_revocation_waits_for_older_requests(
    admin: Admin, added: AddedEndpoint, installation: Installation
) -> None:
    """Overlap 0 returns once no older request can begin; without waiting it returns how many there are."""
    (ring,) = await installation.deliveries()
    ledger = PostgresLedger(installation.pool, worker="w", lease_seconds=45.0)
    claim = await ledger.claim(ring)
    assert claim is not None
    assert 1 == (await admin.secrets.rotate(**named(added, overlap_seconds=0, wait=False))).older_claims
    waiting = asyncio.ensure_future(admin.secrets.rotate(**named(added, overlap_seconds=0)))

    async def is_committed() -> bool:
        return 3 == (await admin.endpoints.get(tenant_id="acme", endpoint_id=added.endpoint_id)).generation

    await eventually(is_committed)
    assert not waiting.done()
    await ledger.release(claim, None)

    assert (3, 0) == ((await waiting).generation, waiting.result().older_claims)


async def test_only_the_public_key_is_returned(admin: Admin) -> None:
    """A receiver of ed25519 gets the public key; the private one is in no result."""
    added = await admin.endpoints.add(**NEW, algorithm="ed25519")
    revealed = await admin.secrets.reveal(**named(added))
    rotated = await admin.secrets.rotate(**named(added))
    for result in (added, revealed, rotated):
        assert result.secret is None
        assert (result.public_key or "").startswith("whpk_")
    assert added.public_key == revealed.public_key != rotated.public_key


@pytest.mark.req("SEC-15")
async def test_no_result_or_error_shows_a_secret(admin: Admin) -> None:
    """A secret is in no repr, text, copy or pickle of a result or an error."""
    canary = "whsec_" + base64.b64encode(b"canary-of-a-secret-4f1d-77").decode()
    added = await admin.endpoints.add(**NEW, secret=canary)
    revealed = await admin.secrets.reveal(**named(added))
    rotated = await admin.secrets.rotate(**named(added, secret=canary[:-4] + "QUJD", overlap_seconds=0))
    with pytest.raises(Malformed) as refused:
        await admin.endpoints.add(**NEW | {"url": "https://other.example/"}, secret=canary[:12])
    shown = "".join(f"{each!r}{each}" for each in (added, revealed, rotated, refused.value, admin, vars(admin)))

    assert revealed.secret is not None
    assert canary == revealed.secret.reveal().decode()
    assert canary[6:20] not in shown
    for result in (added, revealed, rotated):
        for take in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                take(result)


async def test_a_lost_commit_names_the_rotation_id(
    installation: Installation, environ: dict[str, str], database_url: str
) -> None:
    """If the answer to the commit is lost, the error names the rotation id that returns the rotation."""
    async with losing_the_commit(database_url) as url, Admin.connect(url, environ=environ) as admin:
        endpoint = (await installation.endpoint()).pointer.endpoint_id
        with pytest.raises(InDoubt, match="call it again with rotation_id='") as caught:
            await admin.secrets.rotate(tenant_id="acme", endpoint_id=endpoint, actor=JANE)
    rotation_id = str(caught.value).split("rotation_id='")[1].split("'")[0]
    async with Admin.connect(environ=environ) as admin:
        again = await admin.secrets.rotate(tenant_id="acme", endpoint_id=endpoint, actor=JANE, rotation_id=rotation_id)

    assert (True, 2) == (again.repeated, again.generation)
