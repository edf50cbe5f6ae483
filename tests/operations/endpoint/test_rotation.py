"""Rotation on a real database: one winner, one answer for each id, and proven completion.

What each operation changes, and when it is refused, is the law of test_rotation_machine.py.
"""

import asyncio
import base64
import json
import os
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, Malformed, SecretTampered
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint import rotation
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

TENANT = TenantId("acme")
DAY = 86_400
ED25519 = NewEndpoint(
    tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",), algorithm=Algorithm.ED25519
)


@pytest.fixture
async def endpoint(installation: Installation) -> EndpointId:
    """Return an endpoint with its first secret."""
    return (await installation.endpoint()).pointer.endpoint_id


@pytest.fixture
async def with_pair(installation: Installation) -> EndpointId:
    """Return an endpoint that signs with ed25519."""
    return (await installation.add(ED25519)).pointer.endpoint_id


async def states(installation: Installation) -> list[str]:
    """Return the states of the endpoint's versions, oldest first."""
    rows = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
    )
    return [found["state"] for found in rows]


async def actions(pool: Pool) -> list[str]:
    """Return the audited actions of the tenant, oldest first."""
    return [entry["action"] for entry in await audited(pool)]


def ref(endpoint: EndpointId, version: int) -> str:
    return f"db:acme:webhook-endpoint-{endpoint}:{version}"


def verify(signature: str, public_key: str | None) -> None:
    """Fail unless this is the public key's signature of the content `x`."""
    assert public_key is not None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    key.verify(base64.b64decode(signature.removeprefix("v1a,")), b"x")


@pytest.mark.req("SEC-09", "SEC-10")
@pytest.mark.req("SEC-14", part="append")
@pytest.mark.req("OPS-10")
async def test_a_rotation_keeps_the_previous_secret(installation: Installation, endpoint: EndpointId) -> None:
    answer = await installation.rotate(endpoint, overlap_seconds=DAY, rotation_id="r1")
    pointer = await installation.claimed()

    assert (ref(endpoint, 2), ref(endpoint, 1), 2) == (
        pointer.secret_ref,
        pointer.previous_secret_ref,
        pointer.generation,
    )
    assert (pointer.secret_ref, pointer.previous_secret_ref, pointer.previous_secret_expires_at, 2, "r1") == (
        answer.secret_ref,
        answer.previous_secret_ref,
        answer.previous_secret_expires_at,
        answer.generation,
        answer.rotation_id,
    )
    assert answer.previous_secret_expires_at is not None
    assert DAY - 30 < (answer.previous_secret_expires_at - pointer.read_at).total_seconds() <= DAY
    assert ["previous", "active"] == await states(installation)
    [_, entry] = await audited(installation.pool)
    assert ("secret.rotated", "ada@desk") == (entry["action"], entry["who"])
    assert 2 == len(await installation.signed(pointer))


@pytest.mark.req("SEC-09")
async def test_of_a_hundred_concurrent_rotations_one_succeeds(installation: Installation, endpoint: EndpointId) -> None:
    rotated = partial(installation.rotate, endpoint, overlap_seconds=DAY, expect_generation=1)
    results = await asyncio.gather(*(rotated() for _ in range(100)), return_exceptions=True)
    [winner] = [result for result in results if isinstance(result, RotationResult)]
    pointer = await installation.pointer(endpoint)

    assert 99 == sum(isinstance(result, Conflict) for result in results)
    assert (winner.secret_ref, 2) == (pointer.secret_ref, pointer.generation)
    assert ["previous", "active"] == await states(installation)
    assert ["endpoint.added", "secret.rotated"] == await actions(installation.pool)
    assert 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_rotations")


@pytest.mark.req("SEC-09")
async def test_one_rotation_id_rotates_once(installation: Installation, endpoint: EndpointId) -> None:
    rotated = partial(installation.rotate, endpoint, overlap_seconds=DAY, rotation_id="r1")
    first = await asyncio.gather(*(rotated() for _ in range(20)))
    again = await rotated()

    assert 1 == len({(one.secret_ref, one.generation, one.previous_secret_expires_at) for one in [*first, again]})
    assert again.secret is not None
    assert all(one.secret == again.secret for one in first)
    assert ["previous", "active"] == await states(installation)
    assert ["endpoint.added", "secret.rotated", *["secret.revealed"] * 20] == await actions(installation.pool)


@pytest.mark.req("SEC-09")
async def test_a_repeat_reveals_only_what_is_active(installation: Installation, endpoint: EndpointId) -> None:
    first = await installation.rotate(endpoint, overlap_seconds=DAY, rotation_id="r1")
    await installation.rotate(endpoint, overlap_seconds=DAY, rotation_id="r2", force=True)
    again = await installation.rotate(endpoint, overlap_seconds=DAY, rotation_id="r1")

    assert (first.secret_ref, first.generation, None) == (again.secret_ref, again.generation, again.secret)
    assert "secret.revealed" not in await actions(installation.pool)


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "changes", [{"overlap_seconds": 60}, {"scheme": Scheme.X_WEBHOOK}, {"lead": "current"}, {"given": True}]
)
async def test_a_rotation_id_with_other_arguments_is_refused(
    installation: Installation, endpoint: EndpointId, changes: dict[str, Any]
) -> None:
    await installation.rotate(endpoint, rotation_id="r1")

    with pytest.raises(Conflict) as caught:
        await installation.rotate(endpoint, rotation_id="r1", **changes)
    assert "rotation_id" == caught.value.field


@pytest.mark.req("SEC-09")
async def test_a_rotation_id_belongs_to_one_endpoint(installation: Installation, endpoint: EndpointId) -> None:
    other = (await installation.endpoint(url="https://receiver.example/other")).pointer.endpoint_id
    results = await asyncio.gather(
        *(installation.rotate(one, rotation_id="r1") for one in (endpoint, other)), return_exceptions=True
    )
    foreign = (await installation.endpoint("globex")).pointer.endpoint_id

    assert 1 == sum(isinstance(result, Conflict) for result in results)
    assert 2 == (await installation.rotate(foreign, tenant="globex", rotation_id="r1")).generation


@pytest.mark.req("SEC-09")
async def test_an_altered_row_is_not_rotated(installation: Installation, endpoint: EndpointId) -> None:
    """An altered row is refused, since a rotation would give it a valid MAC."""
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://attacker.example/'")

    with pytest.raises(SecretTampered):
        await installation.rotate(endpoint)
    assert ["active"] == await states(installation)


@pytest.mark.req("SEC-10")
async def test_a_revocation_waits_for_older_claims(installation: Installation, endpoint: EndpointId) -> None:
    older = await installation.claim()
    answer = await installation.rotate(endpoint)
    await installation.claim()
    counts: list[int] = []
    begun = asyncio.Event()

    def report(left: int) -> None:
        counts.append(left)
        begun.set()

    async with installation.pool.acquire() as connection:
        complete = rotation.wait_until_complete(
            connection,
            tenant=TENANT,
            endpoint_id=endpoint,
            generation=answer.generation,
            clock=SystemClock(),
            report=report,
        )
        waiting = asyncio.create_task(complete)
        await asyncio.wait_for(begun.wait(), 60)
        assert not waiting.done()
        await installation.ledger().release(older, None)
        await asyncio.wait_for(waiting, 60)

    assert {1} == set(counts)


@pytest.mark.req("SEC-10")
async def test_an_expired_claim_does_not_delay_a_revocation(installation: Installation, endpoint: EndpointId) -> None:
    """A dead worker's claim delays a revocation until its lease ends, since it may not send after that."""
    await installation.claim(lease_seconds=0.5)
    answer = await installation.rotate(endpoint)
    async with installation.pool.acquire() as connection, asyncio.timeout(60):
        await rotation.wait_until_complete(
            connection,
            tenant=TENANT,
            endpoint_id=endpoint,
            generation=answer.generation,
            clock=SystemClock(),
            report=lambda _: None,
        )


@pytest.mark.req("SEC-09")
async def test_the_intent_on_record_holds_no_secret(installation: Installation, endpoint: EndpointId) -> None:
    given = generate_signing_secret()
    await installation.rotate(endpoint, secret=given, given=True, rotation_id="r1")
    kept = await installation.pool.fetchrow("SELECT * FROM hookseal.secret_rotations")
    assert kept is not None

    assert given.reveal().decode() not in str(dict(kept))
    assert 16 == len(json.loads(kept["intent"])["secret"])
    assert (2, "done") == (kept["version"], kept["outcome"])


@pytest.mark.req("SEC-09")
async def test_a_repeat_after_the_integrity_key_was_rotated(installation: Installation, endpoint: EndpointId) -> None:
    rotated = partial(installation.rotate, endpoint, given=True, rotation_id="r-1")
    secret = generate_signing_secret()
    first = await rotated(secret=secret)
    await installation.act(rotate_integrity_key, os.urandom)

    assert first.secret_ref == (await rotated(secret=secret)).secret_ref
    with pytest.raises(Conflict):
        await rotated()


async def test_a_repeat_with_an_unknown_fingerprint_is_refused(
    installation: Installation, endpoint: EndpointId
) -> None:
    rotated = partial(installation.rotate, endpoint, secret=generate_signing_secret(), rotation_id="r-1")
    await rotated()
    await installation.pool.execute(
        'UPDATE hookseal.secret_rotations SET intent = (intent::jsonb || \'{"key_id": "9"}\')::json'
    )

    with pytest.raises(Conflict):
        await rotated()


@pytest.mark.req("DEL-04", part="standard-ed25519")
async def test_an_added_endpoint_returns_its_public_key(installation: Installation) -> None:
    one = await installation.add(ED25519)
    pointer = await installation.claimed()

    assert ("standard", "ed25519") == (pointer.scheme, pointer.algorithm)
    assert public_key_of(one.secret) == one.public_key
    (signature,) = await installation.signed(pointer)
    verify(signature, one.public_key)
    (entry,) = await audited(installation.pool)
    assert ("ed25519", await installation.unlocked.sealing_key_id(installation.pool)) == (
        entry["after"]["algorithm"],
        entry["after"]["key_id"],
    )
    given = generate_signing_secret(Algorithm.ED25519)
    other = await installation.add(replace(ED25519, url="https://receiver.example/2"), given)
    verify((await installation.signed(other.pointer))[0], public_key_of(given))


@pytest.mark.req("DEL-04", part="standard-ed25519")
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
    with pytest.raises(Malformed):
        await installation.add(replace(ED25519, **changes), secret)
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


@pytest.mark.req("DEL-04", part="standard-ed25519")
async def test_a_drawn_or_given_pair_signs(installation: Installation, with_pair: EndpointId) -> None:
    for given in (False, True):
        pair = generate_signing_secret(Algorithm.ED25519)
        answer = await installation.rotate(with_pair, secret=pair, given=given)
        assert public_key_of(pair) == answer.public_key


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.req("SEC-09")
@pytest.mark.req("OPS-10")
async def test_a_repeat_returns_the_public_key(installation: Installation, endpoint: EndpointId) -> None:
    rotated = partial(installation.rotate, endpoint, rotation_id="r1")
    first, again = [await rotated(algorithm=Algorithm.ED25519) for _ in range(2)]
    await installation.rotate(endpoint)
    late = await rotated(algorithm=Algorithm.ED25519)

    assert replace(first, before=None, after=None) == again == late
    for algorithm in (None, Algorithm.HMAC):
        with pytest.raises(Conflict, match="other arguments"):
            await rotated(algorithm=algorithm)
    assert ["endpoint.added", "secret.rotated", "secret.rotated"] == await actions(installation.pool)


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("altered", ["null", '"whpk_AAAA"'])
async def test_an_altered_answer_reveals_nothing(
    installation: Installation, with_pair: EndpointId, altered: str
) -> None:
    first = await installation.rotate(with_pair, rotation_id="r1")
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = (answer::jsonb || jsonb_build_object('public_key', $1::jsonb))",
        altered,
    )
    again = await installation.rotate(with_pair, rotation_id="r1")

    assert (None, first.public_key) == (again.secret, again.public_key)


@pytest.mark.req("DEL-04", part="standard-ed25519")
async def test_a_destroyed_pair_has_no_public_key(installation: Installation, with_pair: EndpointId) -> None:
    first = await installation.rotate(with_pair, rotation_id="r1")
    await installation.rotate(with_pair)
    await installation.unlocked.store.destroy(SecretRef.parse(first.secret_ref))
    again = await installation.rotate(with_pair, rotation_id="r1")

    assert (first.secret_ref, None, None) == (again.secret_ref, again.secret, again.public_key)


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.req("OPS-10")
async def test_the_audit_row_has_both_algorithms(installation: Installation, endpoint: EndpointId) -> None:
    pair = generate_signing_secret(Algorithm.ED25519)
    answer = await installation.rotate(
        endpoint, overlap_seconds=DAY, algorithm=Algorithm.ED25519, secret=pair, rotation_id="r1"
    )
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
