"""Endpoints that sign with ed25519: added, rotated to it and from it; only public keys are returned."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Conflict, Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint import rotation
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")

TENANT = TenantId("acme")
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))
ED25519 = replace(NEW, algorithm=Algorithm.ED25519)


async def rotated(installation: Installation, endpoint: EndpointId, **changes: Any) -> RotationResult:
    """Rotate with an overlap of a day, a drawn HMAC secret, and these changes."""
    asked: dict[str, Any] = {
        "tenant_id": TENANT,
        "endpoint_id": endpoint,
        "overlap_seconds": 86_400,
        "secret": generate_signing_secret(),
    }
    async with installation.pool.acquire() as connection:
        return await rotation.rotate_secret(installation.operator(connection), RotationRequest(**asked | changes))


async def signatures(installation: Installation) -> list[str]:
    """Publish, claim, and return the current signatures of the content `x`."""
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    ring, *_ = await installation.deliveries()
    claim = await ledger.claim(ring)
    assert claim is not None
    assert claim.target is not None
    return await signed(installation, claim.target.pointer)


async def signed(installation: Installation, pointer: Pointer) -> list[str]:
    """Return the signatures of the content `x` by this pointer."""
    async with installation.unlocked.service.signers(pointer) as signers:
        return [signer.sign(b"x") for signer in signers]


def verify(signature: str, public_key: str | None) -> None:
    """Fail unless this is the public key's signature of the content `x`."""
    assert public_key is not None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    key.verify(base64.b64decode(signature.removeprefix("v1a,")), b"x")


async def stored(installation: Installation) -> tuple[Any, ...]:
    """Return the schemes and algorithms of the endpoint's secrets, and its generation."""
    row = await installation.pool.fetchrow(
        "SELECT scheme, algorithm, previous_scheme, previous_algorithm, generation FROM hookseal.endpoints"
    )
    assert row is not None
    return tuple(row)


async def added(installation: Installation, endpoint: NewEndpoint = ED25519) -> AddedEndpoint:
    """Add an endpoint that signs with ed25519."""
    return await installation.add(endpoint)


async def test_an_added_endpoint_returns_its_public_key(installation: Installation) -> None:
    """A new pair is drawn, only its public key is returned, and its signatures verify with it."""
    one = await added(installation)

    assert ("standard", "ed25519", None, None, 1) == await stored(installation)
    assert public_key_of(one.secret) == one.public_key
    (signature,) = await signatures(installation)
    verify(signature, one.public_key)
    (entry,) = await audited(installation.pool)
    assert ("ed25519", await installation.unlocked.sealing_key_id(installation.pool)) == (
        entry["after"]["algorithm"],
        entry["after"]["key_id"],
    )
    given = generate_signing_secret(Algorithm.ED25519)
    other = await installation.add(replace(ED25519, url="https://receiver.example/2"), given)
    verify((await signed(installation, other.pointer))[0], public_key_of(given))


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"scheme": Scheme.X_WEBHOOK}, None),
        ({}, generate_signing_secret()),
        ({}, SecretMaterial(b"whpk_" + base64.b64encode(bytes(32)))),
        ({"algorithm": Algorithm.HMAC}, generate_signing_secret(Algorithm.ED25519)),
    ],
)
async def test_an_unfit_secret_is_refused(
    installation: Installation, changes: dict[str, Any], secret: SecretMaterial | None
) -> None:
    """The scheme x-webhook, an HMAC secret, a public key, and a pair for HMAC are refused; nothing is stored."""
    with pytest.raises(Malformed):
        await installation.add(replace(ED25519, **changes), secret)
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


@pytest.mark.req("SEC-09")
async def test_an_overlap_signs_with_both_algorithms(installation: Installation) -> None:
    """In each overlap both secrets sign, each with its own algorithm, current first."""
    one = await installation.endpoint()
    first = await rotated(installation, one.pointer.endpoint_id, algorithm=Algorithm.ED25519)

    assert (None, "whpk_") == (first.secret, (first.public_key or "")[:5])
    assert ("standard", "ed25519", "standard", "hmac", 2) == await stored(installation)
    current, previous = await signatures(installation)
    verify(current, first.public_key)
    assert [previous] == await signed(installation, one.pointer)

    second = await rotated(installation, one.pointer.endpoint_id, algorithm=Algorithm.HMAC, force=True)
    assert (None, True) == (second.public_key, second.secret is not None)
    assert ("standard", "hmac", "standard", "ed25519", 3) == await stored(installation)
    current, previous = await signatures(installation)
    assert current.startswith("v1,")
    verify(previous, first.public_key)


async def test_a_rotation_keeps_the_algorithm(installation: Installation) -> None:
    """Without a requested algorithm a rotation stays with ed25519, even if the drawn secret is for HMAC."""
    one = await added(installation)
    drawn = generate_signing_secret()
    again = await rotated(installation, one.pointer.endpoint_id, secret=drawn)

    assert again.public_key not in {None, one.public_key}
    assert ("standard", "ed25519", "standard", "ed25519", 2) == await stored(installation)
    current, previous = await signatures(installation)
    verify(current, again.public_key)
    verify(previous, one.public_key)
    other = await installation.add(replace(NEW, url="https://receiver.example/2"))
    assert (await rotated(installation, other.pointer.endpoint_id, secret=drawn)).secret == drawn


async def test_a_drawn_or_given_pair_signs(installation: Installation) -> None:
    """A pair that was drawn or given for ed25519 is the one that signs."""
    endpoint = (await added(installation)).pointer.endpoint_id
    for given in (False, True):
        pair = generate_signing_secret(Algorithm.ED25519)
        answer = await rotated(installation, endpoint, secret=pair, given=given, overlap_seconds=0)
        assert public_key_of(pair) == answer.public_key


async def test_x_webhook_needs_hmac(installation: Installation) -> None:
    """A change to x-webhook needs a change to HMAC in the same rotation; otherwise nothing is changed."""
    endpoint = (await added(installation)).pointer.endpoint_id
    for changes in ({}, {"algorithm": Algorithm.ED25519}):
        with pytest.raises(Malformed, match="x-webhook signs with hmac only"):
            await rotated(installation, endpoint, scheme=Scheme.X_WEBHOOK, **changes)
    assert ("standard", "ed25519", None, None, 1) == await stored(installation)

    await rotated(installation, endpoint, scheme=Scheme.X_WEBHOOK, algorithm=Algorithm.HMAC)
    assert ("x-webhook", "hmac", "standard", "ed25519", 2) == await stored(installation)
    current, previous = await signatures(installation)
    assert (True, True) == (current.startswith("sha256="), previous.startswith("v1a,"))
    with pytest.raises(Malformed, match="x-webhook signs with hmac only"):
        await rotated(installation, endpoint, algorithm=Algorithm.ED25519, force=True)
    await rotated(installation, endpoint, algorithm=Algorithm.ED25519, scheme=Scheme.STANDARD, force=True)


@pytest.mark.parametrize("secret", [generate_signing_secret(), SecretMaterial(b"a text of more than sixteen bytes")])
async def test_a_given_hmac_secret_is_refused(installation: Installation, secret: SecretMaterial) -> None:
    """A given HMAC secret is refused for ed25519 and not replaced by a drawn one."""
    endpoint = (await added(installation)).pointer.endpoint_id
    with pytest.raises(Malformed, match="whsk_"):
        await rotated(installation, endpoint, secret=secret, given=True)
    assert ("standard", "ed25519", None, None, 1) == await stored(installation)


@pytest.mark.req("SEC-10")
async def test_a_rollback_exchanges_the_algorithms(installation: Installation) -> None:
    """A rollback from ed25519 to HMAC exchanges the algorithms, and the audit row has both."""
    one = await installation.endpoint()
    first = await rotated(installation, one.pointer.endpoint_id, algorithm=Algorithm.ED25519)
    async with installation.pool.acquire() as connection:
        await rotation.roll_back(
            installation.operator(connection), tenant=TENANT, endpoint_id=one.pointer.endpoint_id, overlap_seconds=60
        )

    assert ("standard", "hmac", "standard", "ed25519", 3) == await stored(installation)
    current, previous = await signatures(installation)
    assert [current] == await signed(installation, one.pointer)
    verify(previous, first.public_key)
    *_, entry = await audited(installation.pool)
    assert [("ed25519", "hmac"), ("hmac", "ed25519")] == [
        (facts["algorithm"], facts["previous_algorithm"]) for facts in (entry["before"], entry["after"])
    ]


@pytest.mark.req("SEC-09")
@pytest.mark.req("OPS-10")
async def test_a_repeat_returns_the_public_key(installation: Installation) -> None:
    """A repeat returns the public key, active or not, and reveals nothing; with another algorithm it is refused."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    first = await rotated(installation, endpoint, algorithm=Algorithm.ED25519, rotation_id="r1")
    again = await rotated(installation, endpoint, algorithm=Algorithm.ED25519, rotation_id="r1")
    await rotated(installation, endpoint, overlap_seconds=0)
    late = await rotated(installation, endpoint, algorithm=Algorithm.ED25519, rotation_id="r1")

    assert replace(first, before=None, after=None) == again == late
    for algorithm in (None, Algorithm.HMAC):
        with pytest.raises(Conflict, match="other arguments"):
            await rotated(installation, endpoint, algorithm=algorithm, rotation_id="r1")
    assert ["endpoint.added", "secret.rotated", "secret.rotated"] == [
        entry["action"] for entry in await audited(installation.pool)
    ]


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("altered", ["null", '"whpk_AAAA"'])
async def test_an_altered_answer_reveals_nothing(installation: Installation, altered: str) -> None:
    """An altered row of rotations neither changes the returned public key nor reveals the private one."""
    endpoint = (await added(installation)).pointer.endpoint_id
    first = await rotated(installation, endpoint, rotation_id="r1")
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = (answer::jsonb || jsonb_build_object('public_key', $1::jsonb))",
        altered,
    )
    again = await rotated(installation, endpoint, rotation_id="r1")

    assert (None, first.public_key) == (again.secret, again.public_key)


async def test_a_destroyed_pair_has_no_public_key(installation: Installation) -> None:
    """For a destroyed pair a repeat returns the answer without its public key."""
    endpoint = (await added(installation)).pointer.endpoint_id
    first = await rotated(installation, endpoint, rotation_id="r1")
    await rotated(installation, endpoint, overlap_seconds=0)
    await installation.unlocked.store.destroy(SecretRef.parse(first.secret_ref))
    again = await rotated(installation, endpoint, rotation_id="r1")

    assert (first.secret_ref, None, None) == (again.secret_ref, again.secret, again.public_key)


@pytest.mark.req("OPS-10")
async def test_the_audit_row_has_both_algorithms(installation: Installation) -> None:
    """The audit row has both algorithms and the master key of the new secret, and no secret."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    pair = generate_signing_secret(Algorithm.ED25519)
    answer = await rotated(installation, endpoint, algorithm=Algorithm.ED25519, secret=pair, rotation_id="r1")
    *_, entry = await audited(installation.pool)

    assert {
        "generation": 2,
        "secret_ref": answer.secret_ref,
        "scheme": "standard",
        "algorithm": "ed25519",
        "previous_secret_ref": answer.previous_secret_ref,
        "previous_scheme": "standard",
        "previous_algorithm": "hmac",
        "lead": "previous",
        "key_id": await installation.unlocked.sealing_key_id(installation.pool),
        "rotation_id": "r1",
    } == {name: fact for name, fact in entry["after"].items() if name != "previous_secret_expires_at"}
    rows = await installation.pool.fetch("SELECT * FROM hookseal.secret_rotations, hookseal.audit_log")
    assert pair.reveal().decode() not in str([list(row) for row in rows])
    assert "whsk_" not in str([list(row) for row in rows])
