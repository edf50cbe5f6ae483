"""Endpoints that sign with ed25519: added so, rotated to it and from it; their public keys alone are given out."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.errors import Conflict, Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import rotation
from hookseal.operations.endpoints import AddedEndpoint
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.rotation import Rotated, Wanted
from hookseal.secrets.signer import generate_signing_secret, public_key_of
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")

TENANT = TenantId("acme")
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))
ED25519 = replace(NEW, algorithm=Algorithm.ED25519)


async def rotated(installation: Installation, endpoint: EndpointId, **changes: Any) -> Rotated:
    """Rotate with a day of overlap, a secret that was drawn for hmac, and these changes."""
    asked: dict[str, Any] = {
        "tenant_id": TENANT,
        "endpoint_id": endpoint,
        "overlap_seconds": 86_400,
        "secret": generate_signing_secret(),
    }
    async with installation.pool.acquire() as connection:
        return await rotation.rotate(installation.operator(connection), Wanted(**asked | changes))


async def signatures(installation: Installation) -> list[str]:
    """Publish, claim, and return what signs for the content `x` now."""
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    ring, *_ = await installation.deliveries()
    claim = await ledger.claim(ring)
    assert claim is not None
    assert claim.target is not None
    return await signed(installation, claim.target.pointer)


async def signed(installation: Installation, pointer: Pointer) -> list[str]:
    """Return what signs for the content `x` by this pointer."""
    async with installation.unlocked.service.signers(pointer) as signers:
        return [signer.sign(b"x") for signer in signers]


def verify(signature: str, public_key: str | None) -> None:
    """Return only if the public key says that this is the signature of the content `x`."""
    assert public_key is not None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    key.verify(base64.b64decode(signature.removeprefix("v1a,")), b"x")


async def stored(installation: Installation) -> tuple[Any, ...]:
    """Return how the endpoint's secrets sign, and its generation."""
    row = await installation.pool.fetchrow(
        "SELECT scheme, algorithm, previous_scheme, previous_algorithm, generation FROM hookseal.endpoints"
    )
    assert row is not None
    return tuple(row)


async def added(installation: Installation, endpoint: NewEndpoint = ED25519) -> AddedEndpoint:
    """Add an endpoint that signs with ed25519."""
    return await installation.add(endpoint)


async def test_an_endpoint_is_added(installation: Installation) -> None:
    """A fresh pair is drawn, its public key answered and told to nobody else, and its signatures verify by it."""
    one = await added(installation)

    assert ("standard", "ed25519", None, None, 1) == await stored(installation)
    assert public_key_of(one.secret) == one.public_key
    (signature,) = await signatures(installation)
    verify(signature, one.public_key)
    (told,) = await audited(installation.pool)
    assert ("ed25519", await installation.unlocked.sealing_key_id(installation.pool)) == (
        told["after"]["algorithm"],
        told["after"]["key_id"],
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
async def test_what_cannot_be_added(
    installation: Installation, changes: dict[str, Any], secret: SecretMaterial | None
) -> None:
    """The other scheme, a secret for hmac, a public key, and a pair for hmac are refused; nothing is stored."""
    with pytest.raises(Malformed):
        await installation.add(replace(ED25519, **changes), secret)
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


@pytest.mark.req("SEC-09")
async def test_from_hmac_and_back(installation: Installation) -> None:
    """In each overlap both secrets sign, each with the algorithm that it was made for, current first."""
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


async def test_the_algorithm_stays(installation: Installation) -> None:
    """Asked for nothing, a rotation keeps ed25519 although the secret that came with it was drawn for hmac."""
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


async def test_a_secret_that_was_drawn_is_used(installation: Installation) -> None:
    """A pair that was drawn for ed25519 is the one that signs, and so is one that was given."""
    endpoint = (await added(installation)).pointer.endpoint_id
    for given in (False, True):
        pair = generate_signing_secret(Algorithm.ED25519)
        answer = await rotated(installation, endpoint, secret=pair, given=given, overlap_seconds=0)
        assert public_key_of(pair) == answer.public_key


async def test_the_other_scheme(installation: Installation) -> None:
    """To x-webhook an endpoint comes with hmac only: said so, it does; otherwise nothing is changed."""
    endpoint = (await added(installation)).pointer.endpoint_id
    for changes in ({}, {"algorithm": Algorithm.ED25519}):
        with pytest.raises(Malformed, match="x-webhook signs with hmac only: give --algorithm hmac"):
            await rotated(installation, endpoint, scheme=Scheme.X_WEBHOOK, **changes)
    assert ("standard", "ed25519", None, None, 1) == await stored(installation)

    await rotated(installation, endpoint, scheme=Scheme.X_WEBHOOK, algorithm=Algorithm.HMAC)
    assert ("x-webhook", "hmac", "standard", "ed25519", 2) == await stored(installation)
    current, previous = await signatures(installation)
    assert (True, True) == (current.startswith("sha256="), previous.startswith("v1a,"))
    with pytest.raises(Malformed, match="or --scheme standard"):
        await rotated(installation, endpoint, algorithm=Algorithm.ED25519, force=True)
    await rotated(installation, endpoint, algorithm=Algorithm.ED25519, scheme=Scheme.STANDARD, force=True)


@pytest.mark.parametrize("secret", [generate_signing_secret(), SecretMaterial(b"a text of more than sixteen bytes")])
async def test_a_given_secret_must_fit(installation: Installation, secret: SecretMaterial) -> None:
    """A secret that was given for hmac does not silently give way to another one."""
    endpoint = (await added(installation)).pointer.endpoint_id
    with pytest.raises(Malformed, match="whsk_"):
        await rotated(installation, endpoint, secret=secret, given=True)
    assert ("standard", "ed25519", None, None, 1) == await stored(installation)


@pytest.mark.req("SEC-10")
async def test_rolled_back(installation: Installation) -> None:
    """A rollback from ed25519 to hmac exchanges the algorithms too, and the log says both."""
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
    *_, told = await audited(installation.pool)
    assert [("ed25519", "hmac"), ("hmac", "ed25519")] == [
        (facts["algorithm"], facts["previous_algorithm"]) for facts in (told["before"], told["after"])
    ]


@pytest.mark.req("SEC-09")
@pytest.mark.req("OPS-10")
async def test_a_repeat(installation: Installation) -> None:
    """A repeat gives the public key again, active or not, and reveals nothing; with another algorithm it is refused."""
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
        told["action"] for told in await audited(installation.pool)
    ]


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("altered", ["null", '"whpk_AAAA"'])
async def test_an_answer_that_was_altered(installation: Installation, altered: str) -> None:
    """A hand in the row of answers neither slips in another public key nor draws the private one out."""
    endpoint = (await added(installation)).pointer.endpoint_id
    first = await rotated(installation, endpoint, rotation_id="r1")
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = (answer::jsonb || jsonb_build_object('public_key', $1::jsonb))",
        altered,
    )
    again = await rotated(installation, endpoint, rotation_id="r1")

    assert (None, first.public_key) == (again.secret, again.public_key)


async def test_a_repeat_once_the_pair_is_destroyed(installation: Installation) -> None:
    """Of a pair that is no more a repeat gives the answer without its public key, which verifies nothing any more."""
    endpoint = (await added(installation)).pointer.endpoint_id
    first = await rotated(installation, endpoint, rotation_id="r1")
    await rotated(installation, endpoint, overlap_seconds=0)
    await installation.unlocked.store.destroy(SecretRef.parse(first.secret_ref))
    again = await rotated(installation, endpoint, rotation_id="r1")

    assert (first.secret_ref, None, None) == (again.secret_ref, again.secret, again.public_key)


@pytest.mark.req("SEC-09")
async def test_a_repeat_of_an_older_version(installation: Installation) -> None:
    """What an older version put on record says nothing of algorithms: a repeat of it still gets its answer."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    first = await rotated(installation, endpoint, rotation_id="r1")
    row = await installation.pool.fetchrow("SELECT intent, answer FROM hookseal.secret_rotations")
    assert row is not None
    intent, answer = json.loads(row["intent"]), json.loads(row["answer"])
    assert (None, None) == (intent.pop("algorithm"), answer.pop("public_key"))
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET intent = $1, answer = $2", json.dumps(intent), json.dumps(answer)
    )

    assert first.secret == (await rotated(installation, endpoint, rotation_id="r1")).secret
    with pytest.raises(Conflict, match="other arguments"):
        await rotated(installation, endpoint, rotation_id="r1", algorithm=Algorithm.HMAC)


@pytest.mark.req("OPS-10")
async def test_what_the_log_says(installation: Installation) -> None:
    """The row of a rotation says how both secrets sign, and which key sealed the new one, without any of them."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    pair = generate_signing_secret(Algorithm.ED25519)
    answer = await rotated(installation, endpoint, algorithm=Algorithm.ED25519, secret=pair, rotation_id="r1")
    *_, told = await audited(installation.pool)

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
    } == {name: fact for name, fact in told["after"].items() if name != "previous_secret_expires_at"}
    rows = await installation.pool.fetch("SELECT * FROM hookseal.secret_rotations, hookseal.audit_log")
    assert pair.reveal().decode() not in str([list(row) for row in rows])
    assert "whsk_" not in str([list(row) for row in rows])
