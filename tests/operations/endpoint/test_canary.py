"""A probe on a real database: what it reads, when it is not sent, and what is recorded."""

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, Reply
from hookseal.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.probe import ask_whether_switched, end_if_switched
from hookseal.operations.sending import Sending
from hookseal.secrets import restore
from hookseal.secrets.endpoint import canary_results, pointer
from hookseal.secrets.endpoint.canary_results import MOST_KEPT, Evidence
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation
from tests.doubles.transport import ScriptedTransport

ACME = TenantId("acme")
TAKEN = Reply(status=204, snippet="")
REFUSED = Reply(status=401, snippet="")
pytestmark = pytest.mark.req("OPS-12")


class Slow(FakeClock):
    """A clock that advances by a given time at each reading."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self._seconds = list(seconds)

    def monotonic(self) -> float:
        """Return the seconds since the start, and advance by the next of the times."""
        now = self.elapsed
        self.elapsed += self._seconds.pop(0) if self._seconds else 0.0
        return now


async def probed(
    installation: Installation,
    endpoint: EndpointId,
    transport: ScriptedTransport,
    *,
    clock: FakeClock | None = None,
    expect_generation: int | None = None,
) -> Evidence:
    sending = Sending(transport=transport, clock=clock or FakeClock(), allow_http=False, user_agent="hookseal/1")
    return await installation.act(
        ask_whether_switched, sending, tenant=ACME, endpoint_id=endpoint, expect_generation=expect_generation
    )


async def canary_count(installation: Installation) -> int:
    """Return the number of recorded canaries."""
    count: int = await installation.pool.fetchval("SELECT count(*) FROM hookseal.rotation_canaries")
    return count


@pytest.fixture
async def endpoint(installation: Installation) -> EndpointId:
    """Return an endpoint in an overlap, at generation 2."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, overlap_seconds=60, force=True)
    return endpoint


async def test_the_answer_is_recorded(installation: Installation, endpoint: EndpointId) -> None:
    first = await probed(installation, endpoint, ScriptedTransport(REFUSED))
    second = await probed(installation, endpoint, ScriptedTransport(TAKEN, REFUSED))

    assert ("not_switched", "switched", 2) == (first.verdict, second.verdict, second.generation)
    assert second == await canary_results.last(installation.pool, ACME, endpoint, 2)
    assert None is await canary_results.last(installation.pool, ACME, endpoint, 1)
    assert None is await canary_results.last(installation.pool, ACME, endpoint, 3)
    assert None is await canary_results.last(installation.pool, TenantId("globex"), endpoint, 2)


async def test_the_canary_is_signed_and_the_control_is_not(installation: Installation, endpoint: EndpointId) -> None:
    transport = ScriptedTransport(TAKEN, REFUSED)
    await probed(installation, endpoint, transport)
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await pointer.lock(connection, tenant=ACME, endpoint_id=endpoint)
    matches = []
    async with installation.unlocked.service.signers(found) as signers:
        for request in transport.sent:
            content = b"%b.%b.%b" % (
                request.headers["webhook-id"].encode(),
                request.headers["webhook-timestamp"].encode(),
                request.body,
            )
            matches.append([request.headers["webhook-signature"] == signer.sign(content) for signer in signers])

    assert [[True, False], [False, False]] == matches


@pytest.mark.parametrize(
    ("answers", "during"),
    [
        pytest.param((TAKEN, REFUSED), 1, id="before-the-control"),
        pytest.param((REFUSED,), None, id="before-the-canary"),
    ],
)
async def test_a_changed_generation_proves_nothing(
    installation: Installation, endpoint: EndpointId, answers: tuple[Answer, ...], during: int | None
) -> None:
    transport = ScriptedTransport(
        *answers, during=lambda: installation.rotate(endpoint, overlap_seconds=60, force=True)
    )
    if during is None:
        await installation.rotate(endpoint, overlap_seconds=60, force=True)
    with pytest.raises(Conflict, match="generation 3, not 2"):
        await probed(installation, endpoint, transport, expect_generation=2)

    assert (during or 0, 0) == (len(transport.sent), await canary_count(installation))


async def test_an_older_generations_proof_ends_no_overlap(installation: Installation, endpoint: EndpointId) -> None:
    found = await probed(installation, endpoint, ScriptedTransport(TAKEN, REFUSED))
    await installation.rotate(endpoint, overlap_seconds=60, force=True)
    with pytest.raises(Conflict, match="generation 3, not 2"):
        await installation.act(end_if_switched, found)
    again = await probed(installation, endpoint, ScriptedTransport(TAKEN, REFUSED))
    assert await installation.act(end_if_switched, again)


@pytest.mark.parametrize(
    ("clock", "answers", "sent", "detail"),
    [
        pytest.param(Slow(2.0), (), 0, "signed: it could not begin within 2 s", id="canary"),
        pytest.param(Slow(0.0, 0.0, 2.5), (TAKEN,), 1, "is not known: it could not begin within 2 s", id="control"),
        pytest.param(Slow(1.5), (TAKEN, REFUSED), 2, "refused an invalid signature", id="neither"),
    ],
)
async def test_neither_request_begins_late(
    installation: Installation, endpoint: EndpointId, clock: Slow, answers: tuple[Answer, ...], sent: int, detail: str
) -> None:
    transport = ScriptedTransport(*answers, clock=clock)
    found = await probed(installation, endpoint, transport, clock=clock)

    assert sent == len(transport.sent)
    assert detail in (found.detail or "")
    assert all(request.start_by <= clock.monotonic() + 2 for request in transport.sent)


async def test_a_failed_request_is_an_outcome(installation: Installation, endpoint: EndpointId) -> None:
    failure = Failure(kind=FailureKind.TLS, detail="the TLS handshake failed")
    found = await probed(installation, endpoint, ScriptedTransport(failure))

    assert ("no_answer", None) == (found.verdict, found.status)
    assert "the TLS handshake failed" in (found.detail or "")


async def test_an_absent_endpoint_gets_no_request(installation: Installation) -> None:
    transport = ScriptedTransport(TAKEN)
    with pytest.raises(NotFound):
        await probed(installation, EndpointId("01900000-0000-7000-8000-0000000000ff"), transport)

    assert [] == transport.sent


async def test_the_newest_hundred_are_kept(installation: Installation, endpoint: EndpointId) -> None:
    other = (await installation.endpoint(url="https://other.example/")).pointer.endpoint_id
    await probed(installation, other, ScriptedTransport(REFUSED))
    first = await probed(installation, endpoint, ScriptedTransport(REFUSED))
    async with installation.pool.acquire() as connection, connection.transaction():
        for _ in range(MOST_KEPT):
            await canary_results.keep(connection, replace(first, id=await canary_results.new_id(connection)))

    counts = await installation.pool.fetch(
        "SELECT endpoint_id::text, count(*), bool_or(id::text = $1) AS has_first"
        " FROM hookseal.rotation_canaries GROUP BY 1",
        first.id,
    )
    assert {(endpoint, MOST_KEPT, False), (other, 1, False)} == {tuple(row) for row in counts}


async def test_nothing_is_recorded_after_a_deletion(installation: Installation, endpoint: EndpointId) -> None:
    """After a deletion nothing is recorded for the endpoint: its deletion stays the last audit row."""

    async def gone() -> None:
        await installation.act(delete_endpoint, ACME, endpoint)

    with pytest.raises(NotFound):
        await probed(installation, endpoint, ScriptedTransport(REFUSED, during=gone))

    assert [] == [found async for found in restore.find_stale(installation.pool)]
    assert 0 == await canary_count(installation)
