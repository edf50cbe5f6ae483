"""Rotation on a real database: all or nothing, one winner, one answer for each id, and proven completion."""

import asyncio
import json
import os
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Claim, Ring
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Conflict, Malformed, NotFound, SecretTampered
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoint import rotation
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.operations.operator import Operator
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from tests.doubles.stored import Installation

Pool = asyncpg.Pool
TENANT = TenantId("acme")
DAY = 86_400


@pytest.fixture
async def endpoint(installation: Installation) -> EndpointId:
    """Return an endpoint with its first secret."""
    return (await installation.endpoint()).pointer.endpoint_id


def wanted(endpoint: EndpointId, **changes: Any) -> RotationRequest:
    """Return a rotation with an overlap of a day, and these changes."""
    asked: dict[str, Any] = {
        "tenant_id": TENANT,
        "endpoint_id": endpoint,
        "overlap_seconds": DAY,
        "secret": generate_signing_secret(),
    }
    return RotationRequest(**asked | changes)


async def rotated(installation: Installation, asked: RotationRequest) -> RotationResult:
    """Rotate on its own connection."""
    async with installation.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        return await rotation.rotate_secret(operator, asked)


async def row(installation: Installation, endpoint: EndpointId) -> asyncpg.Record:
    """Return the endpoint row, with the rest of its overlap."""
    found = await installation.pool.fetchrow(
        "SELECT *, extract(epoch FROM previous_secret_expires_at - now()) AS seconds_left"
        " FROM hookseal.endpoints WHERE id = $1::text::uuid",
        endpoint,
    )
    assert found is not None
    return found


async def states(installation: Installation) -> list[str]:
    """Return the states of the endpoint's versions, oldest first."""
    rows = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
    )
    return [found["state"] for found in rows]


async def audited(installation: Installation) -> list[tuple[str, str]]:
    """Return the audit rows of the tenant, oldest first, with their actors."""
    rows = await installation.pool.fetch(
        "SELECT action, actor FROM hookseal.audit_log WHERE tenant_id = 'acme' ORDER BY sequence"
    )
    return [(found["action"], found["actor"].partition("/")[2]) for found in rows]


def ref(endpoint: EndpointId, version: int) -> str:
    """Return the ref of a version of the endpoint's secret."""
    return f"db:acme:webhook-endpoint-{endpoint}:{version}"


async def claim(installation: Installation, *, lease_seconds: float = 45) -> tuple[PostgresLedger, Claim]:
    """Publish an event and claim its delivery."""
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=lease_seconds)
    [ring] = await installation.deliveries()
    taken = await ledger.claim(ring)
    assert taken is not None
    return ledger, taken


@pytest.mark.req("SEC-09", "SEC-10")
@pytest.mark.req("SEC-14", part="append")
@pytest.mark.req("OPS-10")
async def test_a_rotation_keeps_the_previous_secret(installation: Installation, endpoint: EndpointId) -> None:
    """The new version is current, the old one previous during the overlap, the MAC is valid, and it is audited once."""
    answer = await rotated(installation, wanted(endpoint, rotation_id="r1"))
    found = await row(installation, endpoint)

    assert (ref(endpoint, 2), ref(endpoint, 1), 2, "r1") == (
        answer.secret_ref,
        answer.previous_secret_ref,
        answer.generation,
        answer.rotation_id,
    )
    assert (ref(endpoint, 2), ref(endpoint, 1), "standard", 2) == tuple(
        found[name] for name in ("secret_ref", "previous_secret_ref", "previous_scheme", "generation")
    )
    assert answer.previous_secret_expires_at == found["previous_secret_expires_at"]
    assert DAY - 30 < found["seconds_left"] <= DAY
    assert ["previous", "active"] == await states(installation)
    assert ("secret.rotated", "ada@desk") == (await audited(installation))[-1]
    _, taken = await claim(installation)
    assert taken.target is not None
    installation.unlocked.integrity.verify(taken.target.pointer)
    async with installation.unlocked.service.signers(taken.target.pointer) as signers:
        assert [ref(endpoint, 2), ref(endpoint, 1)] == [signer.ref for signer in signers]


@pytest.mark.req("SEC-10")
async def test_overlap_zero_retires_every_older_version(installation: Installation, endpoint: EndpointId) -> None:
    """Without an overlap every older version is retired, also in a running overlap, without `force`."""
    await rotated(installation, wanted(endpoint))
    answer = await rotated(installation, wanted(endpoint, overlap_seconds=0))
    found = await row(installation, endpoint)

    assert (ref(endpoint, 3), None, None) == (
        answer.secret_ref,
        answer.previous_secret_ref,
        answer.previous_secret_expires_at,
    )
    assert (None, None, None, None) == tuple(
        found[name]
        for name in (
            "previous_secret_ref",
            "previous_secret_expires_at",
            "previous_scheme",
            "previous_algorithm",
        )
    )
    assert ["retired", "retired", "active"] == await states(installation)


@pytest.mark.req("SEC-10")
async def test_a_second_rotation_in_an_overlap_needs_force(installation: Installation, endpoint: EndpointId) -> None:
    """A second rotation is refused without `force`; with it the older previous version is retired at once."""
    await rotated(installation, wanted(endpoint))
    before = dict(await row(installation, endpoint)) | {"seconds_left": None}

    with pytest.raises(Conflict, match="overlap is running"):
        await rotated(installation, wanted(endpoint))
    assert before == dict(await row(installation, endpoint)) | {"seconds_left": None}
    await rotated(installation, wanted(endpoint, force=True))
    assert ["retired", "previous", "active"] == await states(installation)


@pytest.mark.req("SEC-09")
async def test_of_a_hundred_concurrent_rotations_one_succeeds(installation: Installation, endpoint: EndpointId) -> None:
    """Of 100 concurrent rotations that expect one generation exactly one succeeds; the others change nothing."""
    results = await asyncio.gather(
        *(rotated(installation, wanted(endpoint, expect_generation=1)) for _ in range(100)), return_exceptions=True
    )
    winners = [result for result in results if isinstance(result, RotationResult)]

    assert 1 == len(winners)
    assert 99 == sum(isinstance(result, Conflict) for result in results)
    found = await row(installation, endpoint)
    assert (winners[0].secret_ref, 2) == (found["secret_ref"], found["generation"])
    assert ["previous", "active"] == await states(installation)
    assert 1 == [action for action, _ in await audited(installation)].count("secret.rotated")
    assert 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_rotations")


@pytest.mark.req("SEC-09")
async def test_one_rotation_id_rotates_once(installation: Installation, endpoint: EndpointId) -> None:
    """Twenty concurrent requests and a later one with one id rotate once and get the same answer and secret."""
    first = await asyncio.gather(*(rotated(installation, wanted(endpoint, rotation_id="r1")) for _ in range(20)))
    again = await rotated(installation, wanted(endpoint, rotation_id="r1"))

    assert 1 == len({(one.secret_ref, one.generation, one.previous_secret_expires_at) for one in [*first, again]})
    assert again.secret is not None
    assert all(one.secret == again.secret for one in first)
    assert ["previous", "active"] == await states(installation)
    actions = [action for action, _ in await audited(installation)]
    assert (1, 20) == (actions.count("secret.rotated"), actions.count("secret.revealed"))


@pytest.mark.req("SEC-09")
async def test_a_repeat_reveals_only_what_is_active(installation: Installation, endpoint: EndpointId) -> None:
    """If another version is active, a repeat returns the first answer without the secret and reveals nothing."""
    first = await rotated(installation, wanted(endpoint, rotation_id="r1"))
    await rotated(installation, wanted(endpoint, rotation_id="r2", force=True))
    again = await rotated(installation, wanted(endpoint, rotation_id="r1"))

    assert (first.secret_ref, first.generation, None) == (again.secret_ref, again.generation, again.secret)
    assert "secret.revealed" not in [action for action, _ in await audited(installation)]


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "changes", [{"overlap_seconds": 60}, {"scheme": Scheme.X_WEBHOOK}, {"lead": "current"}, {"given": True}]
)
async def test_a_rotation_id_with_other_arguments_is_refused(
    installation: Installation, endpoint: EndpointId, changes: dict[str, Any]
) -> None:
    """The same id with other arguments is refused."""
    await rotated(installation, wanted(endpoint, rotation_id="r1"))

    with pytest.raises(Conflict) as caught:
        await rotated(installation, wanted(endpoint, rotation_id="r1", **changes))
    assert "rotation_id" == caught.value.field


@pytest.mark.req("SEC-09")
async def test_a_rotation_id_belongs_to_one_endpoint(installation: Installation, endpoint: EndpointId) -> None:
    """Another endpoint of the tenant cannot use the id, concurrently or later; another tenant can."""
    other = (await installation.endpoint(url="https://receiver.example/other")).pointer.endpoint_id
    results = await asyncio.gather(
        *(rotated(installation, wanted(one, rotation_id="r1")) for one in (endpoint, other)), return_exceptions=True
    )
    foreign = (await installation.endpoint("globex")).pointer.endpoint_id

    assert 1 == sum(isinstance(result, Conflict) for result in results)
    assert (
        2 == (await rotated(installation, wanted(foreign, tenant_id=TenantId("globex"), rotation_id="r1"))).generation
    )


@pytest.mark.req("SEC-08", "SEC-09")
async def test_another_tenants_endpoint_is_not_found(installation: Installation, endpoint: EndpointId) -> None:
    """An endpoint of another tenant is not found, and nothing is changed."""
    with pytest.raises(NotFound):
        await rotated(installation, wanted(endpoint, tenant_id=TenantId("globex")))
    assert ["active"] == await states(installation)


@pytest.mark.req("SEC-09")
async def test_an_altered_row_is_not_rotated(installation: Installation, endpoint: EndpointId) -> None:
    """An altered row is refused, since a rotation would give it a valid MAC."""
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://attacker.example/'")

    with pytest.raises(SecretTampered):
        await rotated(installation, wanted(endpoint))
    assert ["active"] == await states(installation)


@pytest.mark.req("DEL-04", part="x-webhook")
async def test_each_version_signs_in_its_scheme(installation: Installation, endpoint: EndpointId) -> None:
    """In the overlap each version signs by the scheme it was made for."""
    given = SecretMaterial(b"sixteen bytes or more of text")
    await rotated(installation, wanted(endpoint, scheme=Scheme.X_WEBHOOK, secret=given, given=True))
    _, taken = await claim(installation)
    assert taken.target is not None

    async with installation.unlocked.service.signers(taken.target.pointer) as signers:
        assert [Scheme.X_WEBHOOK, Scheme.STANDARD] == [signer.scheme for signer in signers]


@pytest.mark.req("SEC-09")
async def test_a_given_secret_must_fit_its_scheme(installation: Installation, endpoint: EndpointId) -> None:
    """A secret that cannot sign in the scheme is refused, and nothing is rotated."""
    with pytest.raises(Malformed):
        await rotated(installation, wanted(endpoint, secret=SecretMaterial(b"no whsec_"), given=True))
    assert ["active"] == await states(installation)


@pytest.mark.req("SEC-10")
@pytest.mark.req("OPS-10")
async def test_a_rollback_exchanges_the_secrets(installation: Installation, endpoint: EndpointId) -> None:
    """In an overlap the previous secret becomes current again, and the other one signs for a new overlap."""
    await rotated(installation, wanted(endpoint))
    async with installation.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        after = await rotation.roll_back(operator, tenant=TENANT, endpoint_id=endpoint, overlap_seconds=60)

        assert (ref(endpoint, 1), ref(endpoint, 2), 3) == (
            after.secret_ref,
            after.previous_secret_ref,
            after.generation,
        )
        assert 30 < (await row(installation, endpoint))["seconds_left"] <= 60
        assert ["active", "previous"] == await states(installation)
        assert ("secret.rolled_back", "ada@desk") == (await audited(installation))[-1]

        await rotation.roll_back(operator, tenant=TENANT, endpoint_id=endpoint, overlap_seconds=0)
        assert ["retired", "active"] == await states(installation)
        with pytest.raises(Conflict, match="no overlap"):
            await rotation.roll_back(operator, tenant=TENANT, endpoint_id=endpoint, overlap_seconds=60)


@pytest.mark.req("SEC-10")
@pytest.mark.req("OPS-10")
async def test_the_end_of_an_overlap_retires_the_previous_secret(
    installation: Installation, endpoint: EndpointId
) -> None:
    """The previous secret is retired without a new one; with another expected generation it stays."""
    await rotated(installation, wanted(endpoint))
    async with installation.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        with pytest.raises(Conflict, match="generation"):
            await rotation.end_overlap(operator, tenant=TENANT, endpoint_id=endpoint, expect_generation=1)
        after = await rotation.end_overlap(operator, tenant=TENANT, endpoint_id=endpoint, expect_generation=2)

    assert (ref(endpoint, 2), None, 3) == (after.secret_ref, after.previous_secret_ref, after.generation)
    assert ["retired", "active"] == await states(installation)
    assert ("secret.overlap_ended", "ada@desk") == (await audited(installation))[-1]


@pytest.mark.req("SEC-10")
async def test_a_revocation_waits_for_older_claims(installation: Installation, endpoint: EndpointId) -> None:
    """A revocation is complete once every older claim is recorded; newer claims do not count."""
    ledger, older = await claim(installation)
    answer = await rotated(installation, wanted(endpoint, overlap_seconds=0))
    await claim(installation)
    counts: list[int] = []
    begun = asyncio.Event()

    def report(left: int) -> None:
        counts.append(left)
        begun.set()

    async with installation.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        waiting = asyncio.create_task(
            rotation.wait_until_complete(
                operator.connection,
                tenant=TENANT,
                endpoint_id=endpoint,
                generation=answer.generation,
                clock=SystemClock(),
                report=report,
            )
        )
        await asyncio.wait_for(begun.wait(), 60)
        assert not waiting.done()
        await ledger.release(older, None)
        await asyncio.wait_for(waiting, 60)

    assert {1} == set(counts)


@pytest.mark.req("SEC-10")
async def test_an_expired_claim_does_not_delay_a_revocation(installation: Installation, endpoint: EndpointId) -> None:
    """A dead worker's claim delays a revocation until its lease ends, since it may not send after that."""
    await claim(installation, lease_seconds=0.5)
    answer = await rotated(installation, wanted(endpoint, overlap_seconds=0))
    async with installation.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        await asyncio.wait_for(
            rotation.wait_until_complete(
                operator.connection,
                tenant=TENANT,
                endpoint_id=endpoint,
                generation=answer.generation,
                clock=SystemClock(),
                report=lambda _: None,
            ),
            5,
        )


@pytest.mark.req("SEC-07")
async def test_a_rotation_releases_a_held_delivery(installation: Installation, endpoint: EndpointId) -> None:
    """A rotation releases a held delivery, due and unrung, so that the outbox rings it."""
    [ring] = await installation.deliveries()
    await _held(installation, ring)
    await rotated(installation, wanted(endpoint))
    await installation.settle()
    found = await installation.delivery(ring)

    assert (None, True) == (
        found["rung_at"],
        await installation.pool.fetchval("SELECT next_attempt_at <= now() FROM hookseal.deliveries"),
    )


@pytest.mark.req("SEC-09")
async def test_the_intent_on_record_holds_no_secret(installation: Installation, endpoint: EndpointId) -> None:
    """The row of a rotation has its arguments and answer, and only a keyed fingerprint of a given secret."""
    given = generate_signing_secret()
    await rotated(installation, wanted(endpoint, secret=given, given=True, rotation_id="r1"))
    kept = await installation.pool.fetchrow("SELECT * FROM hookseal.secret_rotations")
    assert kept is not None

    assert given.reveal().decode() not in str(dict(kept))
    assert 16 == len(json.loads(kept["intent"])["secret"])
    assert (2, "done") == (kept["version"], kept["outcome"])


async def _held(installation: Installation, ring: Ring) -> None:
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', held_at = now(), rung_at = now(),"
        " next_attempt_at = now() + interval '15 s' WHERE id = $1::text::uuid",
        ring.delivery_id,
    )


@pytest.mark.req("SEC-09")
async def test_a_repeat_after_the_integrity_key_was_rotated(installation: Installation, endpoint: EndpointId) -> None:
    """A repeat with a given secret still matches a fingerprint under an older integrity key version."""
    asked = wanted(endpoint, given=True, rotation_id="r-1")
    first = await rotated(installation, asked)
    async with installation.pool.acquire() as connection:
        await rotate_integrity_key(installation.operator(connection), os.urandom)

    assert first.secret_ref == (await rotated(installation, asked)).secret_ref
    with pytest.raises(Conflict):
        await rotated(installation, wanted(endpoint, given=True, rotation_id="r-1"))


async def test_a_repeat_with_an_unknown_fingerprint_is_refused(
    installation: Installation, endpoint: EndpointId
) -> None:
    """A repeat whose fingerprint is under an unknown integrity key version is refused as a different request."""
    asked = wanted(endpoint, rotation_id="r-1")
    await rotated(installation, asked)
    await installation.pool.execute(
        'UPDATE hookseal.secret_rotations SET intent = (intent::jsonb || \'{"key_id": "9"}\')::json'
    )

    with pytest.raises(Conflict):
        await rotated(installation, asked)
