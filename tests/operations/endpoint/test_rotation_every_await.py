"""A process that changes an endpoint's secret, killed at every await, leaves the whole old or the whole new state."""

from dataclasses import dataclass
from itertools import count

import pytest

from hookseal.audit import log
from hookseal.errors import Conflict
from hookseal.ground.ids import EndpointId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.signing import Signer
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.doubles.stored import Installation
from tests.operations.every_await import Program, require_one_moment
from tests.operations.killed_process import TENANT, operation, wanted

pytestmark = pytest.mark.timeout(300)  # starts a process for every await


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected endpoint after an operation: signing versions, current first, and all states."""

    generation: int
    signing: tuple[int, ...]
    states: tuple[str, ...]
    actions: tuple[str, ...]


FIRST = Expected(generation=1, signing=(1,), states=("active",), actions=("endpoint.added",))
OVERLAP = Expected(
    generation=2, signing=(2, 1), states=("previous", "active"), actions=("endpoint.added", "secret.rotated")
)
REVOKED = Expected(
    generation=2, signing=(2,), states=("retired", "active"), actions=("endpoint.added", "secret.rotated")
)
BACK = Expected(
    generation=3, signing=(1, 2), states=("active", "previous"), actions=(*OVERLAP.actions, "secret.rolled_back")
)
ENDED = Expected(
    generation=3, signing=(2,), states=("retired", "active"), actions=(*OVERLAP.actions, "secret.overlap_ended")
)
REVEALED = Expected(generation=2, signing=(2, 1), states=OVERLAP.states, actions=(*OVERLAP.actions, "secret.revealed"))


@pytest.mark.req("SEC-09", "SEC-10")
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("rotate", FIRST, OVERLAP, id="rotate"),
        pytest.param("revoke", FIRST, REVOKED, id="revoke"),
        pytest.param("rotate", OVERLAP, REVEALED, id="ask-again"),
        pytest.param("roll_back", OVERLAP, BACK, id="roll-back"),
        pytest.param("end_overlap", OVERLAP, ENDED, id="end-overlap"),
    ],
)
async def test_a_rotation_killed_at_any_await_can_be_repeated(
    installation: Installation, program: Program, name: str, old: Expected, new: Expected
) -> None:
    endings: list[bool] = []
    for kill_at in count(1):
        endpoint = await prepared(installation, old, number=kill_at)
        ending = await program.run(name, endpoint, kill_at)
        if not ending.was_killed:
            assert len(endings) == ending.places
            assert await is_done(installation, endpoint, old, new)
            break
        endings.append(done := await is_done(installation, endpoint, old, new))
        if endings.count(done) == 1:  # else what is stored is the same as after the kill before
            await require_repeatable(installation, name, endpoint, new, done=done)

    require_one_moment(endings, least=8)


async def prepared(installation: Installation, old: Expected, *, number: int) -> EndpointId:
    """Return a new endpoint in that state."""
    endpoint = (await installation.endpoint(url=f"https://receiver.example/{number}")).pointer.endpoint_id
    if old is OVERLAP:
        await rotated(installation, endpoint, overlap_seconds=60)
    return endpoint


async def rotated(installation: Installation, endpoint: EndpointId, *, overlap_seconds: int) -> RotationResult:
    """Send the order for the rotation of the program."""
    return await installation.act(rotate_secret, wanted(endpoint, overlap_seconds=overlap_seconds))


async def is_done(installation: Installation, endpoint: EndpointId, old: Expected, new: Expected) -> bool:
    """Return whether everything stored shows the operation as done; fail if it disagrees."""
    found = await stored_state(installation, endpoint)
    assert found in {old, new}
    [chain] = await log.verify(installation.pool, installation.unlocked.integrity, tenant=TENANT)
    assert chain.broken is None
    ids = await installation.pool.fetch(
        "SELECT rotation_id FROM hookseal.secret_rotations WHERE endpoint_id = $1::text::uuid", endpoint
    )
    has_rotated = "secret.rotated" in found.actions
    assert [f"r-{endpoint}"] * has_rotated == [row["rotation_id"] for row in ids]
    return found == new


async def stored_state(installation: Installation, endpoint: EndpointId) -> Expected:
    """Return the stored state: the row with a valid MAC, its versions, and its audit rows."""
    pointer = await claimed(installation, endpoint)
    async with installation.unlocked.service.signers(pointer) as signers:
        signing = tuple(SecretRef.parse(signer.ref).version for signer in signers)
    first = SecretRef.parse(pointer.secret_ref or "")
    versions = await installation.unlocked.store.versions(first.tenant, first.name)
    actions = await installation.pool.fetch(
        "SELECT action FROM hookseal.audit_log WHERE tenant_id = 'acme' AND subject = $1 ORDER BY sequence",
        f"endpoint:{endpoint}",
    )
    return Expected(
        generation=pointer.generation,
        signing=signing,
        states=tuple(version.state.value for version in versions),
        actions=tuple(row["action"] for row in actions),
    )


async def claimed(installation: Installation, endpoint: EndpointId) -> Pointer:
    """Publish an event, claim its delivery for the endpoint, and return what the claim read."""
    [ring] = [each for each in await installation.deliveries() if each.endpoint_id == endpoint]
    return await installation.claimed(ring)


async def require_repeatable(
    installation: Installation, name: str, endpoint: EndpointId, new: Expected, *, done: bool
) -> None:
    """Fail unless a repeat finds the operation done once, and a claim signs with the answered secret."""
    if name in {"rotate", "revoke"}:
        answer = await rotated(installation, endpoint, overlap_seconds=60 if name == "rotate" else 0)
        assert (done or "secret.revealed" in new.actions) == (answer.before is None)
        await signs_as_answered(installation, endpoint, answer)
        return
    async with installation.pool.acquire() as connection:
        again = operation(installation.operator(connection), name, endpoint)
        if done:
            with pytest.raises(Conflict, match="generation 3"):
                await again
        else:
            await again
    assert new == await stored_state(installation, endpoint)


async def signs_as_answered(installation: Installation, endpoint: EndpointId, answer: RotationResult) -> None:
    """Fail unless the answered secret is the stored one, and signs first."""
    assert answer.secret is not None
    ref = SecretRef.parse(answer.secret_ref)
    assert answer.secret == await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    expected = Signer(answer.secret_ref, answer.secret, Scheme.STANDARD, Algorithm.HMAC).sign(b"x")
    pointer = await claimed(installation, endpoint)
    assert (answer.generation, answer.secret_ref) == (pointer.generation, pointer.secret_ref)
    async with installation.unlocked.service.signers(pointer) as signers:
        assert expected == signers[0].sign(b"x")
