"""Signing secrets from Python: rotated, rolled back, revoked and revealed, and in no repr."""

import asyncio
import base64
import copy
import pickle
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import AddedEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Conflict, InDoubt, Malformed, NotFound, Refused
from tests.cli.lost_commit_proxy import losing_the_commit
from tests.cli.switching import switching
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("DEL-18")

JANE = "jane@product.example"
NEW: dict[str, Any] = {
    "tenant_id": "acme",
    "url": "https://receiver.example/hook",
    "event_types": ["*"],
    "actor": JANE,
}

RETIRED_LONG_AGO = "UPDATE hookseal.secret_records SET changed_at = now() - interval '8 d' WHERE state = 'retired'"


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


@pytest.mark.parametrize("lead", [[], {}, 5, "both"])
async def test_a_wrong_lead_is_named(admin: Admin, added: AddedEndpoint, lead: Any) -> None:
    """A lead of the wrong type, or neither of the two, is refused by its name."""
    with pytest.raises(Malformed) as caught:
        await admin.secrets.rotate(**named(added, lead=lead))
    assert "lead" == caught.value.field


@pytest.mark.parametrize("method", ["rotate", "roll_back", "end_overlap", "probe"])
async def test_a_generation_that_is_no_number_is_named(admin: Admin, added: AddedEndpoint, method: str) -> None:
    """An expected generation that is text or a bool is refused by its name, not as if the endpoint had been changed."""
    for wrong in ("1", True):
        with pytest.raises(Malformed) as caught:
            await getattr(admin.secrets, method)(**named(added, expect_generation=wrong))
        assert "expect_generation" == caught.value.field


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


async def test_every_version_is_listed_with_its_use(
    admin: Admin, added: AddedEndpoint, installation: Installation
) -> None:
    """Every version is listed with its use, on an own connection and in a transaction of the caller."""
    rotated = await admin.secrets.rotate(**named(added))
    wanted: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    found = await admin.secrets.versions(**wanted)
    async with installation.pool.acquire() as connection, connection.transaction():
        assert found == await admin.secrets.versions(**wanted, connection=connection)
    with pytest.raises(NotFound):
        await admin.secrets.versions(**wanted | {"tenant_id": "globex"})

    assert [(added.secret_ref, True, True), (rotated.secret_ref, True, True)] == [
        (each.ref, each.signs, each.needed) for each in found
    ]


async def test_each_signing_ed25519_secret_has_a_public_key(admin: Admin, added: AddedEndpoint) -> None:
    """An endpoint that signs with ed25519 has a public key for each secret that signs; with hmac it has none."""
    with pytest.raises(Refused, match="no public key") as caught:
        await admin.secrets.public_keys(tenant_id="acme", endpoint_id=added.endpoint_id)
    assert "`hookseal endpoint rotate --algorithm ed25519` gives it one" == caught.value.advice
    first = await admin.secrets.rotate(**named(added, overlap_seconds=0, algorithm="ed25519"))
    second = await admin.secrets.rotate(**named(added))
    keys = await admin.secrets.public_keys(tenant_id="acme", endpoint_id=added.endpoint_id)

    assert (second.public_key, first.public_key) == (keys.public_key, keys.previous_public_key)
    assert (second.secret_ref, first.secret_ref) == (keys.secret_ref, keys.previous_secret_ref)
    await admin.secrets.rotate(**named(added, algorithm="hmac", force=True))
    mixed = await admin.secrets.public_keys(tenant_id="acme", endpoint_id=added.endpoint_id)
    assert (None, second.public_key) == (mixed.public_key, mixed.previous_public_key)
    await admin.secrets.end_overlap(**named(added))
    with pytest.raises(Refused, match="no public key"):
        await admin.secrets.public_keys(tenant_id="acme", endpoint_id=added.endpoint_id)


async def test_a_probe_reports_whether_the_receiver_switched(admin: Admin, installation: Installation) -> None:
    """A probe says whether the receiver knows the new secret, is on record, and is the canary of the status."""
    async with switching() as receiver:
        added = await admin.endpoints.add(**NEW | {"url": receiver.url})
        wanted: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
        assert added.secret is not None
        receiver.secrets = [added.secret.reveal().decode()]
        rotated = await admin.secrets.rotate(**named(added))
        assert rotated.secret is not None
        assert "not_switched" == (await admin.secrets.probe(**named(added))).verdict
        receiver.secrets = [rotated.secret.reveal().decode()]
        found = await admin.secrets.probe(**named(added, expect_generation=rotated.generation))
        with pytest.raises(Conflict):
            await admin.secrets.probe(**named(added, expect_generation=1))

    assert ("switched", rotated.generation) == (found.verdict, found.generation)
    assert found == (await admin.secrets.status(**wanted)).canary
    assert (await audited(installation.pool))[-1]["who"] == JANE
    await admin.secrets.end_overlap(**named(added, expect_generation=found.generation))
    assert (await admin.secrets.status(**wanted)).canary is None, "it was about another generation"


async def test_the_status_has_schedule_and_next_rotation(admin: Admin) -> None:
    """The status has the schedule of an endpoint that has one, and when its next rotation is due."""
    added = await admin.endpoints.add(**NEW, rotate_every_days=30)
    status = await admin.secrets.status(tenant_id="acme", endpoint_id=added.endpoint_id)

    assert status.schedule is not None
    assert (30, None) == (status.schedule.rotate_every_days, status.schedule.announced_at)


async def test_a_purge_destroys_old_retired_versions(
    admin: Admin, added: AddedEndpoint, installation: Installation
) -> None:
    """The material of retired versions of this tenant is destroyed, on record, and no other."""
    await admin.secrets.rotate(**named(added, overlap_seconds=0))
    await installation.pool.execute(RETIRED_LONG_AGO)
    asked: dict[str, Any] = {"tenant_id": "acme", "actor": JANE, "older_than_days": 7}
    assert 0 == (await admin.secrets.purge(**asked | {"tenant_id": "globex"})).versions
    assert 0 == (await admin.secrets.purge(**asked | {"older_than_days": 30})).versions
    assert [1, 0] == [(await admin.secrets.purge(**asked)).versions for _ in range(2)]
    for days in (-1, 3_651, True, "7"):
        with pytest.raises(Malformed) as caught:
            await admin.secrets.purge(**asked | {"older_than_days": days})
        assert "older_than_days" == caught.value.field

    versions = await admin.secrets.versions(tenant_id="acme", endpoint_id=added.endpoint_id)
    assert ["destroyed", "active"] == [each.state for each in versions]
    last = (await audited(installation.pool))[-1]
    assert ("secret.destroyed", JANE) == (last["action"], last["who"])
