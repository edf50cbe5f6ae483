"""A process that changes an endpoint's secret, killed at every await: the old state or the new one, whole."""

import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hookseal.audit import log
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.errors import Conflict
from hookseal.ground.ids import EndpointId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.rotation import rotate
from hookseal.secrets.context import Purpose
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.rotation import Rotated
from hookseal.secrets.signer import Signer
from tests import forked
from tests.doubles.stored import Installation
from tests.operations import dying
from tests.operations.dying import TENANT
from tests.worker.waiting import eventually

pytestmark = pytest.mark.timeout(300)  # a process for every await

ROOT = Path(__file__).parents[2]
SESSIONS = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dying'"
KILLED = -9


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an endpoint looks like once an operation is done: versions that sign, current first, and their states."""

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
TOLD = Expected(generation=2, signing=(2, 1), states=OVERLAP.states, actions=(*OVERLAP.actions, "secret.revealed"))


class Dying:
    """The program that obeys orders, each in a process that may die of it."""

    def __init__(self, process: Process, database_url: str) -> None:
        self._process = process
        self._database_url = database_url

    async def obey(self, name: str, endpoint: EndpointId, dies_at: int) -> dict[str, Any]:
        """Return how a fresh process ended that did it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"database_url": self._database_url, "name": name, "endpoint": endpoint, "dies_at": dies_at}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


@pytest.fixture
async def program(database_url: str) -> AsyncIterator[Dying]:
    """Yield the program; it is ended afterwards."""
    process = await forked.start(module="tests.operations.dying", stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert process.stdin is not None
    try:
        yield Dying(process, database_url)
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.req("SEC-09", "SEC-10")
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("rotate", FIRST, OVERLAP, id="rotate"),
        pytest.param("revoke", FIRST, REVOKED, id="revoke"),
        pytest.param("rotate", OVERLAP, TOLD, id="ask-again"),
        pytest.param("roll_back", OVERLAP, BACK, id="roll-back"),
        pytest.param("end_overlap", OVERLAP, ENDED, id="end-overlap"),
    ],
)
async def test_killed_at_every_await(
    installation: Installation, program: Dying, name: str, old: Expected, new: Expected
) -> None:
    """Killed as it begins to wait for PostgreSQL or is answered, it did all or nothing, and may be asked again."""
    endings: list[bool] = []
    for dies_at in count(1):
        endpoint = await prepared(installation, old, number=dies_at)
        answer = await program.obey(name, endpoint, dies_at)
        await eventually(lambda: installation.pool.fetchval(SESSIONS))
        if answer["code"] != KILLED:
            assert {"code": 0, "count": len(endings)} == answer
            assert await is_done(installation, endpoint, old, new)
            break
        endings.append(await is_done(installation, endpoint, old, new))
        await goes_on(installation, name, endpoint, new, done=endings[-1])

    assert len(endings) > 20  # so many at least: each of them was tried
    assert sorted(endings) == endings  # there is one moment before which it is not done, and after which it is
    assert {False, True} == set(endings)


async def prepared(installation: Installation, old: Expected, *, number: int) -> EndpointId:
    """Return a new endpoint in that state."""
    endpoint = (await installation.endpoint(url=f"https://receiver.example/{number}")).pointer.endpoint_id
    if old is OVERLAP:
        await rotated(installation, endpoint, overlap_seconds=60)
    return endpoint


async def rotated(installation: Installation, endpoint: EndpointId, *, overlap_seconds: int) -> Rotated:
    """Ask for the rotation that the program asks for."""
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        return await rotate(operator, dying.wanted(endpoint, overlap_seconds=overlap_seconds))


async def is_done(installation: Installation, endpoint: EndpointId, old: Expected, new: Expected) -> bool:
    """Return whether everything that is stored says that it was done; fail unless all of it agrees."""
    found = await stands(installation, endpoint)
    assert found in {old, new}
    [chain] = await log.verify(installation.pool, installation.unlocked.integrity, tenant=TENANT)
    assert chain.broken is None
    ids = await installation.pool.fetch(
        "SELECT rotation_id FROM hookseal.secret_rotations WHERE endpoint_id = $1::text::uuid", endpoint
    )
    has_rotated = "secret.rotated" in found.actions
    assert [f"r-{endpoint}"] * has_rotated == [row["rotation_id"] for row in ids]
    return found == new


async def stands(installation: Installation, endpoint: EndpointId) -> Expected:
    """Return how the endpoint stands: its row, whose MAC holds, and its versions, and what the log has of it."""
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
    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    assert claim.target is not None
    return claim.target.pointer


async def goes_on(installation: Installation, name: str, endpoint: EndpointId, new: Expected, *, done: bool) -> None:
    """Fail unless whoever asks again finds it done once, and a claim signs with what was answered."""
    if name in {"rotate", "revoke"}:
        answer = await rotated(installation, endpoint, overlap_seconds=60 if name == "rotate" else 0)
        assert (done or "secret.revealed" in new.actions) == (answer.before is None)
        await signs_as_answered(installation, endpoint, answer)
        return
    async with installation.pool.acquire() as connection:
        again = dying.operation(installation.operator(connection), name, endpoint)
        if done:
            with pytest.raises(Conflict, match="generation 3"):
                await again
        else:
            await again
    assert new == await stands(installation, endpoint)


async def signs_as_answered(installation: Installation, endpoint: EndpointId, answer: Rotated) -> None:
    """Fail unless the secret of the answer is the one that is stored, and the first that signs."""
    assert answer.secret is not None
    ref = SecretRef.parse(answer.secret_ref)
    assert answer.secret == await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    expected = Signer(answer.secret_ref, answer.secret, Scheme.STANDARD, Algorithm.HMAC).sign(b"x")
    pointer = await claimed(installation, endpoint)
    assert (answer.generation, answer.secret_ref) == (pointer.generation, pointer.secret_ref)
    async with installation.unlocked.service.signers(pointer) as signers:
        assert expected == signers[0].sign(b"x")
